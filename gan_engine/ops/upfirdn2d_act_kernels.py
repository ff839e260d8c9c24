"""The kernels of upfirdn2d_act as PyTorch operators without autograd."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.fir import FirArguments
from gan_engine.ops.kernel_op import define, operators, wide
from gan_engine.ops.scale_bias_act_kernels import as_kernel_input, empty_mask, empty_sums, slope_and_keep
from gan_engine.ops.upfirdn2d_kernels import empty_image, kernel_arguments


def in_one_pass(backend: str, x: Tensor, f: Tensor, fir: FirArguments, channels_last: bool) -> bool:
    """Whether a backend has kernels for this filter, layout and size; StripPlan::fits in csrc/cuda/strips.h."""
    if backend != "cuda":
        return backend == "cpu"
    if not channels_last or f.ndim != 1 or f.shape[0] != 4 or fir.up != [1, 1] or fir.down != [1, 1]:
        return False
    n, c, h, w = x.shape
    out_h, out_w = fir.size
    around_x, around_y = (max(abs(start), abs(3 - start)) for start in fir.start)  # the gradient pads by 3 - start
    image = c * (h + out_h + around_y) * (w + out_w + around_x)
    return c % 8 == 0 and image < 2**29 and n * c * (max(h, out_h) + 2) * (max(w, out_w) + 2) < 2**31


def _forward(x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend):
    y, mask = _forward_fake(
        x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend
    )
    fir = FirArguments(up, down, start, size, flip, fir_gain)
    x, *others = (_placed(t, backend) for t in (x, *(as_kernel_input(t, x.dtype) for t in (scale, b, noise))))
    backends.kernels("upfirdn2d_act", backend).upfirdn2d_act(
        *kernel_arguments(x, f, y, fir, channels_last), *others, *slope_and_keep(mask, alpha, clamp),
        0 if noise is None else noise.shape[0], alpha, gain, clamp,
    )  # fmt: skip
    return y, mask


def _forward_fake(
    x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend
):
    c, (h, w) = x.shape[1], size
    rows, cols = (h * w, c) if channels_last else (c * h, w)  # unlike in scale_bias_act, see csrc/upfirdn2d_act.h
    return empty_image(x, size, channels_last), empty_mask(x, rows, cols, alpha, clamp)


def _placed(t: Tensor | None, backend: str) -> Tensor | None:
    """t, or where a GPU could not read 16 bytes of it at once, a copy in channels_last (images) or contiguous memory"""
    if t is None or backend == "cpu":
        return t
    t = t.contiguous(memory_format=torch.channels_last if t.ndim == 4 and t.shape[1] > 1 else torch.contiguous_format)
    return t if t.data_ptr() % 16 == 0 else t.clone()


def _grad(
    dy, x, f, scale, mask, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend,
    by_x, by_scale, by_b, by_noise,
):  # fmt: skip
    fir = FirArguments(up, down, start, size, flip, fir_gain)
    if backend != "cpu":
        options = channels_last, alpha, gain, clamp, backend
        return _grad_on_gpu(dy, x, f, scale, mask, fir, options, by_x, by_scale, by_b, by_noise)
    kernels = backends.kernels("upfirdn2d_act", backend)
    n, c, h, w = dy.shape
    # A kernel writes one partial sum for each slot.
    slots = kernels.upfirdn2d_act_grad_slots(n * c, h * w, size[0] * size[1])
    d_scale, db, d_noise = (
        dy.new_zeros((slots, *shape), dtype=torch.float64) if wanted else None
        for wanted, shape in ((by_scale, (n, c)), (by_b, (n, c)), (by_noise, (n, 1, h, w)))
    )
    dx = empty_image(dy, size, channels_last) if by_x else None
    format = torch.channels_last if channels_last else torch.contiguous_format
    kernels.upfirdn2d_act_grad(
        *kernel_arguments(dy, f, dx, fir, channels_last),
        None if x is None else x.contiguous(memory_format=format), as_kernel_input(scale, dy.dtype),
        *slope_and_keep(mask, alpha, clamp), d_scale, db, d_noise, alpha, gain,
    )  # fmt: skip
    dtype = wide(dy.dtype)
    return (
        dx if by_x else dy.new_empty(0),
        d_scale.sum(0).to(dtype) if by_scale else dy.new_empty(0, dtype=dtype),
        db.sum((0, 1)).to(dtype) if by_b else dy.new_empty(0, dtype=dtype),
        d_noise.sum(0).to(dtype) if by_noise else dy.new_empty(0, dtype=dtype),
    )


def _grad_on_gpu(dy, x, f, scale, mask, fir, options, by_x, by_scale, by_b, by_noise):
    """Two passes: dz = m * dy with its sums, then the transposed filter, the scale, and the products of d_scale"""
    channels_last, *_, backend = options
    filtered = by_x or by_scale
    dz, _, db, d_noise = operators.scale_bias_act_grad(dy, None, None, mask, *options, filtered, False, by_b, by_noise)
    dtype, (n, c) = wide(dy.dtype), dy.shape[:2]
    dx = empty_image(dy, fir.size, channels_last) if by_x else None
    products = None
    if filtered:
        kernels = backends.kernels("upfirdn2d_act", backend)
        if by_scale:
            # A kernel writes one partial sum for each slot.
            products = dy.new_empty((kernels.upfirdn2d_scaled_slots(n * c, *fir.size), n, c), dtype=dtype)
        kernels.upfirdn2d_scaled(
            *kernel_arguments(dz, f, dx, fir, channels_last), _placed(x if by_scale else None, backend),
            _placed(as_kernel_input(scale, dy.dtype), backend), products,
        )  # fmt: skip
    return (
        dy.new_empty(0) if dx is None else dx,
        dy.new_empty(0, dtype=dtype) if products is None else products.sum(0),
        db,
        d_noise,
    )


def _grad_fake(
    dy, x, f, scale, mask, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend,
    by_x, by_scale, by_b, by_noise,
):  # fmt: skip
    dx = empty_image(dy, size, channels_last) if by_x else dy.new_empty(0)
    return dx, *empty_sums(dy, by_scale, by_b, by_noise)


_FIR = "int[] up, int[] down, SymInt[] start, SymInt[] size, bool flip, float fir_gain"
_OPTIONS = f"{_FIR}, bool channels_last, float alpha, float gain, float clamp, str backend"
define(
    f"upfirdn2d_act(Tensor x, Tensor f, Tensor? scale, Tensor? b, Tensor? noise, {_OPTIONS}) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
define(
    f"upfirdn2d_act_grad(Tensor dy, Tensor? x, Tensor f, Tensor? scale, Tensor mask, {_OPTIONS},"
    " bool by_x, bool by_scale, bool by_b, bool by_noise) -> (Tensor, Tensor, Tensor, Tensor)",
    _grad,
    _grad_fake,
)
