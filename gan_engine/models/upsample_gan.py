"""The small convolutional GAN of the tutorials on CIFAR-10. The generator doubles by nearest neighbours and convolves.

A transposed convolution can leave a checkerboard; doubling before a convolution leaves none (Odena et al. 2016,
Distill, doi:10.23915/distill.00003). One operator does both, gan_engine.ops.upsample_conv2d.

Both networks can read classes c. The generator reads an embedding of c beside z. The discriminator adds the projection
of its last features on an embedding of c (Miyato and Koyama 2018, arXiv:1802.05637, equation 4).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_engine.activated import normed
from gan_engine.layers import ClassEmbedding, ClassProjection, Conv2d, UpsampleConv2d, check_class
from gan_engine.models.checks import (
    Channels,
    NoiseSize,
    Sides,
    check_at_least,
    check_channels,
    check_multiples,
    check_types,
)
from gan_engine.models.declaration import Family
from gan_engine.ops import bias_act
from gan_engine.system import fields
from gan_engine.system.resolution import height_width

FAMILY = Family()


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks."""

    resolution: Sides = 32
    """Side of the images in pixels: a multiple of 8 from 16 to 256.
    HEIGHTxWIDTH: two such multiples."""
    channels: Channels = 3
    z_dim: NoiseSize = 100
    width: int = 128
    """Feature maps of the generator at a quarter and half of the resolution. It has half as many at the resolution."""
    d_width: int = 32
    """Feature maps of the discriminator at half the resolution. They double with each layer, up to 8 times as many."""
    dropout: float = 0.25
    """Share of the discriminator's features that dropout sets to 0 in training."""
    embed_dim: int = 32
    """Dimensions of the generator's class embedding."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        check_types(self)
        check_multiples(self, 8, 16, 256)
        check_channels(self)
        check_at_least(self, 1, "z_dim", "d_width", "embed_dim")
        check_at_least(self, 2, "width")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: want 0 to below 1, got {self.dropout}")


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W] in [-1, 1]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.embed = ClassEmbedding(config.c_dim, config.embed_dim) if config.c_dim else None
        self.start = tuple(side // 4 for side in height_width(config.resolution))
        z_dim = config.z_dim + (config.embed_dim if config.c_dim else 0)
        self.linear = nn.Linear(z_dim, width * math.prod(self.start))
        # No biases: the norms that follow would subtract them again.
        self.convs = nn.ModuleList(
            [UpsampleConv2d(width, width, 3, bias=False), UpsampleConv2d(width, width // 2, 3, bias=False)]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width // 2)])
        self.to_rgb = Conv2d(width // 2, config.channels, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.channels))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        if self.embed is not None:
            z = self.embed(z, c)
        x = self.linear(z).unflatten(1, (-1, *self.start))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = normed(norm, conv(x), act="relu")
        return bias_act(self.to_rgb(x), self.bias, act="tanh")


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels, *(config.d_width << i for i in range(4))]
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for k, (i, o) in enumerate(pairwise(widths)):
            self.convs.append(Conv2d(i, o, 3, stride=2 if k < 3 else 1, padding=1))
            self.norms.append(nn.BatchNorm2d(o) if k > 0 else nn.LeakyReLU(0.2))
        self.dropout = nn.Dropout(config.dropout)
        self.logit = nn.Linear(widths[-1] * math.prod(side // 8 for side in height_width(config.resolution)), 1)
        self.embed = ClassProjection(config.c_dim, widths[-1]) if config.c_dim else None

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = img
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = conv(x)
            x = self.dropout(norm(x) if isinstance(norm, nn.LeakyReLU) else normed(norm, x, act="lrelu"))
        logits = self.logit(x.flatten(1)).squeeze(1)
        return logits if self.embed is None else logits + self.embed(x, c)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The convolutions with their norms. --freeze-d counts from the image on."""
        return list(zip(self.convs, self.norms, strict=True))
