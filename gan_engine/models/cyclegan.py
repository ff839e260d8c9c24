"""Translation between two kinds of images without pairs: CycleGAN (Zhu et al. 2017, arXiv:1703.10593).

Two generators, A2B and B2A, and two discriminators, A and B, are trained side by side. G and D hold two networks each.
A generator halves its image twice, passes it through residual blocks and doubles it twice (Johnson et al. 2016,
arXiv:1603.08155). It doubles by nearest neighbours before 3x3 convolutions. The paper has transposed convolutions,
which leave a checkerboard; `Config.published` takes these.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.layers import Conv2d, InstanceNorm2d, UpsampleBlock
from gan_engine.models.checks import Channels, Sides, check_at_least, check_multiples, check_opaque, check_types
from gan_engine.models.declaration import Direction, Family
from gan_engine.models.patchgan import MIN_RESOLUTION, PatchDiscriminator, init
from gan_engine.ops import bias_act
from gan_engine.system import fields
from gan_engine.system.resolution import height_width

FAMILY = Family(
    command="translate",
    objective="cycle",
    measure="translations",
    penalties=False,
    augmentation=False,
    directions=("A2B", "B2A"),
    source_multiple=4,
)


@dataclass(frozen=True)
class Config:
    """Sizes of the networks and weights of the losses."""

    resolution: Sides = 256
    """Side of the images in pixels: a multiple of 4, at least 32.
    HEIGHTxWIDTH: two such multiples, such as 256x512."""
    channels: Channels = 3
    width: int = 64
    """Feature maps of the generators at the resolution. They double with each of the two halvings."""
    blocks: int | None = None
    """Residual blocks of the generators. None: 6 up to 128x128, else 9, as in the paper."""
    d_width: int = 64
    """Feature maps of the first layer of the discriminators."""
    adversarial_weight: float = 2
    """Weight of the adversarial losses of G. 2 gives the least squares of the paper, which are not halved."""
    cycle_weight: float = 10
    """Weight of the mean absolute difference after a translation there and back, for both kinds of images."""
    identity_weight: float = 0.5
    """Weight, as a share of cycle_weight, of the change that a generator makes to images of its target's kind."""
    pool_size: int = 50
    """Number of older generated images of each kind that are kept to show to D. 0: D sees new images only."""
    published: bool = False
    """Layers of the published networks, whose weights `convert` reads. Transposed convolutions double, and layers that
    halve have borders of zeros. Otherwise nearest neighbours double, and all borders are reflected."""
    one_way: fields.Suppress[bool] = False  # G has A2B alone, as a file of one published generator

    z_dim: ClassVar[int] = 0
    c_dim: ClassVar[int] = 0
    data_kind: ClassVar[str] = "unpaired"

    def __post_init__(self) -> None:
        check_types(self)
        check_multiples(self, 4, MIN_RESOLUTION)
        check_opaque(self)
        check_at_least(self, 1, "width", "d_width")
        if self.blocks is not None and self.blocks < 1:
            raise ValueError(f"blocks: want at least 1 or None, got {self.blocks}")
        check_at_least(self, 0, "adversarial_weight", "cycle_weight", "identity_weight", "pool_size")

    @property
    def source_channels(self) -> int:
        return self.channels


class Conv(nn.Module):
    """y = act(norm(conv(x))); `borders` is the padding of x: "reflect" or "zeros"."""

    def __init__(
        self, i: int, o: int, kernel_size: int, *, stride: int = 1, act: str = "relu", borders: str = "reflect"
    ) -> None:
        super().__init__()
        self.conv = Conv2d(i, o, kernel_size, stride, kernel_size // 2, bias=False, padding_mode=borders)
        self.norm = InstanceNorm2d(o, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Residual(nn.Module):
    """y = x + norm(conv(relu(norm(conv(x)))))"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(Conv(width, width, 3), Conv(width, width, 3, act="linear"))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Translator(nn.Module):
    """img [N, C, H, W] -> img [N, C, H, W] in [-1, 1], for H and W that are multiples of 4"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, transposed = config.width, 3 if config.published else None
        borders = "zeros" if config.published else "reflect"
        blocks = config.blocks or (6 if max(height_width(config.resolution)) <= 128 else 9)
        self.layers = nn.Sequential(
            Conv(config.channels, width, 7),
            Conv(width, 2 * width, 3, stride=2, borders=borders),
            Conv(2 * width, 4 * width, 3, stride=2, borders=borders),
            *(Residual(4 * width) for _ in range(blocks)),
            UpsampleBlock(4 * width, 2 * width, transposed=transposed),
            UpsampleBlock(2 * width, width, transposed=transposed),
        )
        self.to_rgb = Conv2d(width, config.channels, 7, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.channels))
        self.apply(init)

    def forward(self, img: Tensor) -> Tensor:
        x = F.pad(self.layers(img), (3, 3, 3, 3), mode="reflect")
        return bias_act(self.to_rgb(x), self.bias, act="tanh")


class Generator(nn.Module):
    """source [N, C, H, W] -> img [N, C, H, W] in [-1, 1], of the other kind"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.A2B = Translator(config)
        if not config.one_way:
            self.B2A = Translator(config)

    def forward(self, source: Tensor, direction: Direction = "A2B") -> Tensor:
        if direction != "A2B" and self.config.one_way:
            raise ValueError(f"direction: want A2B, the only one of a generator that goes one way, got {direction}")
        return (self.A2B if direction == "A2B" else self.B2A)(source)


class Discriminator(nn.Module):
    """img [N, C, H, W] -> logits [N, P]: how much each patch looks like a real image of one kind"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.A, self.B = (PatchDiscriminator(config.channels, config.d_width) for _ in "AB")

    def forward(self, img: Tensor, kind: Literal["A", "B"] = "B") -> Tensor:
        return (self.A if kind == "A" else self.B)(img)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The blocks of both discriminators, side by side. --freeze-d counts from the image on."""
        return [a + b for a, b in zip(self.A.blocks_from_image(), self.B.blocks_from_image(), strict=True)]
