"""A training loop in plain PyTorch with the adversarial half of gan_engine: garments, a relativistic loss and lazy R1.

python docs/examples/adversarial_loop.py
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor, nn

from gan_engine.adversarial import Adversarial
from gan_engine.data import DataConfig, Sampler, load


def train(G: nn.Module, D: nn.Module, images: Iterable[Tensor], noise: Callable[[int], Tensor]) -> Iterator[dict]:
    """One step of D and one of G for each batch of real images; yields the parts of the losses by name."""
    game = Adversarial(D, "relativistic", r1=1.0, penalty_interval=4)
    D_optimizer, G_optimizer = adam(D), adam(G)
    for real in images:
        with torch.no_grad():
            fake = G(noise(len(real)))
        D_optimizer.zero_grad()
        parts = game.d_step(real, fake)
        D_optimizer.step()
        G_optimizer.zero_grad()
        terms = game.g_terms(G(noise(len(real))), real)
        sum(terms.values()).backward()  # a loss of your own is added here
        G_optimizer.step()
        yield {name: float(value.detach()) for name, value in (parts | terms).items()}


def adam(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.99), fused=True)


def example() -> tuple[nn.Module, nn.Module, Iterator[Tensor], Callable[[int], Tensor]]:
    """Small networks, batches of garments [64, 1, 32, 32] in [-1, 1], and noise [N, 64]."""
    torch.manual_seed(0)
    G = nn.Sequential(
        *(nn.Linear(64, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1024), nn.Tanh(), nn.Unflatten(1, (1, 32, 32))),
    )
    D = nn.Sequential(
        *(nn.Conv2d(1, 32, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(32, 64, 4, 2, 1), nn.LeakyReLU(0.2)),
        *(nn.Flatten(), nn.Linear(64 * 8 * 8, 1)),
    )
    data = load(DataConfig("fashion-mnist"), resolution=32, channels=1)
    images = (img for img, _ in Sampler(data, 64, seed=0))
    return G, D, islice(images, 201), lambda num: torch.randn(num, 64)


def show(step: int, parts: dict[str, float]) -> None:
    if step % 50 == 0:
        print(f"step {step:3}  " + "  ".join(f"{name} {value:.3f}" for name, value in parts.items()))


if __name__ == "__main__":
    for step, parts in enumerate(train(*example())):
        show(step, parts)
