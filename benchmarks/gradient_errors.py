"""How far gradients are from those in float32, by precision, on a CPU: `python -m benchmarks.gradient_errors`.

    TF32           factors of products and convolutions rounded to 10 bits, sums in float32, as tensor cores do it
    bf16           autocast; the path length, which leaves autocast, with factors rounded to 7 bits
    loss in bf16   the gradient of the adversarial loss of the same network under autocast, as a yardstick

A penalty may be computed in the precision whose error is at most about the yardstick. The errors are relative norms
over all parameters, after a few steps of training, on random images.
"""

import argparse
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.eager import eager_pytorch
from benchmarks.gpu_check.page import table
from gan_engine import models
from gan_engine.losses.penalties import backward_with_penalty, path_length
from gan_engine.presets import PRESETS

PRODUCTS = {"convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm"}
FAMILIES: dict[str, Callable[[], models.Config]] = {
    "stylegan2": lambda: models.stylegan2.Config(
        resolution=32, z_dim=128, w_dim=128, channel_base=2048, channel_max=128, mapping_layers=2
    ),
    "r3gan": lambda: PRESETS["r3gan"]().model,
    "dcgan": lambda: models.dcgan.Config(resolution=64, channels=3, d_norm=False),
    "wgan_gp": lambda: PRESETS["wgan_gp"]().model,
}


class Rounded(TorchDispatchMode):
    """Rounds the float32 factors of products and convolutions to `bits` of mantissa, to the nearest, ties to even."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.drop = 23 - bits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._overloadpacket.__name__ in PRODUCTS:
            args = tuple(self.rounded(x) if _is_factor(x) else x for x in args)
        return func(*args, **(kwargs or {}))

    def rounded(self, x: Tensor) -> Tensor:
        bits = x.contiguous().view(torch.int32)
        half = (1 << (self.drop - 1)) - 1 + ((bits >> self.drop) & 1)
        return ((bits + half) & ~((1 << self.drop) - 1)).view(torch.float32).view(x.shape)


def _is_factor(x: object) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.float32 and x.ndim > 1  # not a bias


def error(compute: Callable[[], object], net: nn.Module, context: AbstractContextManager, truth: Tensor) -> float:
    return float((gradient(compute, net, context) - truth).norm() / truth.norm())


def gradient(compute: Callable[[], object], net: nn.Module, context: AbstractContextManager) -> Tensor:
    """The gradient by all parameters that `compute` leaves inside of `context`, in one vector."""
    net.zero_grad(set_to_none=True)
    torch.manual_seed(1)
    with context:
        compute()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).double().flatten() for p in net.parameters()])


def trained(config: models.Config, img: Tensor, steps: int = 8) -> tuple[nn.Module, nn.Module]:
    """G and D, of which D has taken a few steps."""
    G, D = models.build(config)
    optimizer = torch.optim.Adam(D.parameters(), lr=2e-3 if hasattr(config, "w_dim") else 2e-4, betas=(0.0, 0.99))
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.no_grad():
            fake = G(torch.randn(len(img), config.z_dim))
        (F.softplus(D(fake)).mean() + F.softplus(-D(img)).mean()).backward()
        optimizer.step()
    return G, D


def rows(name: str, config: models.Config, images: int) -> list[dict[str, str]]:
    """The errors of the penalties of a family."""
    torch.manual_seed(0)
    img = torch.randn(images, config.channels, config.resolution, config.resolution) / 2
    G, D = trained(config, img)
    z = torch.randn(images, config.z_dim)
    with torch.no_grad():
        fake = G(z)
    options = {"gamma": 20.0, "centre": 1.0} if name == "wgan_gp" else {"gamma": 1.0}

    def of_d() -> None:
        (F.softplus(D(fake).float()).mean() + F.softplus(-D(img).float()).mean()).backward()

    def of_g() -> None:
        F.softplus(-D(G(z)).float()).mean().backward()

    def lengths() -> None:
        mean = torch.full((), 0.3)
        path_length(G.synthesis, G.ws(z), mean, generator=torch.Generator().manual_seed(2)).mean().backward()

    todo: dict[str, tuple[nn.Module, Callable, Callable]] = {
        "WGAN-GP" if name == "wgan_gp" else "R1": (D, lambda: backward_with_penalty(D, img, None, **options), of_d)
    }
    if models.capabilities(config).styles:
        todo["path length"] = (G, lengths, of_g)
    made = []
    for penalty, (net, compute, of_loss) in todo.items():
        half = torch.autocast("cpu", torch.bfloat16)
        truth = gradient(compute, net, contextlib.nullcontext())
        line = {"family": name, "penalty": penalty, "TF32": error(compute, net, Rounded(10), truth)}
        line["bf16"] = error(compute, net, Rounded(7) if penalty == "path length" else half, truth)
        line["loss in bf16"] = error(of_loss, net, half, gradient(of_loss, net, contextlib.nullcontext()))
        made.append({key: value if isinstance(value, str) else f"{value:.1e}" for key, value in line.items()})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="How far gradients are from those in float32, by precision.")
    parser.add_argument("--images", type=int, default=16)
    images = parser.parse_args().images
    with eager_pytorch():
        print(table([row for name, config in FAMILIES.items() for row in rows(name, config(), images)]))


if __name__ == "__main__":
    main()
