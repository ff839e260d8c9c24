"""The declaration of a family: its module has a `Family` that says what it can do. The rest of the package reads it.

The kind of data that a family trains on may depend on its sizes, so `Config.data_kind` names it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

Command = Literal["generate", "translate", "upscale"]
Direction = Literal["A2B", "B2A"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """The abilities of a family. The defaults describe a GAN that draws images from noise."""

    command: Command = "generate"
    """The command that draws with G. generate gives G noise, translate and upscale give it images.

    A G that starts from images reads neither noise nor classes: G(source [N, C', H', W']) -> img [N, C, H, W], where
    Config.source_channels is C'. Its D gives logits [N, P], one for each of P patches of an image. G.source_of(img)
    makes sources of targets, if the data have no sources. upscale needs two more numbers: an image is Config.scale
    times as wide as its source, and a pixel depends on Config.reach pixels of the source in each direction.
    """
    objective: str = "game"
    """The objective of G and D: a name in gan_engine.losses.families.OBJECTIVES."""
    source_multiple: int | None = None
    """G takes sources whose sides are any multiples of this number. None: only those of the resolution it was made for.
    Families that start from images have it."""
    measure: str | None = None
    """The measure of `evaluate`: a name in gan_engine.metrics.measures.MEASURES. None: images or volumes decide."""
    penalties: bool = True
    """True if the objective has gradient penalties: R1, R2 and the penalty of WGAN-GP."""
    augmentation: bool = True
    """True if D may see augmented images."""
    content_loss: bool = False
    """True if the objective has `content`, which G can learn before D takes part (--pretrain-kimg)."""
    styles: bool = False
    """True if G has latents w: `G.ws`, `G.synthesis` and `G.mapping`. Path lengths, --style-mix, --project and --w need
    w."""
    translates: bool = False
    """True if `G.synthesis` takes `translation` [N, 2], by which images move, as a share of their side, for EQ-T."""
    needs_classes: bool = False
    """True if the networks need classes."""
    directions: tuple[Direction, ...] = ()
    """The two directions of G(source, direction). () if G translates one way only, and takes no direction."""
    extracts: tuple[str, ...] = ()
    """Values of Config.source for which G.source_of makes sources of targets. `translate --extract` then works."""
    picture: Callable[[Tensor], Tensor] | None = None
    """Turns the results of G into images [N, C, H, W] in [-1, 1]. None: they are such images."""

    def __post_init__(self) -> None:
        if self.command not in get_args(Command):
            raise ValueError(f"command: want one of {', '.join(get_args(Command))}, got {self.command!r}")

    @property
    def from_noise(self) -> bool:
        """True if G starts from noise z. Any other G starts from an image."""
        return self.command == "generate"
