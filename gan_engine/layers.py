"""Modules and checks shared by the families."""

from torch import Tensor


def check_class(c: Tensor | None, c_dim: int) -> None:
    """Refuse a c that does not fit a network of `c_dim` classes (0: a network without classes)."""
    got = 0 if c is None else c.shape[-1]
    if got != c_dim:
        want = f"c [N, {c_dim}]" if c_dim else "no c (the network has no classes)"
        raise ValueError(f"want {want}, got {'none' if c is None else f'c {list(c.shape)}'}")
