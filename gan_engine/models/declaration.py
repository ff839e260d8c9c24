"""What a family can do: its module declares a `Family`, and the rest of the package reads that declaration.

The kind of data that a family trains on may depend on its sizes, so it is in the configuration: `Config.data_kind`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

Command = Literal["generate", "translate", "upscale"]
Direction = Literal["A2B", "B2A"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family can do. The defaults are those of a GAN that draws images from noise."""

    command: Command = "generate"
    """The command that draws with G. generate gives G noise, translate and upscale give it images.

    A G that starts from images has no noise and no classes: G(source [N, C', H', W']) -> img [N, C, H, W], where
    Config.source_channels is C'. Its D gives logits [N, P], one for each of P patches of an image. Where the data have
    no sources, G.source_of(img) makes them of the targets. upscale also needs two numbers: an image is Config.scale
    times as wide as its source, and its pixels depend on Config.reach pixels of the source in each direction.
    """
    objective: str = "game"
    """What G and D minimise: a name in gan_engine.losses.families.OBJECTIVES."""
    measure: str | None = None
    """How `evaluate` measures G: a name in gan_engine.metrics.measures.MEASURES. None: the measure of its data."""
    penalties: bool = True
    """Whether the objective has gradient penalties: R1, R2 and that of WGAN-GP."""
    augmentation: bool = True
    """Whether D may see augmented images."""
    content_loss: bool = False
    """Whether the objective has `content`, which G can learn before D takes part (--pretrain-kimg)."""
    styles: bool = False
    """Whether G has latents w: `G.ws`, `G.synthesis` and `G.mapping`. Path lengths, --style-mix, --project and --w need
    them."""
    needs_classes: bool = False
    """Whether the networks cannot do without classes."""
    directions: tuple[Direction, ...] = ()
    """The directions of G(source, direction); () for a G that translates one way only, and takes no direction."""
    extracts: tuple[str, ...] = ()
    """Values of Config.source with which G.source_of makes sources of targets; `translate --extract` does that too."""
    picture: Callable[[Tensor], Tensor] | None = None
    """Makes images [N, C, H, W] in [-1, 1] of what G makes. None: G makes such images."""

    def __post_init__(self) -> None:
        if self.command not in get_args(Command):
            raise ValueError(f"command: want one of {', '.join(get_args(Command))}, got {self.command!r}")

    @property
    def from_noise(self) -> bool:
        """Whether G starts from noise z. Any other G starts from an image."""
        return self.command == "generate"
