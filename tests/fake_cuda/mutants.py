"""Mistakes that a step on a GPU must not make, each put into the engine on purpose."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from gan_engine.losses.objective import GanObjective
from gan_engine.training import batches
from gan_engine.training.means import Means


def _z_left_on_the_cpu(upload: Callable) -> Callable:
    return lambda x, device: x


def _pageable(upload: Callable) -> Callable:
    return lambda x, device: x.to(device, non_blocking=True)


def _number_read(add: Callable) -> Callable:
    def reads(self: Means, name: str, values: Tensor) -> None:
        float(values.sum())
        add(self, name, values)

    return reads


def _drawn_on_the_cpu(discriminator: Callable) -> Callable:
    def draws(self: GanObjective, batch: Any) -> dict[str, Tensor]:
        noisy = batch.real_img + batch.z.new_tensor(self.rng.seed() % 2)  # another number in every step, by a copy
        return discriminator(self, batch._replace(real_img=noisy))

    return draws


# By name: what has the function, its name there, and what makes the mistake of it.
MUTANTS = {
    "z left on the CPU": (batches, "upload", _z_left_on_the_cpu),
    "float(tensor) in Means.add": (Means, "add", _number_read),
    "a pageable copy": (batches, "upload", _pageable),
    "a number of the CPU in a recorded phase": (GanObjective, "discriminator", _drawn_on_the_cpu),
}


@contextlib.contextmanager
def mutated(name: str) -> Iterator[None]:
    """Inside, the engine makes the mistake of that name; none for an empty name."""
    if not name:
        yield
        return
    owner, attribute, mistake = MUTANTS[name]
    kept = getattr(owner, attribute)
    setattr(owner, attribute, mistake(kept))
    try:
        yield
    finally:
        setattr(owner, attribute, kept)
