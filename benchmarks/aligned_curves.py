"""python -m benchmarks.aligned_curves [--steps 500] [--out ...png]: a run with R1 and a ViT for D, with four penalties.

The penalty is exact, by level "aligned" in float32 and bfloat16, or a difference in a random direction. All else is
equal: the networks at the start, the images, the noise. D's own gradient |dD/dimg|^2 at the same real images is the
curve that the penalty acts on. It is measured exactly, every EVERY steps.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.curved_discriminators import ViT
from gan_engine import models
from gan_engine.data import load
from gan_engine.data.sampler import Sampler
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.presets import dcgan

EVERY, BATCH, GAMMA = 10, 8, 20.0


def real_loss(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


def random_direction(D: nn.Module, img: Tensor, sigma: float = 0.01) -> None:
    logits, moved = D(torch.cat([img, img + sigma * torch.randn_like(img)])).chunk(2)
    (real_loss(logits).mean() + GAMMA / 2 * ((moved - logits) / sigma).square().mean()).backward()


def aligned_in_bfloat16(D: nn.Module, img: Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        backward_with_penalty(D, img, real_loss, gamma=GAMMA, level="aligned")


STEPS: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "exact": lambda D, img: backward_with_penalty(D, img, real_loss, gamma=GAMMA, level="autograd"),
    "aligned": lambda D, img: backward_with_penalty(D, img, real_loss, gamma=GAMMA, level="aligned"),
    "aligned, bfloat16": aligned_in_bfloat16,
    "random direction": random_direction,
}


def slopes(D: nn.Module, img: Tensor) -> Tensor:
    """|dD/dimg|^2 [N]"""
    return backward_with_penalty(D, img, None, gamma=0.0, level="autograd")[1]


def curves(step: Callable[[nn.Module, Tensor], object], steps: int) -> dict[str, list[float]]:
    """The mean |dD/dimg|^2 and the loss of D on both kinds of images, every EVERY steps."""
    torch.manual_seed(0)
    model = models.dcgan.Config(resolution=32, width=16, z_dim=32)
    G, D = models.dcgan.Generator(model), ViT(32, 2, channels=1)
    # D learns slowly, so that the training does not magnify small differences at once.
    optimizers = [torch.optim.Adam(net.parameters(), lr, betas=(0.0, 0.99)) for net, lr in ((G, 2e-4), (D, 3e-5))]
    data = load(dcgan().data_config, resolution=32, channels=1)
    sampler, rng = Sampler(data, BATCH, seed=0), torch.Generator().manual_seed(1)
    watched = next(sampler)[0]
    found: dict[str, list[float]] = {"mean of |dD/dimg|^2 at real images": [], "loss of D": []}
    for count in range(1, steps + 1):
        real, fake = next(sampler)[0], G(torch.randn(BATCH, 32, generator=rng))
        optimizers[1].zero_grad()
        F.softplus(D(fake.detach())).mean().backward()
        step(D, real)
        optimizers[1].step()
        optimizers[0].zero_grad()
        F.softplus(-D(fake)).mean().backward()
        optimizers[0].step()
        if count % EVERY == 0:
            with torch.no_grad():
                loss = F.softplus(D(fake)).mean() + F.softplus(-D(watched)).mean()
            for curve, value in zip(found.values(), (slopes(D, watched).mean(), loss), strict=True):
                curve.append(float(value))
    return found


def main() -> None:
    from matplotlib.figure import Figure

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "aligned.png")
    options = parser.parse_args()
    found = {name: curves(step, options.steps) for name, step in STEPS.items()}
    figure = Figure(figsize=(11, 3.5), layout="constrained")
    for axes, title in zip(figure.subplots(1, 2), found["exact"], strict=True):
        for (name, curve), style in zip(found.items(), ("-", "--", ":", "-."), strict=True):
            axes.plot(range(EVERY, options.steps + 1, EVERY), curve[title], style, label=name, linewidth=1.4)
        axes.set(title=title, xlabel="step")
        exact = torch.tensor(found["exact"][title])
        for name in list(found)[1:]:
            off = (torch.tensor(found[name][title]) - exact).abs() / exact.mean()
            print(f"{title}, {name}: off by {off.mean():.1e} of the mean on average, at most {off.max():.1e}")
    axes.legend()
    figure.savefig(options.out, dpi=100)
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
