"""A vocoder: mel spectrograms become speech, against discriminators of several periods and scales, as in HiFi-GAN.

python docs/examples/vocoder.py --steps 200 --sounds /usr/share/asterisk/sounds --out vocoder.png

The recordings come from Debian's package asterisk-core-sounds-en-wav (568 prompts of one speaker, 8 kHz, 25 minutes,
CC-BY-SA 3.0): apt-get install asterisk-core-sounds-en-wav, or apt-get download and dpkg -x, which need no root.
The losses are those of Kong et al. 2020, arXiv:2010.05646: least squares, 2 x feature matching, 45 x the distance of
log-mel spectrograms. R1 at the recordings in every 8th step is added here.
"""

import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from beside import beside, options
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, l1_loss, leaky_relu, pad
from torch.nn.utils.parametrizations import weight_norm

from gan_engine.adversarial import Adversarial

RATE, HOP, WINDOW, MELS = 8000, 64, 256, 40
LENGTH = 4096  # samples of a training piece
R1 = 1e-3  # it is a sum over 4096 samples and over the logits of 7 discriminators


def recordings(folder: Path) -> list[Tensor]:
    """Waves [samples] in [-1, 1] of at least LENGTH samples; every 16-bit .wav below the folder."""
    found = []
    for path in sorted(folder.rglob("*.wav")):
        with wave.open(str(path)) as file:
            samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        if len(samples) >= LENGTH and file.getframerate() == RATE:
            found.append(torch.from_numpy(samples.astype(np.float32) / 2**15))
    if not found:
        sys.exit(
            f"error: no recordings of {RATE} Hz in {folder}. Install them by apt-get install "
            "asterisk-core-sounds-en-wav, or name their folder by --sounds"
        )
    return found


def pieces(waves: list[Tensor], num: int) -> Iterator[Tensor]:
    """Batches [num, 1, LENGTH] of random pieces, without end."""
    while True:
        picked = [waves[i] for i in torch.randint(len(waves), (num,))]
        starts = [int(torch.randint(len(x) - LENGTH + 1, ())) for x in picked]
        yield torch.stack([x[start : start + LENGTH] for x, start in zip(picked, starts)])[:, None]


def mel_filters() -> Tensor:
    """[MELS, WINDOW / 2 + 1], triangles that are equally wide on the mel scale"""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)
    frequencies = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    return torch.from_numpy(np.maximum(0, np.minimum(rising, falling)).astype(np.float32))


FILTERS, HANN = mel_filters(), torch.hann_window(WINDOW)


def log_mel(wav: Tensor) -> Tensor:
    """[N, 1, samples] -> [N, MELS, samples / HOP]"""
    x = pad(wav.squeeze(1), ((WINDOW - HOP) // 2,) * 2, mode="reflect")
    spectrum = torch.stft(x, WINDOW, HOP, window=HANN, center=False, return_complex=True)
    return (FILTERS @ (spectrum.abs().square() + 1e-9).sqrt()).clamp(min=1e-4).log()


class Block(nn.Module):
    """Convolutions with growing gaps, each added to its input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(channels, channels, 3, 1, gap, gap) for gap in (1, 3, 9))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(leaky_relu(x, 0.1))
        return x


def generator() -> nn.Module:
    """[N, MELS, frames] -> [N, 1, HOP * frames]"""
    return nn.Sequential(
        *(nn.Conv1d(MELS, 96, 7, 1, 3), nn.LeakyReLU(0.1), nn.ConvTranspose1d(96, 48, 16, 8, 4), Block(48)),
        *(nn.LeakyReLU(0.1), nn.ConvTranspose1d(48, 16, 16, 8, 4), Block(16), nn.LeakyReLU(0.1)),
        *(nn.Conv1d(16, 1, 7, 1, 3), nn.Tanh()),
    )


class Layers(nn.Module):
    """(logits, features) of layers, the last of which gives the logits."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for layer in self.layers[:-1]:
            x = leaky_relu(layer(x), 0.1)
            features.append(x)
        return self.layers[-1](x).flatten(1), features


class Discriminator(nn.Module):
    """[N, 1, samples] -> seven pairs (logits, features): five periods and two scales"""

    periods = 2, 3, 5, 7, 11

    def __init__(self) -> None:
        super().__init__()
        steps = (1, 8), (8, 16), (16, 32)
        self.of_periods = nn.ModuleList(
            Layers(*(nn.Conv2d(i, o, (5, 1), (3, 1), (2, 0)) for i, o in steps), nn.Conv2d(32, 1, (3, 1), 1, (1, 0)))
            for _ in self.periods
        )
        self.of_scales = nn.ModuleList(
            Layers(
                *(nn.Conv1d(1, 16, 15, 1, 7), nn.Conv1d(16, 32, 41, 4, 20, groups=4)),
                *(nn.Conv1d(32, 64, 41, 4, 20, groups=16), nn.Conv1d(64, 1, 3, 1, 1)),
            )
            for _ in range(2)
        )

    def forward(self, wav: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        found = []
        for period, D in zip(self.periods, self.of_periods):
            x = pad(wav, (0, -wav.shape[2] % period), mode="reflect")
            found.append(D(x.unflatten(2, (-1, period))))
        for i, D in enumerate(self.of_scales):
            found.append(D(avg_pool1d(wav, 2**i) if i else wav))
        return found


def plain_terms(D: nn.Module, real: Tensor, fake: Tensor, gamma: float) -> dict[str, Tensor]:
    """The parts of a step of D, as one writes them without gan_engine."""
    real = real.clone().requires_grad_()
    of_real, of_fake = ([logits for logits, _ in D(wav)] for wav in (real, fake))
    loss = sum(((r - 1).square().mean() + f.square().mean()) / 2 for r, f in zip(of_real, of_fake))
    (g,) = torch.autograd.grad(sum(logits.sum() for logits in of_real), real, create_graph=True)
    return {"D": loss, "r1": gamma / 2 * g.square().sum((1, 2)).mean()}


def train(G: nn.Module, D: nn.Module, batches: Iterator[Tensor], steps: int) -> Iterator[dict[str, float]]:
    game = Adversarial(D, "least_squares", r1=R1, penalty_interval=8, feature_matching=2.0)
    G_optimizer, D_optimizer = (torch.optim.AdamW(net.parameters(), lr=5e-4, betas=(0.8, 0.99)) for net in (G, D))
    for _ in range(steps):
        real = next(batches)
        mel = log_mel(real)
        fake = G(mel)
        D_optimizer.zero_grad()
        parts = game.d_step(real, fake)
        D_optimizer.step()
        G_optimizer.zero_grad()
        terms = game.g_terms(fake, real) | {"mel": 45 * l1_loss(log_mel(fake), mel)}
        sum(terms.values()).backward()
        G_optimizer.step()
        yield {name: float(value.detach()) for name, value in (parts | terms).items()}


def draw(out: str, real: Tensor, fake: Tensor) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for axes, wav, title in zip(figure.subplots(2, 1, sharex=True), (real, fake), ("recording", "vocoder")):
        mel = log_mel(wav[None, None])[0].numpy()
        axes.imshow(mel, origin="lower", aspect="auto", vmin=-9, vmax=2, extent=(0, len(wav) / RATE, 0, MELS))
        axes.set(title=title, ylabel="mel band")
    axes.set_xlabel("seconds")
    figure.savefig(out, dpi=90)


def main() -> None:
    asked = options(__doc__, 200, sounds="/usr/share/asterisk/sounds", out="vocoder.png")
    waves = recordings(Path(asked.sounds))
    held_out, waves = waves[::10], [x for i, x in enumerate(waves) if i % 10]
    G, D = generator(), Discriminator()
    test = next(pieces(held_out, 32))
    for step, parts in enumerate(train(G, D, pieces(waves, 4), asked.steps)):
        if step % 50 == 0 or step == asked.steps - 1:
            with torch.no_grad():
                distance = l1_loss(log_mel(G(log_mel(test))), log_mel(test))
            print(f"step {step:4}  held-out log-mel {distance:.3f}  " + _line(parts), flush=True)
    real = next(pieces(waves, 4))
    fake = G(log_mel(real)).detach()
    game = Adversarial(D, "least_squares", r1=R1)
    print(beside(D, lambda: game.d_step(real, fake), lambda: plain_terms(D, real, fake, R1)))
    wav = held_out[1][: HOP * (len(held_out[1]) // HOP)]
    with torch.no_grad():
        draw(asked.out, wav, G(log_mel(wav[None, None]))[0, 0])
    print(f"wrote {asked.out}")


def _line(parts: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in parts.items())


if __name__ == "__main__":
    main()
