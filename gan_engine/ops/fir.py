"""FIR filters of images: how to make one, and the arguments of a filtering as the kernels take them."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_engine.ops.kernel_op import check_tensors

Pair = int | Sequence[int]  # one number for both axes, or [x, y]
Padding = int | Sequence[int]  # one number for all sides, or [x, y], or [x0, x1, y0, y1]


def setup_filter(
    f: Any,
    *,
    device: str | torch.device = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """f = gain * flip(f) / sum(f), ready for `upfirdn2d` and the ops made of it.

    Args:
        f: a scalar, [taps] or [taps_y, taps_x]: a tensor, array or list; None is [1]. [taps] are the taps of each axis:
            the filter is their outer product.
        device: where the result is stored.
        normalize: divide by the sum.
        flip_filter: reverse the taps.
        gain: factor on the signal. Each axis of a separable filter takes its square root.
        separable: True for a result [taps], False for [taps_y, taps_x]. None is True if that is possible: for a scalar,
            for [taps], and for a matrix that is the outer product of some taps with themselves.

    Returns:
        f: [taps] or [taps_y, taps_x], float32, on `device`.

    Raises:
        ValueError: a filter with no taps or with more than two dimensions; separable=True for a matrix that is not
            separable; normalize=True for taps that sum to 0; a negative gain of a separable filter.

    Other libraries make a matrix of fewer than 8 taps. Here [taps] stay [taps]: a separable filter is never slower.
    """
    f = torch.as_tensor([1.0] if f is None else f, device="cpu").detach().to(torch.float64)
    f = f.reshape(1) if f.ndim == 0 else f
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"setup_filter: f must be a scalar, [taps] or [taps_y, taps_x], got {list(f.shape)}")
    if f.ndim == 1 and separable is False:
        f = f.outer(f)
    elif f.ndim == 2 and separable is not False:
        taps = outer_root(f)
        if taps is None and separable:
            raise ValueError("setup_filter: separable=True wants the outer product of taps with themselves")
        f = f if taps is None else taps
    if normalize:
        if f.sum() == 0:
            raise ValueError("setup_filter: normalize=True, but f sums to 0")
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    if gain < 0 and f.ndim == 1:
        raise ValueError(f"setup_filter: a separable filter takes a gain of at least 0, got {gain}")
    return (f * gain ** (f.ndim / 2)).to(device, torch.float32)


def outer_root(f: Tensor) -> Tensor | None:
    """taps with taps.outer(taps) = f [n, m] in float64, to the precision of float32; None if there are none"""
    largest = int(f.diagonal().abs().argmax())
    peak = f[largest, largest]
    if f.shape[0] != f.shape[1] or not peak > 0:
        return None
    taps = f[largest] / peak.sqrt()
    return taps if torch.allclose(taps.outer(taps), f, rtol=1e-6, atol=1e-7 * float(peak)) else None


class FirArguments(NamedTuple):
    """A filtering as the kernels take it. Pairs are [x, y], but `size` is [H, W]."""

    up: list[int]
    down: list[int]
    start: list[int]  # the padding left and above; the padding right and below follows from `size`
    size: list[int]  # of the result
    flip: bool
    gain: float

    def transposed(self, f: Tensor, size: Sequence[int]) -> "FirArguments":
        """The filtering of the gradient, from dy to dx; `size` is the [H, W] of x."""
        start = [f.shape[-1] - 1 - self.start[0], f.shape[0] - 1 - self.start[1]]
        return FirArguments(self.down, self.up, start, list(size), not self.flip, self.gain)


def fir_arguments(
    op: str,
    x: Tensor,
    f: Tensor | None,
    up: Pair,
    down: Pair,
    padding: Padding,
    around: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
    name: str = "f",
    of: Sequence[int] | None = None,
) -> tuple[Tensor, FirArguments, list[int]]:
    """(f, arguments, padding + around); f is never None. Wrong arguments are refused in the name of `op`.

    `name` is what `op` calls f. `of` is the [H, W] of the filtered image, where that is made of x.
    """
    check_tensors(op, x, **{name: f})
    if x.ndim != 4:
        raise ValueError(f"{op}: x must be [N, C, H, W], got {list(x.shape)}")
    if f is None:
        f = torch.ones(1, dtype=torch.float32, device=x.device)
    if f.ndim not in (1, 2) or 0 in f.shape:
        raise ValueError(f"{op}: {name} must be [taps] or [taps_y, taps_x], got {list(f.shape)}")
    if f.dtype != torch.float32:
        raise TypeError(f"{op}: {name} must be torch.float32 (see setup_filter), got {f.dtype}")
    if f.device != x.device:
        raise ValueError(f"{op}: {name} must be on {x.device} like x, got {f.device}")
    if f.requires_grad:
        raise RuntimeError(f"{op}: {name} has no gradient, but requires one ({name}.detach() takes it as a constant)")
    up, down = as_pair(up, "up", op), as_pair(down, "down", op)
    pads = [a + b for a, b in zip(as_sides(padding, op), around)]
    size, filtered = [], x.shape[2:] if of is None else of
    for axis, i, taps in zip("yx", (1, 0), taps_of(f)):
        padded = filtered[1 - i] * up[i] + pads[2 * i] + pads[2 * i + 1]
        if padded < taps:
            raise ValueError(f"{op}: x upsampled and padded must hold the {taps} taps along {axis}, got {padded}")
        size.append((padded - taps) // down[i] + 1)
    return f, FirArguments(up, down, [pads[0], pads[2]], size, bool(flip_filter), float(gain)), pads


def as_pair(factor: Pair, name: str = "factor", op: str = "upfirdn2d") -> list[int]:
    """[x, y] from one number or two."""
    pair = [factor, factor] if isinstance(factor, int) else list(factor)
    if len(pair) != 2 or not all(isinstance(v, int) and v >= 1 for v in pair):
        raise ValueError(f"{op}: {name} must be an integer or [x, y], at least 1, got {factor!r}")
    return pair


def as_sides(padding: Padding, op: str = "upfirdn2d") -> list[int]:
    """[x0, x1, y0, y1] from one number, [x, y] or all four."""
    sides = [padding, padding] if isinstance(padding, int) else list(padding)
    if len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    if len(sides) != 4 or not all(isinstance(p, int) for p in sides):
        raise ValueError(f"{op}: padding must be an integer, [x, y] or [x0, x1, y0, y1], got {padding!r}")
    return sides


def taps_of(f: Tensor | None) -> tuple[int, int]:
    """How many taps f has along y and along x, as Python integers.

    torch.compile(dynamic=True) then compiles for these numbers. Symbols would make symbols of the sizes of images, and
    the compiler could not order their strides.
    """
    return (1, 1) if f is None or f.ndim == 0 else (operator.index(f.shape[0]), operator.index(f.shape[-1]))
