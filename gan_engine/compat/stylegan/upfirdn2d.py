"""`setup_filter`, `upfirdn2d` and its three short forms, and the readers of arguments that other code imports."""

from typing import Any

import torch
from torch import Tensor

from gan_engine import ops
from gan_engine.compat.arguments import backend_of, fir, numbers
from gan_engine.ops.fir import as_pair, as_sides, taps_of


def setup_filter(
    f: Any,
    device: str | torch.device = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """gan_engine.ops.setup_filter, but fewer than 8 taps become a matrix, and a matrix stays one"""
    f = torch.as_tensor(1.0 if f is None else f)
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if separable and f.ndim == 2:
        raise ValueError(f"setup_filter: separable=True wants [taps], got {list(f.shape)}")
    options: dict[str, Any] = {"normalize": bool(normalize), "flip_filter": bool(flip_filter), "gain": float(gain)}
    return ops.setup_filter(f.reshape(1) if f.ndim == 0 else f, device=device, **options, separable=bool(separable))


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Any = 1,
    down: Any = 1,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """gan_engine.ops.upfirdn2d; `padding` is one number, [x, y] or [x0, x1, y0, y1]"""
    return fir(x, f, up, down, padding, flip_filter, gain, backend_of(impl))


def filter2d(
    x: Tensor, f: Tensor | None, padding: Any = 0, flip_filter: bool = False, gain: float = 1, impl: str = "cuda"
) -> Tensor:
    """`upfirdn2d` that keeps the size of x; `padding` is added"""
    w, h = _get_filter_size(f)
    around = (w // 2, (w - 1) // 2, h // 2, (h - 1) // 2)
    return upfirdn2d(x, f, 1, 1, _added(padding, around), flip_filter, gain, impl)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Any = 2,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`upfirdn2d` that makes x `up` times as large, with a gain of up_x * up_y; `padding` is added"""
    (ux, uy), (w, h) = _parse_scaling(up), _get_filter_size(f)
    around = ((w + ux - 1) // 2, (w - ux) // 2, (h + uy - 1) // 2, (h - uy) // 2)
    return upfirdn2d(x, f, up, 1, _added(padding, around), flip_filter, gain * ux * uy, impl)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Any = 2,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """`upfirdn2d` that makes x 1 / `down` as large; `padding` is added"""
    (dx, dy), (w, h) = _parse_scaling(down), _get_filter_size(f)
    around = ((w - dx + 1) // 2, (w - dx) // 2, (h - dy + 1) // 2, (h - dy) // 2)
    return upfirdn2d(x, f, 1, down, _added(padding, around), flip_filter, gain, impl)


def _added(padding: Any, around: tuple[int, int, int, int]) -> list[int]:
    return [a + b for a, b in zip(_parse_padding(padding), around)]


def _parse_scaling(scaling: Any) -> tuple[int, int]:
    """(x, y)"""
    x, y = as_pair(numbers(scaling))
    return x, y


def _parse_padding(padding: Any) -> tuple[int, int, int, int]:
    """(x0, x1, y0, y1)"""
    x0, x1, y0, y1 = as_sides(numbers(padding))
    return x0, x1, y0, y1


def _get_filter_size(f: Tensor | None) -> tuple[int, int]:
    """(taps along x, taps along y)"""
    h, w = taps_of(f)
    return w, h
