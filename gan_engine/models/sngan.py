"""The residual GAN with spectral norms (Miyato et al. 2018, arXiv:1802.05957, table 4), and SAGAN.

Every weight of D is divided by an estimate of its largest singular value; one power iteration in each pass updates the
estimate. D is therefore Lipschitz, and is trained with the hinge loss. `attention` names the resolution at which both
networks get a layer of self-attention, as in SAGAN (Zhang et al. 2018, arXiv:1805.08318). SAGAN has spectral norms in G
too.

Both networks can read classes c. The norms of G have a scale and a shift for each class (Dumoulin et al. 2017,
arXiv:1610.07629). The discriminator adds the projection of its last features on an embedding of c (Miyato and Koyama
2018, arXiv:1802.05637, equation 4). D is piecewise linear if it has no attention.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_engine.activated import normed
from gan_engine.layers import ClassProjection, Conv2d, DownsampleConv2d, UpsampleConv2d, check_class
from gan_engine.models.checks import Channels, NoiseSize, Sides, check_sizes
from gan_engine.models.declaration import Family
from gan_engine.models.doublings import nominal, start
from gan_engine.ops import bias_act
from gan_engine.system import fields

FAMILY = Family()


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks. The paper at 32x32: width 256, d_width 128, max_width 256."""

    resolution: Sides = 32
    """Side of the images in pixels: a power of two from 16 to 256.
    HEIGHTxWIDTH: two numbers from 3 to 16, both times one power of two, such as 48x64 or 96x64."""
    channels: Channels = 1
    z_dim: NoiseSize = 128
    width: int = 32
    """Feature maps of the generator at the resolution of the images. They double with each halving, down to 4x4."""
    d_width: int = 32
    """Feature maps of the discriminator at half the resolution. They double with each halving, down to 8x8."""
    max_width: int = 128
    """Limit of the feature maps of a layer."""
    attention: int = 0
    """Resolution at which both networks have self-attention. 0: no self-attention.
    Rectangles count as the square whose 4x4 doubles as often: 16 in 48x64 is at 12x16."""
    g_spectral_norm: bool = False
    """Divide the generator's weights by their spectral norms, as the discriminator's always are."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        check_sizes(self, 16, 256, "z_dim", "width", "d_width", "max_width")
        if self.attention and self.attention not in self.shared_sizes:
            sizes = ", ".join(map(str, self.shared_sizes))
            raise ValueError(
                f"attention: want 0 or a resolution that both networks have ({sizes}), got {self.attention}"
            )

    @property
    def shared_sizes(self) -> list[int]:
        """8, 16, ... up to half the nominal resolution: where both networks have feature maps."""
        return [1 << i for i in range(3, nominal(self.resolution).bit_length() - 1)]

    def g_maps(self, size: int) -> int:
        """Feature maps of the generator at size x size, which is nominal in rectangles."""
        return min(self.width * (nominal(self.resolution) // size), self.max_width)

    def d_maps(self, size: int) -> int:
        """Feature maps of the discriminator at size x size, which is nominal in rectangles."""
        return min(self.d_width * (nominal(self.resolution) // (2 * size)), self.max_width)


def _layer(layer: nn.Module, *, spectral: bool) -> nn.Module:
    """`layer` with weights drawn as in the paper, by the rule of Glorot and Bengio 2010."""
    nn.init.xavier_uniform_(layer.weight)
    return spectral_norm(layer) if spectral else layer


def _relu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return bias_act(x, bias, act="relu", gain=1)


class Attention(nn.Module):
    """y [N, C, H, W] = x + gain * out(sum over q of softmax_q(query(x)[p] . key(x)[q]) value(x)[q]) at every pixel p

    Equations 1 to 3 of arXiv:1805.08318; the gain begins at 0.
    """

    def __init__(self, width: int, *, spectral: bool) -> None:
        super().__init__()
        hidden = max(1, width // 8)
        ends = {"query": (width, hidden), "key": (width, hidden), "value": (width, hidden), "out": (hidden, width)}
        for name, (i, o) in ends.items():
            self.add_module(name, _layer(Conv2d(i, o, 1, bias=False), spectral=spectral))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (conv(x).flatten(2) for conv in (self.query, self.key, self.value))  # [N, C / 8, H W]
        weight = (query.transpose(1, 2) @ key).softmax(2)  # [N, H W, H W]
        y = (value @ weight.transpose(1, 2)).unflatten(2, x.shape[2:])
        return x + self.gain * self.out(y)


class Norm(nn.Module):
    """y [N, C, H, W] = max(0, scale * norm(x) + shift), normalised over the batch

    The scale and the shift are learnt; each class has its own.
    """

    def __init__(self, width: int, c_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=not c_dim)
        self.scale = self.shift = None
        if c_dim:
            self.scale, self.shift = (nn.Linear(c_dim, width, bias=False) for _ in range(2))
            nn.init.ones_(self.scale.weight)
            nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        if self.scale is None:
            return normed(self.norm, x, act="relu")
        x = self.norm(x)
        scale, shift = (embed(c).to(x.dtype)[:, :, None, None] for embed in (self.scale, self.shift))
        return _relu(torch.addcmul(shift, x, scale))


class UpBlock(nn.Module):
    """(x [N, I, H, W], c) -> [N, O, 2 H, 2 W]"""

    def __init__(self, config: Config, i: int, o: int) -> None:
        super().__init__()
        spectral = config.g_spectral_norm
        self.norm1, self.norm2 = Norm(i, config.c_dim), Norm(o, config.c_dim)
        self.conv1 = _layer(UpsampleConv2d(i, o, 3, bias=False), spectral=spectral)
        self.conv2 = _layer(Conv2d(o, o, 3, padding=1), spectral=spectral)
        self.skip = _layer(UpsampleConv2d(i, o, 1, bias=False), spectral=spectral)

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        y = self.conv1(self.norm1(x, c))
        return self.conv2(self.norm2(y, c)) + self.skip(x)


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W] in [-1, 1]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        spectral = config.g_spectral_norm
        self.start = start(config.resolution)
        self.linear = _layer(nn.Linear(config.z_dim, config.g_maps(4) * math.prod(self.start)), spectral=spectral)
        largest = nominal(config.resolution)
        self.sizes = [*config.shared_sizes, largest]
        self.blocks = nn.ModuleList(
            UpBlock(config, config.g_maps(size // 2), config.g_maps(size)) for size in self.sizes
        )
        self.attention = None
        if config.attention:
            self.attention = Attention(config.g_maps(config.attention), spectral=spectral)
        self.norm = Norm(config.g_maps(largest), 0)
        to_rgb = Conv2d(config.g_maps(largest), config.channels, 3, padding=1, bias=False)
        self.to_rgb = _layer(to_rgb, spectral=spectral)
        self.bias = nn.Parameter(torch.zeros(config.channels))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = self.linear(z).unflatten(1, (-1, *self.start))
        for size, block in zip(self.sizes, self.blocks, strict=True):
            x = block(x, c)
            if self.attention is not None and size == self.config.attention:
                x = self.attention(x)
        return bias_act(self.to_rgb(self.norm(x, None)), self.bias, act="tanh")


class DownBlock(nn.Module):
    """x [N, I, H, W] -> [N, O, H / 2, W / 2], or of the same size and width if not `down`

    The `first` block reads the image, and has no ReLU before it that would cut off negative values.
    """

    def __init__(self, i: int, o: int, *, down: bool = True, first: bool = False) -> None:
        super().__init__()
        self.first = first
        self.conv1 = _layer(Conv2d(i, o, 3, padding=1, bias=False), spectral=True)
        self.bias = nn.Parameter(torch.zeros(o))
        conv2 = DownsampleConv2d(o, o, 3) if down else Conv2d(o, o, 3, padding=1)
        self.conv2 = _layer(conv2, spectral=True)
        self.skip = _layer(DownsampleConv2d(i, o, 1, bias=False), spectral=True) if down else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x if self.first else _relu(x))
        return self.conv2(_relu(y, self.bias)) + self.skip(x)


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = config.shared_sizes[::-1]
        widths = [config.channels, *(config.d_maps(size) for size in sizes)]
        blocks = [DownBlock(i, o, first=n == 0) for n, (i, o) in enumerate(pairwise(widths))]
        if config.attention:
            attention = Attention(config.d_maps(config.attention), spectral=True)
            blocks.insert(sizes.index(config.attention) + 1, attention)
        width = widths[-1]
        self.blocks = nn.Sequential(*blocks, *(DownBlock(width, width, down=False) for _ in range(2)))
        self.logit = _layer(nn.Linear(width, 1), spectral=True)
        self.embed = None
        if config.c_dim:
            self.embed = _layer(ClassProjection(config.c_dim, width), spectral=True)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = _relu(self.blocks(img)).sum([2, 3])
        logits = self.logit(x).squeeze(1)
        return logits if self.embed is None else logits + self.embed(x, c)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The residual blocks and the self-attention. --freeze-d counts from the image on."""
        return [(block,) for block in self.blocks]
