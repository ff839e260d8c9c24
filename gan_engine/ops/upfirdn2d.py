"""FIR filtering of images with up- and downsampling, in one pass over memory."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gan_engine.ops.upfirdn2d_kernels  # noqa: F401  (defines the operator)
from gan_engine import backends
from gan_engine.ops.fir import FirArguments, Padding, Pair, as_pair, fir_arguments, taps_of
from gan_engine.ops.kernel_op import Function, layout, operators, wide
from gan_engine.ops.linear_per_sample import linear_per_sample
from gan_engine.ops.one_node import one_node


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

    In steps: put up - 1 zeros behind every element of x, pad, filter, and keep every down-th element.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        f: [taps] or [taps_y, taps_x], of any size, float32, on the device of x; None is [1]. The outer product of
            [taps] with itself is the filter. See `setup_filter`. A CPU kernel filters a matrix that is an outer
            product axis by axis too, in double only if its taps are exact products.
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
    return _resample("upfirdn2d", x, f, up, down, padding, (0, 0, 0, 0), flip_filter, gain, backend)


def filter2d(
    x: Tensor,
    f: Tensor | None,
    *,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
    backend: str | None = None,
) -> Tensor:
    """y = `upfirdn2d` with the padding that keeps the size of x; `padding` is added to it.

    Arguments, errors and gradients are as in `upfirdn2d`.
    """
    h, w = taps_of(f)
    around = (w // 2, (w - 1) // 2, h // 2, (h - 1) // 2)
    return _resample("filter2d", x, f, 1, 1, padding, around, flip_filter, gain, backend)


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
    """y = `upfirdn2d` with gain * up_x * up_y, which keeps the signal, and the padding that makes y `up` times as large

    Pixels lie as with F.interpolate(align_corners=False). f = [1, 3, 3, 1] is bilinear interpolation by 2, but with
    zeros outside the image, where F.interpolate repeats the border. `padding` is added to the padding above. Arguments,
    errors and gradients are as in `upfirdn2d`.
    """
    h, w = taps_of(f)
    ux, uy = as_pair(up, "up", "upsample2d")
    around = ((w + ux - 1) // 2, (w - ux) // 2, (h + uy - 1) // 2, (h - uy) // 2)
    return _resample("upsample2d", x, f, up, 1, padding, around, flip_filter, gain * ux * uy, backend)


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
    """y = `upfirdn2d` with the padding that makes y 1 / `down` as large as x; `padding` is added to it.

    Arguments, errors and gradients are as in `upfirdn2d`.
    """
    h, w = taps_of(f)
    dx, dy = as_pair(down, "down", "downsample2d")
    around = ((w - dx + 1) // 2, (w - dx) // 2, (h - dy + 1) // 2, (h - dy) // 2)
    return _resample("downsample2d", x, f, 1, down, padding, around, flip_filter, gain, backend)


def _resample(op, x, f, up, down, padding, around, flip_filter, gain, backend):
    """`upfirdn2d` in the name of `op`, with `around` added to the padding"""
    f, fir, pads = fir_arguments(op, x, f, up, down, padding, around, flip_filter, gain)
    backend = backends.choose("upfirdn2d", x, backend)
    if backend == "reference":
        return upfirdn2d_ref(x, f, up=fir.up, down=fir.down, padding=pads, flip_filter=flip_filter, gain=gain)
    return linear_upfirdn2d(x, f, *fir, layout(x) == torch.channels_last, backend)


def upfirdn2d_ref(
    x: Tensor, f: Tensor, *, up: list[int], down: list[int], padding: list[int], flip_filter: bool, gain: float
) -> Tensor:
    """The definition of `upfirdn2d` in PyTorch's own operators, for pairs [x, y] and four sides."""
    n, c, h, w = x.shape
    u = x.to(wide(x.dtype)).contiguous().reshape(n, c, h, 1, w, 1)
    u = F.pad(u, [0, up[0] - 1, 0, 0, 0, up[1] - 1]).reshape(n, c, h * up[1], w * up[0])
    u = F.pad(F.pad(u, [max(p, 0) for p in padding]), [min(p, 0) for p in padding])  # negative padding crops
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
        ctx.fir = FirArguments(*fir)
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


# y = U x for checked arguments.
linear_upfirdn2d = linear_per_sample(_upfirdn2d)


backends.register("upfirdn2d")
