"""A vocoder with alias-free activations, as BigVGAN has them: its steps beside eager PyTorch and torch.compile.

python docs/examples/alias_free_vocoder.py --steps 100 --sounds /usr/share/asterisk/sounds

Recordings, losses and discriminators are those of vocoder.py. The generator has SnakeBeta between two filters, from
gan_engine.ops.alias_free_activation (Lee et al. 2023, arXiv:2206.04658).
"""

import statistics
import time
from pathlib import Path

import torch
import vocoder
from beside import options
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, l1_loss, pad

from gan_engine.adversarial import Adversarial
from gan_engine.ops import alias_free_activation, kaiser_sinc


class Activation(nn.Module):
    """SnakeBeta between two filters; `plain` computes it in PyTorch's own operators, as BigVGAN does."""

    def __init__(self, channels: int, plain: bool) -> None:
        super().__init__()
        self.alpha, self.beta = (nn.Parameter(torch.zeros(channels)) for _ in range(2))
        self.register_buffer("taps", kaiser_sinc())
        self.plain = plain

    def forward(self, x: Tensor) -> Tensor:
        if not self.plain:
            return alias_free_activation(x, self.alpha, self.beta, log_scale=True, fu=self.taps, fd=self.taps)
        f, c = self.taps.expand(x.shape[1], 1, 12), x.shape[1]
        u = 2 * conv_transpose1d(pad(x, (5, 5), mode="replicate"), f, stride=2, groups=c)[..., 15:-15]
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        u = u + torch.sin(u * alpha).square() / (beta + 1e-9)
        return conv1d(pad(u, (5, 6), mode="replicate"), f, stride=2, groups=c)


class Block(nn.Module):
    """Convolutions with growing gaps behind activations, each added to its input."""

    def __init__(self, channels: int, plain: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(Activation(channels, plain), nn.Conv1d(channels, channels, 3, 1, gap, gap))
            for gap in (1, 3, 5)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


def generator(plain: bool = False) -> nn.Sequential:
    """[N, MELS, frames] -> [N, 1, HOP * frames]"""
    return nn.Sequential(
        *(nn.Conv1d(vocoder.MELS, 128, 7, 1, 3), nn.ConvTranspose1d(128, 64, 16, 8, 4), Block(64, plain)),
        *(nn.ConvTranspose1d(64, 32, 16, 8, 4), Block(32, plain), Activation(32, plain)),
        *(nn.Conv1d(32, 1, 7, 1, 3), nn.Tanh()),
    )


def times(G: nn.Module, real: Tensor, rounds: int = 9, compiles: bool = True) -> dict[str, float]:
    """Milliseconds of a step of G's gradients, by the way in which it runs: processor time, medians of steps in turn

    The loss is the distance of log-mel spectrograms alone, as the discriminators take the same time for all.
    """
    plain = generator(plain=True)
    plain.load_state_dict(G.state_dict())
    ways = {"gan_engine": G, "eager": plain} | ({"torch.compile": torch.compile(plain)} if compiles else {})
    mel = vocoder.log_mel(real)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 2):
        for name, net in ways.items():
            start = time.thread_time()
            net.zero_grad()
            l1_loss(vocoder.log_mel(net(mel)), mel).backward()
            if number >= 2:
                taken[name].append(1e3 * (time.thread_time() - start))
    return {name: statistics.median(values) for name, values in taken.items()}


def gradient_difference(G: nn.Module, real: Tensor) -> float:
    """|ours - plain| / |plain| of all gradients of G"""
    plain, mel, found = generator(plain=True), vocoder.log_mel(real), []
    plain.load_state_dict(G.state_dict())
    for net in (G, plain):
        net.zero_grad()
        l1_loss(vocoder.log_mel(net(mel)), mel).backward()
        found.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    return float((found[0] - found[1]).norm() / found[1].norm())


def main() -> None:
    asked = options(__doc__, 100, sounds="/usr/share/asterisk/sounds")
    waves = vocoder.recordings(Path(asked.sounds))
    held_out, waves = waves[::10], [x for i, x in enumerate(waves) if i % 10]
    G, D = generator(), vocoder.Discriminator()
    test = next(vocoder.pieces(held_out, 32))
    for step, parts in enumerate(vocoder.train(G, D, vocoder.pieces(waves, 4), asked.steps)):
        if step % 25 == 0 or step == asked.steps - 1:
            with torch.no_grad():
                distance = l1_loss(vocoder.log_mel(G(vocoder.log_mel(test))), vocoder.log_mel(test))
            print(f"step {step:4}  held-out log-mel {distance:.3f}  mel {parts['mel']:.3f}", flush=True)
    real = next(vocoder.pieces(waves, 4))
    print(f"gradients of G differ from those of PyTorch's operators by {gradient_difference(G, real):.1e}")
    for name, ms in times(G, real).items():
        print(f"gradients of G, {name:13} {ms:6.1f} ms")
    game = Adversarial(D, "least_squares", feature_matching=2.0)
    start = time.thread_time()
    fake = G(vocoder.log_mel(real))
    sum(game.g_terms(fake, real).values()).backward()
    print(f"with the discriminators, one step of G takes {1e3 * (time.thread_time() - start):.0f} ms")


if __name__ == "__main__":
    main()
