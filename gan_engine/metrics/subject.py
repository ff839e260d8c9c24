"""What a measure is given: a generator, and the data that it is held against."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_engine.data import ImageSet


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A generator in eval mode, and the data that it is held against."""

    G: nn.Module
    data: ImageSet
    batch: int
    """Images per pass."""
    num: int = 0
    """Images that `draw` makes."""
    draw: Callable[[], Iterator[Tensor]] = lambda: iter(())
    """Makes `num` images of G from noise, in batches on the device of G. For a G that starts from noise."""
    classes: list[int] | None = None
    """The class that each of these images was asked to be, or None without classes."""
    class_names: tuple[str, ...] = ()
    """The names of the classes, where the run had names."""
    directions: tuple[str, ...] = ()
    """The directions of G(source, direction); () for a G that takes no direction."""

    @property
    def device(self) -> torch.device:
        """Where G is."""
        return next(self.G.parameters()).device
