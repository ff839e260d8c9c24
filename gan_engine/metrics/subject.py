"""The argument of a measure: a generator, and the data that it is compared with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gan_engine.data import ImageSet
from gan_engine.pictures.picture import to_uint8

T = TypeVar("T")


def classes_to_ask_for(data: ImageSet, num: int, c_dim: int) -> list[int]:
    """The classes of `num` generated images: in the shares of `data`, whose distance would be that of other shares.

    Every class in turn where all are equally frequent, and where `data` has no labels or others than the generator.
    """
    counts = None if data.labels is None else data.labels.bincount(minlength=c_dim)
    if counts is None or len(counts) > c_dim or counts.min() == counts.max():
        return [i % c_dim for i in range(num)]
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    labels = data.labels[order].tolist()
    return [labels[i % len(labels)] for i in range(num)]


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
    share: Callable[[], Iterator[Tensor]] | None = None
    """Makes the batches i of `draw` with i % size = rank, in one of `size` processes. None: this process is alone."""
    gather: Callable[[Any], list[Any]] = lambda value: [value]
    """Returns the values of all processes, by rank."""
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

    def read(self, look: Callable[[Tensor], T]) -> Iterator[T]:
        """look(pixels) of every batch of `draw`, in its order, in each of the processes. Each makes its own batches.

        Args:
            look: of pixels uint8 [n, C, H, W] on the device of G. Its result goes from process to process.
        """
        drawn = self.draw() if self.share is None else self.share()
        seen = (look(torch.from_numpy(to_uint8(img)).permute(0, 3, 1, 2).to(self.device)) for img in drawn)
        while parts := [part for part in self.gather(next(seen, None)) if part is not None]:
            yield from parts
