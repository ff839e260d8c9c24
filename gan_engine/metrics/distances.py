"""Distances between two sets of feature vectors [N, d], in float64. Sets of one distribution approach 0 as N grows."""

import torch
from torch import Tensor

_BLOCK = 200  # rows of the matrix of kernels at a time


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """|mx - my|^2 + tr(Cx + Cy - 2 (Cx^(1/2) Cy Cx^(1/2))^(1/2))   # Heusel et al. 2017, arXiv:1706.08500, equation 6

    with means m and covariances C. The distance of equal sets is 0. The distance of two samples of one distribution is
    not 0: it shrinks as the smaller N grows. Compare only values of equal N.
    """
    x, y = _checked(x, y)
    return frechet_of_moments(x.mean(0), torch.cov(x.t()), y.mean(0), torch.cov(y.t()))


def frechet_of_moments(mx: Tensor, Cx: Tensor, my: Tensor, Cy: Tensor) -> float:
    """`frechet_distance` of sets with means mx, my [d] and covariances Cx, Cy [d, d], all in float64"""
    root = _root(Cx)
    cross = _root(root @ Cy @ root)
    traces = Cx.trace() + Cy.trace() - 2 * cross.trace()
    return float((mx - my).square().sum() + traces)


def _root(a: Tensor) -> Tensor:
    """a^(1/2) of a symmetric matrix. Its negative eigenvalues are rounding errors, and taken as 0."""
    values, vectors = torch.linalg.eigh(a)
    return vectors * values.clamp(min=0).sqrt() @ vectors.t()


def kernel_distance(x: Tensor, y: Tensor) -> float:
    """mean of k(x, x') + mean of k(y, y') - 2 mean of k(x, y), k(a, b) = (a . b / d + 1)^3   # arXiv:1801.01401, 3.1

    the squared maximum mean discrepancy (Binkowski et al. 2018). The first two means leave out the pairs of a vector
    with itself. The expectation therefore does not depend on N, and is 0 for two samples of one distribution.
    """
    x, y = _checked(x, y)
    n, m = len(x), len(y)
    within = _kernel_sum(x, x, own=True) / (n * (n - 1)) + _kernel_sum(y, y, own=True) / (m * (m - 1))
    return float(within - 2 * _kernel_sum(x, y) / (n * m))


def _kernel_sum(x: Tensor, y: Tensor, *, own: bool = False) -> Tensor:
    """The sum of k over all pairs, in blocks; `own` leaves out the pairs of a vector with itself."""
    d, total = x.shape[1], torch.zeros((), dtype=x.dtype, device=x.device)
    for block in x.split(_BLOCK):
        k = torch.addmm(torch.ones_like(total), block, y.t(), alpha=1 / d).flatten()
        total += torch.dot(k, k.square())
    return total - ((x.square().sum(1) / d + 1) ** 3).sum() if own else total


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"want features [N, d] and [M, d] with N, M >= 2, got {list(x.shape)} and {list(y.shape)}")
    return x.double(), y.double()
