"""The modern baseline R3GAN (Huang et al. 2024, arXiv:2501.05441): residual blocks without norms in both networks.

A stage is a transition and residual blocks. The transition resamples bilinearly and changes the width. A block is a 1x1
convolution that widens, a grouped 3x3 convolution, and a 1x1 convolution that narrows again. G starts from a learnt 4x4
basis, whose maps are weighted by z. D ends in inner products of its last features with such a basis. All layers are
convolutions, biases and leaky ReLUs, so D is piecewise linear, and gan_engine.losses.penalties run at level 2.

The paper trains it with the loss "relativistic" and R1 and R2 in every step.

Both networks can read classes c. The generator reads an embedding of c beside z. The discriminator adds the projection
of its last features on an embedding of c (Miyato and Koyama 2018, arXiv:1802.05637, equation 4).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_engine.layers import ClassEmbedding, ClassProjection, Conv2d, as_filter, check_class
from gan_engine.models.checks import Channels, NoiseSize, Sides, check_sizes
from gan_engine.models.declaration import Family
from gan_engine.models.doublings import doublings, start
from gan_engine.ops import bias_act, downsample2d, setup_filter, upsample2d
from gan_engine.system import fields

TAPS = (1, 3, 3, 1)  # bilinear interpolation by 2, and its adjoint


FAMILY = Family()


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks, which mirror each other."""

    resolution: Sides = 32
    """Side of the images in pixels: a power of two from 8 to 1024.
    HEIGHTxWIDTH: two numbers from 3 to 16, both times one power of two, such as 48x64 or 96x64."""
    channels: Channels = 1
    z_dim: NoiseSize = 64
    width: int = 32
    """Feature maps at the resolution of the images. They double with each halving, down to 4x4."""
    max_width: int = 128
    """Limit of the feature maps of a stage."""
    blocks: int = 2
    """Residual blocks of a stage."""
    expansion: int = 2
    """Feature maps inside a block, as a multiple of the feature maps of its stage."""
    group: int = 16
    """Feature maps in each group of a grouped convolution."""
    embed_dim: int = 32
    """Dimensions of the generator's class embedding."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        check_sizes(self, 8, 1024, "z_dim", "width", "max_width", "blocks", "expansion", "group", "embed_dim")
        for width in self.widths:
            if width * self.expansion % self.group:
                raise ValueError(
                    f"group: want a divisor of expansion * width = {width * self.expansion}, got {self.group}"
                )

    @property
    def widths(self) -> list[int]:
        """Feature maps at the start (4x4 in squares), at its double, ... up to the resolution."""
        return [min(self.width << i, self.max_width) for i in range(doublings(self.resolution), -1, -1)]


def _conv(i: int, o: int, kernel_size: int = 1, *, groups: int = 1, scale: float = 1) -> nn.Conv2d:
    """A convolution without a bias, whose weights begin at N(0, scale^2 / fan in): leaky ReLUs have the gain sqrt(2)"""
    conv = Conv2d(i, o, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    nn.init.normal_(conv.weight, 0, scale / (kernel_size**2 * i // groups) ** 0.5)
    return conv


class Block(nn.Module):
    """y [N, C, H, W] = x + reduce(act(conv(act(expand(x) + b1)) + b2))

    It begins as the identity, because the weights of `reduce` begin at zero. The other weights begin smaller by
    L^(-1/4) for L blocks in a row. The first steps then do not grow with the depth (Zhang et al. 2019,
    arXiv:1901.09321).
    """

    def __init__(self, config: Config, width: int) -> None:
        super().__init__()
        hidden = width * config.expansion
        scale = (config.blocks * len(config.widths)) ** -0.25
        self.expand = _conv(width, hidden, scale=scale)
        self.conv = _conv(hidden, hidden, 3, groups=hidden // config.group, scale=scale)
        self.reduce = _conv(hidden, width, scale=0)
        self.bias1 = nn.Parameter(torch.zeros(hidden))
        self.bias2 = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor) -> Tensor:
        y = bias_act(self.expand(x), self.bias1, act="lrelu")
        y = bias_act(self.conv(y), self.bias2, act="lrelu")
        return x + self.reduce(y)


class Up(nn.Module):
    """x [N, I, H, W] -> [N, O, 2 H, 2 W], narrowed before it is doubled"""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv = _conv(i, o) if i != o else nn.Identity()
        self.register_buffer("f", setup_filter(TAPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return upsample2d(self.conv(x), as_filter(self.f))


class Down(nn.Module):
    """x [N, I, H, W] -> [N, O, H / 2, W / 2], halved before it is widened"""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv = _conv(i, o) if i != o else nn.Identity()
        self.register_buffer("f", setup_filter(TAPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(downsample2d(x, as_filter(self.f)))


def _stages(config: Config, widths: list[int], transition: type[nn.Module]) -> list[nn.Module]:
    stages = [Block(config, widths[0]) for _ in range(config.blocks)]
    for i, o in pairwise(widths):
        stages += [transition(i, o), *(Block(config, o) for _ in range(config.blocks))]
    return stages


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W], the images of the data in [-1, 1]

    Nothing bounds the images: a pixel may lie outside.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.embed = ClassEmbedding(config.c_dim, config.embed_dim) if config.c_dim else None
        self.linear = nn.Linear(config.z_dim + (config.embed_dim if config.c_dim else 0), widths[0], bias=False)
        nn.init.normal_(self.linear.weight, 0, self.linear.in_features**-0.5)
        self.basis = nn.Parameter(torch.randn(widths[0], *start(config.resolution)))
        self.stages = nn.Sequential(*_stages(config, widths, Up))
        self.to_rgb = _conv(widths[-1], config.channels)
        self.bias = nn.Parameter(torch.zeros(config.channels))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        if self.embed is not None:
            z = self.embed(z, c)
        x = self.linear(z)[:, :, None, None] * self.basis
        return bias_act(self.to_rgb(self.stages(x)), self.bias)


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N]; they have no bias, which the loss would cancel"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths[::-1]
        self.from_rgb = _conv(config.channels, widths[0])
        self.stages = nn.Sequential(*_stages(config, widths, Down))
        sides = start(config.resolution)
        self.basis = nn.Parameter(torch.randn(widths[-1], *sides) / math.prod(sides) ** 0.5)
        self.logit = nn.Linear(widths[-1], 1, bias=False)
        nn.init.normal_(self.logit.weight, 0, widths[-1] ** -0.5)
        self.embed = ClassProjection(config.c_dim, widths[-1]) if config.c_dim else None

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = (self.stages(self.from_rgb(img)) * self.basis).sum([2, 3])
        logits = self.logit(x).squeeze(1)
        return logits if self.embed is None else logits + self.embed(x, c)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The stages, one for each resolution; `from_rgb` belongs to the first. --freeze-d counts from the image on."""
        n = self.config.blocks
        first, *others = self.stages[:n], *(self.stages[i : i + n + 1] for i in range(n, len(self.stages), n + 1))
        return [(self.from_rgb, first), *((stage,) for stage in others)]
