"""Fully connected networks for points in the plane, as the field compares losses on toy data.

Srivastava et al. 2017, arXiv:1705.07761, section 4.1. A point is [2], in the units of the data, so the last layer of G
has no activation. These are the layers of `vanilla` otherwise.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from gan_engine.layers import check_class, dense
from gan_engine.models.checks import NoiseSize, check_at_least, check_types, check_widths
from gan_engine.models.declaration import Family
from gan_engine.pictures import scatter

FAMILY = Family(picture=scatter.render)


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks."""

    z_dim: NoiseSize = 2
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers of both networks. The discriminator has them in reverse order."""
    resolution: ClassVar[int] = 1
    channels: ClassVar[int] = 2
    c_dim: ClassVar[int] = 0
    data_kind: ClassVar[str] = "points"

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "z_dim")
        check_widths(self, "hidden")


class Generator(nn.Module):
    """(z [N, z_dim], c=None) -> points [N, 2]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = dense([config.z_dim, *config.hidden, config.channels], last="linear")

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        return self.layers(z)


class Discriminator(nn.Module):
    """(points [N, 2], c=None) -> logits [N]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.layers = dense([config.channels, *reversed(config.hidden), 1], last="linear")

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        return self.layers(img).squeeze(1)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The hidden layers. --freeze-d counts from the point on."""
        return [(layer,) for layer in self.layers[:-1]]
