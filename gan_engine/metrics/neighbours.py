"""Fidelity and diversity by nearest neighbours, of features x of generated images [N, d] and y of real ones [M, d].

A ball around each image reaches to its k-th nearest neighbour in its own set. All distances are in float64, and are
computed in blocks: the memory is that of BLOCK rows of the matrix of distances.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 200  # rows of distances at a time


def precision_recall(x: Tensor, y: Tensor, *, k: int = 3) -> tuple[float, float]:
    """The share of x inside any ball of y, and of y inside any ball of x   # Kynkaanniemi et al. 2019, 1904.06991"""
    return all_four(x, y, k_shares=k, k_counts=k)[:2]


def density_coverage(x: Tensor, y: Tensor, *, k: int = 5) -> tuple[float, float]:
    """1 / k of the balls of y that an image of x lies in; the share of balls with any   # Naeem et al. 2020, 2002.09797

    Density may exceed 1. Coverage forgives outliers of x, which recall counts.
    """
    return all_four(x, y, k_shares=k, k_counts=k)[2:]


def all_four(x: Tensor, y: Tensor, *, k_shares: int = 3, k_counts: int = 5) -> tuple[float, float, float, float]:
    """`precision_recall` with k_shares and `density_coverage` with k_counts; each distance is computed once

    Raises ValueError for sets that do not have more images than the larger k, and for features of different sizes.
    """
    x, y = _checked(x, y, max(k_shares, k_counts))
    of_x = _squared_radii(x, k_shares)[:, -1]
    near_y = _squared_radii(y, max(k_shares, k_counts))
    of_y, counting = near_y[:, k_shares - 1], near_y[:, k_counts - 1]
    in_y, hits, covered, recalled = torch.zeros(len(x), dtype=torch.bool, device=x.device), 0, 0, 0
    for rows, wide, narrow in zip(_squares(y, x), of_y.split(BLOCK), counting.split(BLOCK), strict=True):
        in_y |= (rows <= wide[:, None]).any(0)
        recalled += int((rows <= of_x).any(1).sum())
        inside = (rows < narrow[:, None]).sum(1)
        hits, covered = hits + int(inside.sum()), covered + int((inside > 0).sum())
    return int(in_y.sum()) / len(x), recalled / len(y), hits / (k_counts * len(x)), covered / len(y)


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """The squares of the distances of each of x [N, d] from its k nearest neighbours among the others, [N, k]"""
    return torch.cat([rows.topk(k + 1, largest=False).values[:, 1:] for rows in _squares(x, x)])


def _squares(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Blocks [at most BLOCK, M] of |x - y|^2 = |x|^2 + |y|^2 - 2 x . y; rounding below 0 becomes 0."""
    of_y = y.square().sum(1)
    for block in x.split(BLOCK):
        products = torch.addmm(of_y, block, y.t(), alpha=-2)
        yield products.add_(block.square().sum(1)[:, None]).clamp_(min=0)


def _checked(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) <= k:
        raise ValueError(f"want features [N, d] and [M, d] with N, M > {k}, got {list(x.shape)} and {list(y.shape)}")
    return x.double(), y.double()
