"""Norms of gradients, from their sums of squares s [N] = |g|^2."""

from torch import Tensor

_EPS = 1e-12


def norm(s: Tensor) -> Tensor:
    """|g| = (s + 1e-12)^(1/2). Its gradient by g is 0, and not NaN, where g is 0."""
    return (s + _EPS).sqrt()


def penalty(s: Tensor, centre: float) -> Tensor:
    """(|g| - centre)^2, and s itself for centre = 0"""
    return s if centre == 0 else (norm(s) - centre).square()
