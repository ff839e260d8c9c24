"""The argument of a measure: a generator, and the data that it is compared with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_engine.data import ImageSet


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A generator in eval mode, and the data that it is compared with."""

    G: nn.Module
    data: ImageSet
    batch: int
    """Images per pass."""
    num: int = 0
    """Number of images that `draw` makes."""
    draw: Callable[[], Iterator[Tensor]] = lambda: iter(())
    """Makes `num` images of G from noise, in batches on the device of G. G must start from noise."""
    classes: list[int] | None = None
    """The class that was asked for, for each of these images. None without classes."""
    class_names: tuple[str, ...] = ()
    """The names of the classes, if the run had names."""
    directions: tuple[str, ...] = ()
    """The directions of G(source, direction). () if G takes no direction."""
    seed: int = 0
    """Seed of the noise, for a measure that draws noise of its own."""

    @property
    def device(self) -> torch.device:
        """Where G is."""
        return next(self.G.parameters()).device
