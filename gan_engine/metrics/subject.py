"""The argument of a measure: a generator, and the data that it is compared with."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gan_engine.data import ImageSet
from gan_engine.pictures.picture import to_uint8

T = TypeVar("T")


def classes_to_ask_for(data: ImageSet, num: int, c_dim: int, names: Sequence[str] = ()) -> list[int]:
    """The classes of `num` generated images: in the shares of `data`, whose distance would be that of other shares.

    Every class in turn where all are equally frequent, and where `data` has no labels or others than the generator.

    Args:
        c_dim: how many classes the generator has.
        names: their names, if it knows them: classes of `data` are found by name, or by number where a name is one.
    """
    labels = _numbered(data, names)
    counts = None if labels is None else labels.bincount(minlength=c_dim)
    if labels is None or counts is None or len(counts) > c_dim or counts.min() == counts.max():
        return [i % c_dim for i in range(num)]
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    drawn = labels[order].tolist()
    return [drawn[i % len(drawn)] for i in range(num)]


def _numbered(data: ImageSet, names: Sequence[str]) -> Tensor | None:
    """The labels of `data` as numbers of the classes `names`. None for classes of other names, with a warning."""
    own = data.class_names
    if data.labels is None or not names or own == tuple(names) or all(name.isdecimal() for name in own):
        return data.labels
    others = sorted(set(own) - set(names))
    if others:
        warnings.warn(
            f"{data.name}: the generator has no class {others[0]!r}: every class is asked for equally often, so other "
            "shares of the classes make distances larger",
            stacklevel=3,
        )
        return None
    return torch.tensor([names.index(name) for name in own])[data.labels]


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
