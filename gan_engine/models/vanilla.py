"""The fully connected GAN of Goodfellow et al. 2014, arXiv:1406.2661, with leaky ReLU, and logits instead of a sigmoid.

Both networks can read classes c, which are concatenated to z and to img. That is the conditional GAN of Mirza and
Osindero 2014, arXiv:1411.1784.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_engine.layers import check_class, dense
from gan_engine.models.checks import (
    Channels,
    NoiseSize,
    Sides,
    check_at_least,
    check_channels,
    check_types,
    check_widths,
)
from gan_engine.models.declaration import Family
from gan_engine.system import fields
from gan_engine.system.resolution import height_width

FAMILY = Family()


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks."""

    resolution: Sides = 32
    """Side of the images in pixels, or HEIGHTxWIDTH, such as 48x64."""
    channels: Channels = 1
    z_dim: NoiseSize = 100
    hidden: tuple[int, ...] = (256, 512, 1024)
    """Widths of the generator's hidden layers. The discriminator has them in reverse order."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        check_types(self)
        check_channels(self)
        if min(height_width(self.resolution)) < 1:
            raise ValueError(f"resolution: want at least 1, got {self.resolution}")
        check_at_least(self, 1, "z_dim")
        check_widths(self, "hidden")

    @property
    def numel(self) -> int:
        return self.channels * math.prod(height_width(self.resolution))


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W] in [-1, 1]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = dense([config.z_dim + config.c_dim, *config.hidden, config.numel], last="tanh")

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        config = self.config
        check_class(c, config.c_dim)
        x = z if c is None else torch.cat([z, c], dim=1)
        return self.layers(x).reshape(-1, config.channels, *height_width(config.resolution))


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = dense([config.numel + config.c_dim, *reversed(config.hidden), 1], last="linear")

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = img.flatten(1)
        return self.layers(x if c is None else torch.cat([x, c.to(x.dtype)], dim=1)).squeeze(1)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The hidden layers. --freeze-d counts from the image on."""
        return [(layer,) for layer in self.layers[:-1]]
