"""Pictures from pictures of the same place: pix2pix (Isola et al. 2017, arXiv:1611.07004), trained on pairs.

A U-Net halves its source and doubles it again; it halves squares down to 1x1. Every resolution on the way up reads the
feature maps of the same size on the way down. The discriminator judges patches of the picture beside its source.

Two things differ from the paper. Dropout, the paper's only noise, ends with training, so a picture is a function of its
source. A layer doubles by nearest neighbours and a 3x3 convolution, which leave no checkerboard; `Config.published`
takes the transposed convolutions of the paper.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.activated import biased
from gan_engine.layers import Conv2d, InstanceNorm2d, UpsampleBlock, doubling
from gan_engine.models.checks import (
    Channels,
    Sides,
    check_at_least,
    check_choice,
    check_multiples,
    check_opaque,
    check_types,
)
from gan_engine.models.declaration import Family
from gan_engine.models.doublings import check_doublings
from gan_engine.models.patchgan import MIN_RESOLUTION, PatchDiscriminator, init
from gan_engine.ops import bias_act
from gan_engine.system.devices import constant
from gan_engine.system.resolution import height_width

Source = Literal["pairs", "grey", "edges"]
LARGEST = 1024  # pixels of a side


FAMILY = Family(
    command="translate",
    objective="paired",
    measure="translations",
    penalties=False,
    augmentation=False,
    content_loss=True,
    extracts=("grey", "edges"),
)


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks and weights of the losses."""

    resolution: Sides = 256
    """Side of the images in pixels: a power of two from 32 to 1024.
    HEIGHTxWIDTH: two multiples of 16 in these limits, such as 256x512. G halves as often as both sides are even."""
    channels: Channels = 3
    source: Source = "pairs"
    """Source that G starts from. pairs: the data have it.
    grey, edges: it is made of the target; grey teaches G to colour, edges to fill in drawings."""
    width: int = 64
    """Feature maps of G at half the resolution. They double with each halving."""
    max_width: int = 512
    """Limit of the feature maps of a layer of G."""
    dropout: float = 0.5
    """Share of values that dropout sets to 0 in training, in the three lowest layers on the way up."""
    d_width: int = 64
    """Feature maps of the first layer of D."""
    adversarial_weight: float = 1
    """Weight of the adversarial loss of G."""
    l1_weight: float = 100
    """Weight of the mean absolute difference from the target."""
    perceptual_weight: float = 0
    """Weight of the difference in the features of a classifier. It needs the extra "perceptual"."""
    published: bool = False
    """Layers of the published networks, whose weights `convert` reads. Transposed 4x4 convolutions double and read
    ReLUs of the way down, and dropout begins at 4x4. Otherwise nearest neighbours double and read leaky ReLUs."""

    z_dim: ClassVar[int] = 0
    c_dim: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_types(self)
        if isinstance(self.resolution, int):
            check_doublings(self.resolution, MIN_RESOLUTION, LARGEST)
        check_multiples(self, 16, MIN_RESOLUTION, LARGEST)
        check_at_least(self, 1, "width", "max_width", "d_width")
        check_opaque(self)
        check_choice(self, source=Source)
        if self.source == "grey" and self.channels == 1:
            raise ValueError("channels: want 3 to colour grey images, got 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: want 0 to below 1, got {self.dropout}")
        check_at_least(self, 0, "adversarial_weight", "l1_weight", "perceptual_weight")

    @property
    def source_channels(self) -> int:
        return self.channels if self.source == "pairs" else 1

    @property
    def data_kind(self) -> str:
        return "pairs" if self.source == "pairs" else "image"

    @property
    def widths(self) -> list[int]:
        """Feature maps at half the resolution, a quarter, ... down to 1x1, or to two sides that are not both even."""
        height, width = height_width(self.resolution)
        halvings = math.gcd(height, width, 1 << 20).bit_length() - 1
        return [min(self.width << i, self.max_width) for i in range(halvings)]


def grey(img: Tensor) -> Tensor:
    """img [N, 1 or 3, H, W] -> [N, 1, H, W], its luma (ITU-R 601)"""
    if img.shape[1] == 1:
        return img
    r, g, b = img.split(1, dim=1)
    return 0.299 * r + 0.587 * g + 0.114 * b


def edges(img: Tensor) -> Tensor:
    """1 - 2 min(1, |gradient of the luma|): img [N, 1 or 3, H, W] -> dark lines on white [N, 1, H, W] in [-1, 1]

    The gradient is taken by Sobel's filters / 4: a step from black to white has the gradient 2.
    """
    x = constant(((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0)), img.dtype, img.device) / 4
    gradient = F.conv2d(F.pad(grey(img), (1, 1, 1, 1), mode="replicate"), torch.stack([x, x.t()])[:, None])
    return 1 - 2 * gradient.norm(dim=1, keepdim=True).clamp(max=1)


SOURCES = {"grey": grey, "edges": edges}


class Down(nn.Module):
    """x [N, I, H, W] -> [N, O, H / 2, W / 2], a 4x4 convolution of stride 2, norm and leaky relu"""

    def __init__(self, i: int, o: int, *, norm: bool) -> None:
        super().__init__()
        self.conv = Conv2d(i, o, 4, 2, 1, bias=False)
        self.norm = InstanceNorm2d(o, act="lrelu") if norm else None
        self.bias = None if norm else nn.Parameter(torch.zeros(o))

    def forward(self, x: Tensor) -> Tensor:
        return biased(self.conv, x, self.bias, act="lrelu") if self.norm is None else self.norm(self.conv(x))


class Generator(nn.Module):
    """source [N, C', H, W] -> img [N, C, H, W] in [-1, 1] of the resolution; C' is 1 for sources made of targets"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        # The first layer has no norm, as in the paper. The last has none, because a norm of 1x1 values leaves nothing.
        self.down = nn.ModuleList(
            Down(i, o, norm=0 < k < len(widths) - 1)
            for k, (i, o) in enumerate(pairwise([config.source_channels, *widths]))
        )
        joined = [widths[-1], *(2 * width for width in reversed(widths[:-1]))]  # maps of the way up and of the way down
        dropped = range(1, len(widths) - 4) if config.published else range(3)
        transposed = 4 if config.published else None
        self.up = nn.ModuleList(
            UpsampleBlock(i, o, dropout=config.dropout if k in dropped else 0, transposed=transposed)
            for k, (i, o) in enumerate(zip(joined[:-1], reversed(widths[:-1]), strict=True))
        )
        self.to_rgb = doubling(joined[-1], config.channels, transposed)
        self.bias = nn.Parameter(torch.zeros(config.channels))
        self.apply(init)

    def forward(self, source: Tensor) -> Tensor:
        x, skips = source, []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        skips.pop()
        if self.config.published:
            x, skips = x.relu(), [skip.relu() for skip in skips]
        for layer in self.up:
            x = torch.cat([layer(x), skips.pop()], dim=1)
        return bias_act(self.to_rgb(x), self.bias, act="tanh")

    def source_of(self, img: Tensor) -> Tensor:
        """The source [N, 1, H, W] that is made of a target img [N, C, H, W], for Config.source grey or edges."""
        return SOURCES[self.config.source](img)


class Discriminator(nn.Module):
    """(img [N, C, H, W], source [N, C', H, W]) -> logits [N, P], one for each patch"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.patches = PatchDiscriminator(config.channels + config.source_channels, config.d_width)

    def forward(self, img: Tensor, source: Tensor) -> Tensor:
        return self.patches(torch.cat([img, source.to(img.dtype)], dim=1))

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The convolutions with their norms, except the convolution of the logits. --freeze-d counts from the image."""
        return self.patches.blocks_from_image()
