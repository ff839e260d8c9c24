"""Points in the plane from mixtures of Gaussians: the toy data on which the field compares losses and mode coverage.

    toy:ring    8 Gaussians on a circle of radius 2, standard deviation 0.02
    toy:grid    25 Gaussians in a square of 5x5 at a distance of 2, standard deviation 0.05

Metz et al. 2017, arXiv:1611.02163, section 3.1, and Srivastava et al. 2017, arXiv:1705.07761, section 4.1. The metric
`gaussians` counts the Gaussians that a generator covers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gan_engine.data.image_set import ImageSet
from gan_engine.system.resolution import Resolution

NUM = 100_000  # points of a set
SEED = 0  # of a set with a name: all runs learn from the same points


@dataclass(frozen=True)
class Mixture:
    """Gaussians with the same weight and the same standard deviation `sd` in x and y, at `centres` [K, 2]."""

    centres: Tensor
    sd: float


def _ring(num: int, radius: float) -> Tensor:
    angles = torch.arange(num, dtype=torch.float64) * (2 * math.pi / num)
    return (radius * torch.stack([angles.cos(), angles.sin()], 1)).float()


def _grid(side: int, spacing: float) -> Tensor:
    axis = (torch.arange(side) - (side - 1) / 2) * spacing
    return torch.cartesian_prod(axis, axis)


MIXTURES = {"toy:ring": Mixture(_ring(8, 2), 0.02), "toy:grid": Mixture(_grid(5, 2), 0.05)}


def draw(name: str, *, seed: int) -> ImageSet:
    """NUM points float32 [NUM, 2] of a mixture in MIXTURES; label = Gaussian, whose name is its centre."""
    mixture, generator = MIXTURES[name], torch.Generator().manual_seed(seed)
    labels = torch.randint(len(mixture.centres), (NUM,), generator=generator)
    points = mixture.centres[labels] + mixture.sd * torch.randn(NUM, 2, generator=generator)
    names = tuple(f"({x:g}, {y:g})" for x, y in (mixture.centres.round(decimals=2) + 0.0).tolist())  # no -0
    return ImageSet(name, points, labels, names)


def ring(*, resolution: Resolution, channels: int | None, seed: int) -> ImageSet:
    """toy:ring, drawn from a seed. Points have neither a resolution nor channels to choose."""
    return draw("toy:ring", seed=seed)


def _load(name: str, root: Path, *, resolution: Resolution, channels: int | None) -> ImageSet:
    return draw(name, seed=SEED)


LOADERS: dict[str, Callable[..., ImageSet]] = {name: partial(_load, name) for name in MIXTURES}
