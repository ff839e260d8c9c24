"""Fidelity and diversity by nearest neighbours, of features x of generated images [N, d] and y of real ones [M, d].

A ball around each image reaches to its k-th nearest neighbour in its own set. All distances are in float64, and are
computed in blocks: the memory is that of BLOCK rows of the matrix of distances.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 500  # rows of distances at a time


def precision_recall(x: Tensor, y: Tensor, *, k: int = 3) -> tuple[float, float]:
    """The share of x inside any ball of y, and of y inside any ball of x   # Kynkaanniemi et al. 2019, 1904.06991"""
    x, y = _checked(x, y, k)
    of_x, of_y = radii(x, k), radii(y, k)
    return _inside(x, y, of_y), _inside(y, x, of_x)


def density_coverage(x: Tensor, y: Tensor, *, k: int = 5) -> tuple[float, float]:
    """1 / k of the balls of y that an image of x lies in; the share of balls with any   # Naeem et al. 2020, 2002.09797

    Density may exceed 1. Coverage forgives outliers of x, which recall counts.
    """
    x, y = _checked(x, y, k)
    of_y = radii(y, k)
    hits, covered = 0, 0
    for rows, radius in zip(_distances(y, x), of_y.split(BLOCK), strict=True):
        inside = rows < radius[:, None]
        hits += int(inside.sum())
        covered += int(inside.any(1).sum())
    return hits / (k * len(x)), covered / len(y)


def radii(x: Tensor, k: int) -> Tensor:
    """The distance of each of x [N, d] from its k-th nearest neighbour among the others, [N]"""
    return torch.cat([rows.topk(k + 1, largest=False).values[:, -1] for rows in _distances(x, x)])


def _inside(x: Tensor, centres: Tensor, radius: Tensor) -> float:
    """The share of x that lies in any of the balls."""
    return sum(int((rows <= radius).any(1).sum()) for rows in _distances(x, centres)) / len(x)


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Blocks [at most BLOCK, M] of the distances |x - y|."""
    for block in x.split(BLOCK):
        yield torch.cdist(block, y)


def _checked(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) <= k:
        raise ValueError(f"want features [N, d] and [M, d] with N, M > {k}, got {list(x.shape)} and {list(y.shape)}")
    return x.double(), y.double()
