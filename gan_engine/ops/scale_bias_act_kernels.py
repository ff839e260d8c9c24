"""The kernels of scale_bias_act as PyTorch operators without autograd.

A kernel sees an image as rows and columns: [C, H * W], or [H * W, C] in channels_last (csrc/scale_bias_act.h).
"""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import define, wide


def empty_mask(x: Tensor, rows: int, cols: int, alpha: float, clamp: float) -> Tensor:
    """Memory for the bits of N images of rows and columns, N as in x: [planes, N, rows, bytes]."""
    return x.new_empty(((alpha != 1) + (clamp >= 0), x.shape[0], rows, (cols + 15) // 16 * 2), dtype=torch.uint8)


def slope_and_keep(mask: Tensor, alpha: float, clamp: float) -> tuple[Tensor | None, Tensor | None]:
    """The planes of a mask: the bits of the slope and the bits of the clamp, each None if the mask has none."""
    return mask[0] if alpha != 1 else None, mask[-1] if clamp >= 0 else None


def as_kernel_input(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """scale, b or noise as the kernels read them with an x of `dtype`: contiguous, in float32 (float64 for float64)"""
    return None if t is None else t.detach().to(wide(dtype)).contiguous()


def empty_sums(dy: Tensor, by_scale: bool, by_b: bool, by_noise: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for d_scale [N, C], db [C] and d_noise [N, 1, H, W]; a gradient that is not wanted is [0]."""
    n, c, h, w = dy.shape
    dtype = wide(dy.dtype)
    return (
        dy.new_empty((n, c) if by_scale else 0, dtype=dtype),
        dy.new_empty(c if by_b else 0, dtype=dtype),
        dy.new_empty((n, 1, h, w) if by_noise else 0, dtype=dtype),
    )


def _empty_like(x: Tensor, channels_last: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _in_format(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _rows_and_cols(x: Tensor, channels_last: bool) -> tuple[int, int]:
    _, c, h, w = x.shape
    return (h * w, c) if channels_last else (c, h * w)


def _forward(x, scale, b, noise, channels_last, alpha, gain, clamp, backend):
    y = _empty_like(x, channels_last)
    rows, cols = _rows_and_cols(x, channels_last)
    mask = empty_mask(x, rows, cols, alpha, clamp)
    if x.numel() > 0:
        scale, b, noise = (as_kernel_input(t, x.dtype) for t in (scale, b, noise))
        backends.kernels("scale_bias_act", backend).scale_bias_act(
            _in_format(x, channels_last), scale, b, noise, y, *slope_and_keep(mask, alpha, clamp),
            x.shape[0], rows, cols, 0 if noise is None else noise.shape[0], x.dtype, channels_last,
            alpha, gain, clamp,
        )  # fmt: skip
    return y, mask


def _forward_fake(x, scale, b, noise, channels_last, alpha, gain, clamp, backend):
    return _empty_like(x, channels_last), empty_mask(x, *_rows_and_cols(x, channels_last), alpha, clamp)


def _grad(dy, x, scale, mask, channels_last, alpha, gain, clamp, backend, by_x, by_scale, by_b, by_noise):
    dx, d_scale, db, d_noise = _grad_fake(
        dy, x, scale, mask, channels_last, alpha, gain, clamp, backend, by_x, by_scale, by_b, by_noise
    )
    if dy.numel() == 0:
        return dx, d_scale.zero_(), db.zero_(), d_noise.zero_()
    n, c, h, w = dy.shape
    rows, cols = _rows_and_cols(dy, channels_last)
    kernels = backends.kernels("scale_bias_act", backend)
    # A kernel writes one partial sum for each slot.
    slots = kernels.scale_bias_act_grad_slots(n, rows, cols)
    by_channel, by_pixel = ((slots, n, c), (1, n, h * w)) if channels_last else ((1, n, c), (slots, n, h * w))
    products = d_scale.new_empty(by_channel) if by_scale else None
    sums = db.new_empty(by_channel) if by_b else None
    across = d_noise.new_empty(by_pixel) if by_noise else None
    kernels.scale_bias_act_grad(
        _in_format(dy, channels_last), None if x is None else _in_format(x, channels_last),
        as_kernel_input(scale, dy.dtype), *slope_and_keep(mask, alpha, clamp), dx if by_x else None, products, sums,
        across, slots, n, rows, cols, dy.dtype, channels_last, alpha, gain,
    )  # fmt: skip
    return (
        dx,
        products.sum(0) if by_scale else d_scale,
        sums.sum((0, 1)) if by_b else db,
        across.sum(0).reshape(n, 1, h, w) if by_noise else d_noise,
    )


def _grad_fake(dy, x, scale, mask, channels_last, alpha, gain, clamp, backend, by_x, by_scale, by_b, by_noise):
    dx = _empty_like(dy, channels_last) if by_x else dy.new_empty(0)
    return dx, *empty_sums(dy, by_scale, by_b, by_noise)


def _second(
    dy, x, scale, v_x, v_scale, v_b, v_noise, mask, channels_last, alpha, gain, clamp, backend, by_dy, by_x, by_scale
):
    d_dy, d_x = (_empty_like(dy, channels_last) if by else dy.new_empty(0) for by in (by_dy, by_x))
    d_scale, _, _ = empty_sums(dy, by_scale, False, False)
    if dy.numel() == 0:
        return d_dy, d_x, d_scale.zero_()
    n, c, _, _ = dy.shape
    rows, cols = _rows_and_cols(dy, channels_last)
    kernels = backends.kernels("scale_bias_act", backend)
    slots = kernels.scale_bias_act_grad_slots(n, rows, cols)
    products = d_scale.new_empty((slots if channels_last else 1, n, c)) if by_scale else None
    images = (dy if by_x or by_scale else None, x, v_x)
    read_dy, x, v_x = (None if t is None else _in_format(t, channels_last) for t in images)
    scale, v_scale, v_b, v_noise = (as_kernel_input(t, dy.dtype) for t in (scale, v_scale, v_b, v_noise))
    kernels.scale_bias_act_second(
        read_dy, x, scale, v_x, v_scale, v_b, v_noise, *slope_and_keep(mask, alpha, clamp), d_dy if by_dy else None,
        d_x if by_x else None, products, slots, n, rows, cols, 0 if v_noise is None else v_noise.shape[0], dy.dtype,
        channels_last, alpha, gain,
    )  # fmt: skip
    return d_dy, d_x, products.sum(0) if by_scale else d_scale


def _second_fake(
    dy, x, scale, v_x, v_scale, v_b, v_noise, mask, channels_last, alpha, gain, clamp, backend, by_dy, by_x, by_scale
):
    d_dy, d_x = (_empty_like(dy, channels_last) if by else dy.new_empty(0) for by in (by_dy, by_x))
    d_scale, _, _ = empty_sums(dy, by_scale, False, False)
    return d_dy, d_x, d_scale


define(
    "scale_bias_act(Tensor x, Tensor? scale, Tensor? b, Tensor? noise, bool channels_last, float alpha, float gain,"
    " float clamp, str backend) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
define(
    "scale_bias_act_grad(Tensor dy, Tensor? x, Tensor? scale, Tensor mask, bool channels_last, float alpha, float gain,"
    " float clamp, str backend, bool by_x, bool by_scale, bool by_b, bool by_noise)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _grad,
    _grad_fake,
)
define(
    "scale_bias_act_second(Tensor dy, Tensor? x, Tensor? scale, Tensor? v_x, Tensor? v_scale, Tensor? v_b,"
    " Tensor? v_noise, Tensor mask, bool channels_last, float alpha, float gain, float clamp, str backend,"
    " bool by_dy, bool by_x, bool by_scale) -> (Tensor, Tensor, Tensor)",
    _second,
    _second_fake,
)
