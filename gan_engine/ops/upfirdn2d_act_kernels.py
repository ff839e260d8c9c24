"""The kernels of upfirdn2d_act as PyTorch operators without autograd."""

import torch

from gan_engine import backends
from gan_engine.ops.fir import FirArguments
from gan_engine.ops.kernel_op import define, wide
from gan_engine.ops.scale_bias_act_kernels import as_kernel_input, empty_mask, empty_sums, slope_and_keep
from gan_engine.ops.upfirdn2d_kernels import empty_image, kernel_arguments


def _forward(x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend):
    y, mask = _forward_fake(
        x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend
    )
    backends.kernels("upfirdn2d_act", backend).upfirdn2d_act(
        *kernel_arguments(x, f, y, FirArguments(up, down, start, size, flip, fir_gain), channels_last),
        *(as_kernel_input(t, x.dtype) for t in (scale, b, noise)), *slope_and_keep(mask, alpha, clamp),
        0 if noise is None else noise.shape[0], alpha, gain, clamp,
    )  # fmt: skip
    return y, mask


def _forward_fake(
    x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend
):
    c, (h, w) = x.shape[1], size
    rows, cols = (h * w, c) if channels_last else (c * h, w)  # unlike in scale_bias_act, see csrc/upfirdn2d_act.h
    return empty_image(x, size, channels_last), empty_mask(x, rows, cols, alpha, clamp)


def _grad(
    dy, x, f, scale, mask, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend,
    by_x, by_scale, by_b, by_noise,
):  # fmt: skip
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
        *kernel_arguments(dy, f, dx, FirArguments(up, down, start, size, flip, fir_gain), channels_last),
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
