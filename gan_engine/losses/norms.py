"""Norms of gradients, from their sums of squares s [N] = |g|^2."""

from torch import Tensor

_EPS = 1e-12


def norm(s: Tensor) -> Tensor:
    """|g| = (s + 1e-12)^(1/2). Its gradient by g is 0, and not NaN, where g is 0."""
    return (s + _EPS).sqrt()


def penalty(s: Tensor, centre: float) -> Tensor:
    """(|g| - centre)^2, and s itself for centre = 0"""
    return s if centre == 0 else (norm(s) - centre).square()


def slope(g: Tensor, s: Tensor, weight: Tensor, centre: float) -> Tensor:
    """weight * dP/dg with P = sum over n of (|g[n]| - centre)^2, in the dtype of g, rounded as autograd rounds it."""
    twice = 2 * weight
    if centre != 0:
        twice = (twice * (norm(s) - centre) / norm(s)).view(-1, *[1] * (g.ndim - 1))
    return (g * twice).to(g.dtype)
