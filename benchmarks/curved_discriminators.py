"""Discriminators that are not piecewise linear, for tests and benchmarks: img [N, C, H, W] -> logits [N].

Each has no level 2: attention, norms and smooth activations are curved, and a batch norm ties images together.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ViT(nn.Module):
    """A vision transformer of pre-norm blocks, with a logit from the mean of its tokens. Dosovitskiy et al. 2020,
    arXiv:2010.11929."""

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
            self.to_qkv, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: Tensor) -> Tensor:
            qkv = self.to_qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.attended(F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2))
            return x + self.mlp(self.norms[1](x))

    def __init__(
        self, width: int = 64, depth: int = 3, *, channels: int = 3, resolution: int = 32, patch: int = 4
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn((resolution // patch) ** 2, width))
        self.blocks = nn.Sequential(*(self.Block(width, width // 16) for _ in range(depth)))
        self.norm, self.logit = nn.LayerNorm(width), nn.Linear(width, 1)

    def forward(self, img: Tensor) -> Tensor:
        tokens = self.blocks(self.patches(img).flatten(2).transpose(1, 2) + self.positions)
        return self.logit(self.norm(tokens).mean(1)).squeeze(1)


def group_norms(width: int = 32, *, channels: int = 3, resolution: int = 32) -> nn.Sequential:
    """Strided convolutions with group norms and SiLUs, as in the halves of diffusion models that look at images."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    for _ in range(3):
        layers += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, 2, 1)]
    layers += [nn.GroupNorm(8, width), nn.SiLU(), nn.Flatten(), nn.Linear(width * (resolution // 8) ** 2, 1)]
    return nn.Sequential(*layers, nn.Flatten(0))


def batch_norms(width: int = 32, *, channels: int = 3, resolution: int = 32) -> nn.Sequential:
    """The discriminator of Radford et al. 2016, arXiv:1511.06434, with its batch norms, for 32x32 images."""
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
    for i in (width, 2 * width):
        layers += [nn.Conv2d(i, 2 * i, 4, 2, 1), nn.BatchNorm2d(2 * i), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(4 * width, 1, resolution // 8), nn.Flatten(0))


def mlp(
    width: int = 512, act: Callable[[], nn.Module] = nn.SiLU, *, channels: int = 3, resolution: int = 32
) -> nn.Sequential:
    """Three linear layers, as in adversarial imitation (Peng et al. 2021, arXiv:2104.02180)."""
    layers = [nn.Linear(channels * resolution**2, width), act(), nn.Linear(width, width // 2), act()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width // 2, 1), nn.Flatten(0))
