"""Enlarging photographs: SRGAN (Ledig et al. 2017, arXiv:1609.04802), and the generator of ESRGAN (1809.00219).

G makes an image `scale` times as large as its source. The source is the target made smaller, in training. G first
learns to come near the target, which gives blurred images. Then it learns from a discriminator to make them look real:
see `pretrain_kimg`.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.activated import biased, normed
from gan_engine.layers import BiasAct, Conv2d, UpsampleConv2d
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
from gan_engine.system.resolution import height_width

Variant = Literal["srresnet", "rrdb"]
Base = Literal["bicubic", "none"]


FAMILY = Family(
    command="upscale",
    objective="paired",
    penalties=False,
    augmentation=False,
    content_loss=True,
    source_multiple=1,
)


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks and weights of the losses."""

    resolution: Sides = 96
    """Side in pixels of the patches that photographs are cut into for training: a multiple of 16, at least 32.
    HEIGHTxWIDTH: two such multiples. The generator enlarges pictures of any sides."""
    channels: Channels = 3
    scale: Literal[2, 4] = 4
    """Ratio of the sides of an image to the sides of its source."""
    variant: Variant = "srresnet"
    """The generator. srresnet: batch norms and pixel shuffle. rrdb: dense residual blocks without norms."""
    base: Base = "bicubic"
    """What the network's result is added to. bicubic: the source, enlarged by bicubic interpolation.
    none: nothing, and the network computes with values from 0 to 1, as published ESRGAN networks do."""
    width: int = 64
    """Feature maps of G."""
    blocks: int | None = None
    """Residual blocks of G. None: as in the papers, 16 for srresnet and 23 for rrdb."""
    growth: int = 32
    """Feature maps that each layer of a dense block adds, in rrdb."""
    d_width: int = 64
    """Feature maps of the first layer of D. They double with each halving."""
    adversarial_weight: float = 5e-3
    """Weight of the adversarial loss of G."""
    l1_weight: float = 1
    """Weight of the mean absolute difference from the target."""
    perceptual_weight: float = 0
    """Weight of the difference in the features of a classifier. It needs the extra "perceptual"."""

    z_dim: ClassVar[int] = 0
    c_dim: ClassVar[int] = 0
    data_kind: ClassVar[str] = "patches"

    def __post_init__(self) -> None:
        check_types(self)
        check_multiples(self, 16, 32)
        check_opaque(self)
        if self.scale not in (2, 4):
            raise ValueError(f"scale: want 2 or 4, got {self.scale}")
        check_choice(self, variant=Variant, base=Base)
        check_at_least(self, 1, "width", "growth", "d_width")
        if self.blocks is not None and self.blocks < 1:
            raise ValueError(f"blocks: want at least 1 or None, got {self.blocks}")
        check_at_least(self, 0, "adversarial_weight", "l1_weight", "perceptual_weight")

    @property
    def source_channels(self) -> int:
        return self.channels

    @property
    def num_blocks(self) -> int:
        return self.blocks or {"srresnet": 16, "rrdb": 23}[self.variant]

    @property
    def doublings(self) -> int:
        return self.scale.bit_length() - 1

    @property
    def reach(self) -> int:
        """Number of pixels of the source, in each direction, that a pixel of the image depends on."""
        if self.variant == "srresnet":
            return math.ceil(4 + 2 * self.num_blocks + 1 + sum(2.0**-i for i in range(self.doublings)) + 4 / self.scale)
        return math.ceil(1 + 15 * self.num_blocks + 1 + 2 * sum(2.0**-i for i in range(1, self.doublings + 1)) + 1)


def shrink(img: Tensor, scale: int) -> Tensor:
    """img [N, C, H, W] in [-1, 1] -> [N, C, H / scale, W / scale], bicubic without aliases, rounded to 256 values

    Files have 256 values. A generator that has learnt from values between them does worse on files.
    """
    small = F.interpolate(img, scale_factor=1 / scale, mode="bicubic", antialias=True, align_corners=False)
    return ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


class Residual(nn.Module):
    """y = x + norm(conv(prelu(norm(conv(x)))))   # figure 4 of the paper"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Shuffle(nn.Module):
    """x [N, C, H, W] -> [N, C, 2 H, 2 W]: four times as many feature maps become 2x2 pixels (arXiv:1609.05158)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.PReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def _leaky(conv: nn.Conv2d) -> BiasAct:
    return BiasAct(conv, name="conv")


class Dense(nn.Module):
    """y = x + conv(x, y1, ..., y4) / 5, where layer k = 1 to 4 gives yk = act(conv(x, y1, ..., y(k-1)))"""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _leaky(Conv2d(width + i * growth, growth, 3, padding=1, bias=False)) for i in range(4)
        )
        self.last = Conv2d(width + 4 * growth, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        known = x
        for layer in self.layers:
            known = torch.cat([known, layer(known)], dim=1)
        return x + 0.2 * self.last(known)


class RRDB(nn.Module):
    """y = x + dense(dense(dense(x))) / 5, the residual in residual dense block   # figure 4 of arXiv:1809.00219"""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(Dense(width, growth) for _ in range(3)))

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.2 * self.layers(x)


class Generator(nn.Module):
    """source [N, C, H, W] -> img [N, C, scale * H, scale * W], close to [-1, 1]

    The result of the papers' networks is added to the source, enlarged by bicubic interpolation (Kim et al. 2016,
    arXiv:1511.04587). The last layer begins at 0, so training begins with the bicubic enlargement. Otherwise the first
    tens of thousands of patches teach no more than to keep the colours. With base "none" G is the network alone:
    2 network((source + 1) / 2) - 1.

    No layer depends on the size of the image. G of a part of the source equals that part of G(source) in eval mode,
    except within `config.reach` pixels of the edges of the part.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, channels = config.width, config.channels
        if config.variant == "srresnet":
            self.first = nn.Sequential(Conv2d(channels, width, 9, padding=4), nn.PReLU())
            last = [Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)]
            self.body = nn.Sequential(*(Residual(width) for _ in range(config.num_blocks)), *last)
            up = [Shuffle(width) for _ in range(config.doublings)]
            self.up = nn.Sequential(*up, Conv2d(width, channels, 9, padding=4))
        else:
            self.first = Conv2d(channels, width, 3, padding=1)
            blocks = [RRDB(width, config.growth) for _ in range(config.num_blocks)]
            self.body = nn.Sequential(*blocks, Conv2d(width, width, 3, padding=1))
            up = [_leaky(UpsampleConv2d(width, width, 3, bias=False)) for _ in range(config.doublings)]
            last = [_leaky(Conv2d(width, width, 3, padding=1, bias=False)), Conv2d(width, channels, 3, padding=1)]
            self.up = nn.Sequential(*up, *last)
            self.body.apply(_small)
        if config.base == "bicubic":
            nn.init.zeros_(self.up[-1].weight)
            nn.init.zeros_(self.up[-1].bias)

    def forward(self, source: Tensor) -> Tensor:
        if self.config.base == "none":
            x = self.first((source + 1) / 2)
            return 2 * self.up(x + self.body(x)) - 1
        x = self.first(source)
        # Sizes, not a factor: torch.export would take the product of a factor and an unknown size for a float.
        sides = [self.config.scale * side for side in source.shape[2:]]
        base = F.interpolate(source, size=sides, mode="bicubic", align_corners=False)
        return base + self.up(x + self.body(x))

    def source_of(self, img: Tensor) -> Tensor:
        """The source [N, C, H / scale, W / scale] of a target img [N, C, H, W]."""
        return shrink(img, self.config.scale)


class Discriminator(nn.Module):
    """(img [N, C, H, W], source) -> logits [N, 1]; D judges the image as a whole, and ignores the source

    Pairs of convolutions, in which the second one halves, and two dense layers, as in VGG.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [config.d_width << i for i in (0, 0, 1, 1, 2, 2, 3, 3)]
        self.first = _leaky(Conv2d(config.channels, widths[0], 3, padding=1, bias=False))
        self.convs = nn.ModuleList(
            Conv2d(i, o, 3, 1 if k % 2 else 2, 1, bias=False) for k, (i, o) in enumerate(pairwise(widths))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for o in widths[1:])
        pixels = math.prod(side // 16 for side in height_width(config.resolution))
        self.dense = nn.Linear(widths[-1] * pixels, 16 * config.d_width, bias=False)
        self.bias = nn.Parameter(torch.zeros(16 * config.d_width))
        self.logit = nn.Linear(16 * config.d_width, 1)

    def forward(self, img: Tensor, source: Tensor | None = None) -> Tensor:
        x = self.first(img)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = normed(norm, conv(x), act="lrelu")
        return self.logit(biased(self.dense, x.flatten(1), self.bias, act="lrelu"))

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The convolutions with their norms. --freeze-d counts from the image on."""
        return [(self.first,), *zip(self.convs, self.norms, strict=True)]


def _small(module: nn.Module) -> None:
    """Weights of a tenth of He's size: a deep net without norms then begins near the identity (3.1 of 1809.00219)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight)
        with torch.no_grad():
            module.weight *= 0.1
