"""FIR filtering of images with up- and downsampling, in one pass over memory."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from gan_engine import backends
from gan_engine.ops.kernel_op import Function, check_tensors, define, layout, operators, wide
from gan_engine.ops.one_node import one_node

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
    """f = gain * flip(f) / sum(f), ready for `upfirdn2d` and its kin.

    Args:
        f: a scalar, [taps] or [taps_y, taps_x]: a tensor, array or list; None is [1]. [taps] are the taps of either
            axis: the filter is their outer product.
        normalize: divide by the sum.
        flip_filter: reverse the taps.
        gain: factor on the signal; either axis of a separable filter takes its square root.
        separable: True for a result of [taps], False for one of [taps_y, taps_x]. None is True wherever that is
            possible: for a scalar, for [taps], and for a matrix that is the outer product of some taps with themselves.

    Returns:
        f: [taps] or [taps_y, taps_x], float32, on `device`.

    Raises:
        ValueError: a filter with no taps or of more than two dimensions, or separable=True for one that is not, or
            normalize=True for taps that sum to 0.

    Code written for kernels that filter both axes in separate passes gets a matrix for fewer than 8 taps; here a
    separable filter is never slower as such, so [taps] stay [taps].
    """
    f = torch.as_tensor([1.0] if f is None else f, device="cpu").detach().to(torch.float64)
    f = f.reshape(1) if f.ndim == 0 else f
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"setup_filter: f must be a scalar, [taps] or [taps_y, taps_x], got {list(f.shape)}")
    if f.ndim == 1 and separable is False:
        f = f.outer(f)
    elif f.ndim == 2 and separable is not False:
        taps = _root(f)
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


def _root(f: Tensor) -> Tensor | None:
    """The taps whose outer product with themselves is f [n, m], to float32; None if there are none."""
    largest = int(f.diagonal().abs().argmax())
    peak = f[largest, largest]
    if f.shape[0] != f.shape[1] or not peak > 0:
        return None
    taps = f[largest] / peak.sqrt()
    return taps if torch.allclose(taps.outer(taps), f, rtol=1e-6, atol=1e-7 * float(peak)) else None


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    backend: str | None = None,
) -> Tensor:
    """y[oy, ox] = gain * sum over ky, kx of f[-ky, -kx] * u[oy * down_y + ky, ox * down_x + kx], u = pad(x with zeros)

    That is: up - 1 zeros behind every element of x, then the padding, then the filter, then every down-th element.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        f: [taps], the outer product of which with itself is the filter, or [taps_y, taps_x], of any size, float32, on
            the device of x; None is [1]. See `setup_filter`.
        up, down: factors, at least 1: one number, or [x, y].
        padding: zeros around the upsampled image, negative to crop it: one number, [x, y] or [x0, x1, y0, y1].
        flip_filter: False convolves, as written above; True correlates: f[ky, kx].
        gain: factor on y.
        backend: see gan_engine.backends.

    Returns:
        y: [N, C, (H * up_y + y0 + y1 - taps_y) // down_y + 1, likewise W], in the dtype of x, channels_last if x is,
            else contiguous. Half precision is computed in float32 and rounded once.

    Raises:
        ValueError: shapes or factors out of range, or a padded image that is smaller than the filter.
        TypeError: a dtype of x other than the four, or f not in float32.
        RuntimeError: f requires a gradient; it has none.

    Gradients: every order in x, by the same kernel with up and down exchanged; none in f.
    """
    return _checked("upfirdn2d", x, f, up, down, padding, (0, 0, 0, 0), flip_filter, gain, backend)


def filter2d(
    x: Tensor,
    f: Tensor | None,
    *,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    backend: str | None = None,
) -> Tensor:
    """y = `upfirdn2d` with padding that keeps the size of x; `padding` comes on top."""
    h, w = taps_of(f)
    around = (w // 2, (w - 1) // 2, h // 2, (h - 1) // 2)
    return _checked("filter2d", x, f, 1, 1, padding, around, flip_filter, gain, backend)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: Pair = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    backend: str | None = None,
) -> Tensor:
    """y = `upfirdn2d` with padding that makes it `up` times as large as x, and the signal kept: gain * up_x * up_y.

    Every up-th pixel of y belongs to one of x, as with F.interpolate(align_corners=False): f = [1, 3, 3, 1] is
    bilinear interpolation by 2, but for zeros instead of repetition outside.
    """
    h, w = taps_of(f)
    ux, uy = as_pair(up, "up", "upsample2d")
    around = ((w + ux - 1) // 2, (w - ux) // 2, (h + uy - 1) // 2, (h - uy) // 2)
    return _checked("upsample2d", x, f, up, 1, padding, around, flip_filter, gain * ux * uy, backend)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    down: Pair = 2,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    backend: str | None = None,
) -> Tensor:
    """y = `upfirdn2d` with padding that makes it x by 1 / `down`; `padding` comes on top."""
    h, w = taps_of(f)
    dx, dy = as_pair(down, "down", "downsample2d")
    around = ((w - dx + 1) // 2, (w - dx) // 2, (h - dy + 1) // 2, (h - dy) // 2)
    return _checked("downsample2d", x, f, 1, down, padding, around, flip_filter, gain, backend)


def _checked(op, x, f, up, down, padding, around, flip_filter, gain, backend):
    f, fir, pads = checked(op, x, f, up, down, padding, around, flip_filter, gain)
    backend = backends.choose("upfirdn2d", x, backend)
    if backend == "reference":
        return upfirdn2d_ref(x, f, up=fir.up, down=fir.down, padding=pads, flip_filter=flip_filter, gain=gain)
    return _kernel_upfirdn2d(x, f, *fir, layout(x) == torch.channels_last, backend)


class Fir(NamedTuple):
    """A filter as the kernels take it: pairs are [x, y], but for `size`."""

    up: list[int]
    down: list[int]
    start: list[int]  # the padding left and above; that right and below follows from the size
    size: list[int]  # of y, [H, W]
    flip: bool
    gain: float

    def transposed(self, f: Tensor, size: Sequence[int]) -> "Fir":
        """The filter of gradients: what it filters is as y, and what it makes is as x, which is of `size`."""
        start = [f.shape[-1] - 1 - self.start[0], f.shape[0] - 1 - self.start[1]]
        return Fir(self.down, self.up, start, list(size), not self.flip, self.gain)


def checked(
    op: str,
    x: Tensor,
    f: Tensor | None,
    up: Pair,
    down: Pair,
    padding: Padding,
    around: tuple[int, int, int, int],
    flip_filter: bool,
    gain: float,
) -> tuple[Tensor, Fir, list[int]]:
    """f, never None, the kernel's call, and the padding, `around` included; refuses the rest in the name of `op`"""
    check_tensors(op, x, f=f)
    if x.ndim != 4:
        raise ValueError(f"{op}: x must be [N, C, H, W], got {list(x.shape)}")
    if f is None:
        f = torch.ones(1, dtype=torch.float32, device=x.device)
    if f.ndim not in (1, 2) or 0 in f.shape:
        raise ValueError(f"{op}: f must be [taps] or [taps_y, taps_x], got {list(f.shape)}")
    if f.dtype != torch.float32:
        raise TypeError(f"{op}: f must be torch.float32 (see setup_filter), got {f.dtype}")
    if f.device != x.device:
        raise ValueError(f"{op}: f must be on {x.device} like x, got {f.device}")
    if f.requires_grad:
        raise RuntimeError(f"{op}: f has no gradient, but requires one (f.detach() takes it as a constant)")
    up, down = as_pair(up, "up", op), as_pair(down, "down", op)
    pads = [a + b for a, b in zip(as_sides(padding, op), around)]
    size = []
    for axis, i, taps in zip("yx", (1, 0), taps_of(f)):
        there = x.shape[3 - i] * up[i] + pads[2 * i] + pads[2 * i + 1]
        if there < taps:
            raise ValueError(f"{op}: x upsampled and padded must hold the {taps} taps along {axis}, got {there}")
        size.append((there - taps) // down[i] + 1)
    return f, Fir(up, down, [pads[0], pads[2]], size, bool(flip_filter), float(gain)), pads


def _kernel_upfirdn2d(x: Tensor, *args: Any) -> Tensor:
    if has_torch_function_unary(x):
        return handle_torch_function(_kernel_upfirdn2d, (x,), x, *args)
    return _upfirdn2d(x, *args)


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
    """The taps of f along y and along x, as numbers that code is compiled for.

    If sizes of images were sums of symbols for the taps, torch.compile(dynamic=True) could not order their strides.
    """
    return (1, 1) if f is None or f.ndim == 0 else (operator.index(f.shape[0]), operator.index(f.shape[-1]))


def upfirdn2d_ref(
    x: Tensor, f: Tensor, *, up: list[int], down: list[int], padding: list[int], flip_filter: bool, gain: float
) -> Tensor:
    """The definition of `upfirdn2d` in plain PyTorch, of all arguments as pairs [x, y] and four sides."""
    n, c, h, w = x.shape
    u = x.to(wide(x.dtype)).contiguous().reshape(n, c, h, 1, w, 1)
    u = F.pad(u, [0, up[0] - 1, 0, 0, 0, up[1] - 1]).reshape(n, c, h * up[1], w * up[0])
    u = F.pad(F.pad(u, [max(p, 0) for p in padding]), [min(p, 0) for p in padding])  # the negative ones crop
    k = f.to(wide(x.dtype))
    k = (k.outer(k) if k.ndim == 1 else k) * gain
    k = k if flip_filter else k.flip([0, 1])
    with torch.autocast(x.device.type, enabled=False):
        y = F.conv2d(u, k.expand(c, 1, *k.shape), groups=c) if c > 0 else u[:, :, k.shape[0] - 1 :, k.shape[1] - 1 :]
    y = y[:, :, :: down[1], :: down[0]].to(x.dtype)
    return y.contiguous(memory_format=layout(x))


# Autograd. y is linear in x, so the one Function below is its own gradient at every order: y = U x, dx = U^T dy, and
# U^T is U with up and down exchanged, the filter reversed, and the padding that aligns the two.


class _Upfirdn2d(Function):
    @staticmethod
    def forward(x, f, up, down, start, size, flip, gain, channels_last, backend):
        return operators.upfirdn2d(x, f, up, down, start, size, flip, gain, channels_last, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, f, *fir, ctx.channels_last, ctx.backend = inputs
        ctx.fir = Fir(*fir)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(f)
        ctx.size = x.shape[2:]

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        if dy is None:
            return (None,) * 10
        (f,) = ctx.saved_tensors
        fir = ctx.fir.transposed(f, ctx.size)
        return _Upfirdn2d.apply(dy, f, *fir, ctx.channels_last, ctx.backend), *(None,) * 9


# torch.compile must see one node here: traced into, nested Functions lose their second order under torch.func.grad.
@one_node
def _upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: list[int],
    down: list[int],
    start: list[int],
    size: list[int],
    flip: bool,
    gain: float,
    channels_last: bool,
    backend: str,
) -> Tensor:
    return _Upfirdn2d.apply(x, f, up, down, start, size, flip, gain, channels_last, backend)


# The kernel as a PyTorch operator without autograd.


def kernel_arguments(x: Tensor, f: Tensor, y: Tensor | None, fir: Fir, channels_last: bool) -> tuple:
    """What the kernels take of x, f and y, in the order of csrc/upfirdn2d.h."""
    n, c, h, w = x.shape
    (up_x, up_y), (down_x, down_y), (start_x, start_y), size, flip, gain = fir
    return (
        x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format),
        f.contiguous(), y, n, c,
        (h, size[0], up_y, down_y, start_y, f.shape[0]),
        (w, size[1], up_x, down_x, start_x, f.shape[-1]),
        x.dtype, f.ndim == 1, flip, channels_last, gain,
    )  # fmt: skip


def empty_image(x: Tensor, size: list[int], channels_last: bool) -> Tensor:
    """[N, C, H, W] of an x [N, C, ...] and the size [H, W]"""
    format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=format)


def _run(x, f, up, down, start, size, flip, gain, channels_last, backend):
    y = empty_image(x, size, channels_last)
    if y.numel() == 0:
        return y
    if x.numel() == 0:
        return y.zero_()
    fir = Fir(up, down, start, size, flip, gain)
    backends.kernels("upfirdn2d", backend).upfirdn2d(*kernel_arguments(x, f, y, fir, channels_last))
    return y


def _fake(x, f, up, down, start, size, flip, gain, channels_last, backend):
    return empty_image(x, size, channels_last)


define(
    "upfirdn2d(Tensor x, Tensor f, int[] up, int[] down, SymInt[] start, SymInt[] size, bool flip, float gain,"
    " bool channels_last, str backend) -> Tensor",
    _run,
    _fake,
)
backends.register("upfirdn2d")
