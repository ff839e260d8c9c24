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
    """The gradient of sum over n of weight[n] / 2 * P[n] by g, with s = |g|^2, P = (|g| - centre)^2 and weight [N].

    It has the dtype of g. It is computed in that of s, and rounded as autograd rounds it.
    """
    if centre != 0:
        weight = weight * (norm(s) - centre) / norm(s)
    # Not a tensor [], which a GPU would first round to the dtype of g.
    return (g * weight.view(-1, *[1] * (g.ndim - 1))).to(g.dtype)
