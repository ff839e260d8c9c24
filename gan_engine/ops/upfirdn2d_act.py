"""FIR filtering of images with what a convolution has behind it: scale, bias, noise, activation, gain and clamp."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import check_tensors, define, layout, wide
from gan_engine.ops.scale_bias_act import (
    Call,
    affine,
    checked,
    empty_mask,
    plain,
    scale_bias_act,
    scale_bias_act_ref,
    slope_and_keep,
)
from gan_engine.ops.upfirdn2d import Fir, Padding, Pair, empty_image, kernel_arguments, upfirdn2d, upfirdn2d_ref
from gan_engine.ops.upfirdn2d import checked as checked_fir


def upfirdn2d_act(
    x: Tensor,
    f: Tensor | None,
    scale: Tensor | None = None,
    b: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    fir_gain: float = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(u * scale[n, c] + b[c] + noise[n, 0, h, w], alpha), -clamp, clamp), u = upfirdn2d(x, f)

    What stands behind the transposed convolution of an up-layer (Karras et al. 2020, arXiv:1912.04958, figure 2): the
    filter that takes the checkerboard away, demodulation, noise, bias and activation. On GPUs `upfirdn2d` and
    `scale_bias_act` run, one after the other. On CPUs all of it is one pass over memory, and so is the gradient:
    d_scale, the sum of m * dy * u, is that of g * x with g the transposed filter of m * dy, so u is never needed again
    (where x is not finite at a place that f never reads, d_scale is no number all the same).

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        f, up, down, padding, flip_filter: as in `upfirdn2d`; fir_gain is its gain, a factor on u.
        scale, b, noise, act, alpha, gain, clamp: as in `scale_bias_act`, of y.
        backend: see gan_engine.backends.

    Returns:
        y: [N, C, H', W'] as `upfirdn2d` has it. Half precision is computed in float32, and rounded once on CPUs.

    Saved for the gradient: one bit an element each for slope and clamp, and x where there is a scale.

    Raises:
        ValueError, TypeError, RuntimeError: what those two refuse.

    Gradients: every order in x, scale, b and noise; none in f.
    """
    check_tensors("upfirdn2d_act", x, f=f, scale=scale, b=b, noise=noise)
    f, fir, pads = checked_fir("upfirdn2d_act", x, f, up, down, padding, (0, 0, 0, 0), flip_filter, fir_gain)
    shape = (*x.shape[:2], *fir.size)
    options = checked("upfirdn2d_act", x, shape, scale, b, noise, act, alpha, gain, clamp)
    backend = backends.choose("upfirdn2d_act", x, backend)
    if backend == "reference":
        return upfirdn2d_act_ref(x, f, scale, b, noise, fir, pads, *options)
    if backend != "cpu" or x.numel() == 0:
        u = upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=fir_gain, backend=backend)
        return scale_bias_act(u, scale, b, noise=noise, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=backend)
    last = layout(x) == torch.channels_last
    return affine(x, f, scale, b, noise, Call(last, *options, backend, fir, fir.transposed(f, x.shape[2:])))


def upfirdn2d_act_ref(
    x: Tensor,
    f: Tensor,
    scale: Tensor | None,
    b: Tensor | None,
    noise: Tensor | None,
    fir: Fir,
    padding: list[int],
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """The definition of `upfirdn2d_act` in plain PyTorch."""
    options = {"up": fir.up, "down": fir.down, "padding": padding, "flip_filter": fir.flip, "gain": fir.gain}
    u = upfirdn2d_ref(x.to(wide(x.dtype)), f, **options)
    return scale_bias_act_ref(u, scale, b, noise, alpha, gain, clamp).to(x.dtype)


# The kernels as PyTorch operators without autograd, which `scale_bias_act` has.


def _matrix(c: int, size: list[int], channels_last: bool) -> tuple[int, int]:
    """rows and cols of a mask"""
    return (size[0] * size[1], c) if channels_last else (c * size[0], size[1])


def _forward(x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend):
    y, mask = _forward_fake(
        x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend
    )
    backends.kernels("upfirdn2d_act", backend).upfirdn2d_act(
        *kernel_arguments(x, f, y, Fir(up, down, start, size, flip, fir_gain), channels_last),
        *(plain(t, x.dtype) for t in (scale, b, noise)), *slope_and_keep(mask, alpha, clamp),
        0 if noise is None else noise.shape[0], alpha, gain, clamp,
    )  # fmt: skip
    return y, mask


def _forward_fake(
    x, f, scale, b, noise, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend
):
    mask = empty_mask(x, *_matrix(x.shape[1], size, channels_last), alpha, clamp)
    return empty_image(x, size, channels_last), mask


def _grad(
    dy, x, f, scale, mask, up, down, start, size, flip, fir_gain, channels_last, alpha, gain, clamp, backend,
    by_x, by_scale, by_b, by_noise,
):  # fmt: skip
    kernels = backends.kernels("upfirdn2d_act", backend)
    n, c, h, w = dy.shape
    slots = kernels.upfirdn2d_act_grad_slots(n * c, h * w, size[0] * size[1])
    d_scale, db, d_noise = (
        dy.new_zeros((slots, *shape), dtype=torch.float64) if wanted else None
        for wanted, shape in ((by_scale, (n, c)), (by_b, (n, c)), (by_noise, (n, 1, h, w)))
    )
    dx = empty_image(dy, size, channels_last) if by_x else None
    format = torch.channels_last if channels_last else torch.contiguous_format
    kernels.upfirdn2d_act_grad(
        *kernel_arguments(dy, f, dx, Fir(up, down, start, size, flip, fir_gain), channels_last),
        None if x is None else x.contiguous(memory_format=format), plain(scale, dy.dtype),
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
    n, c, h, w = dy.shape
    dtype = wide(dy.dtype)
    return (
        empty_image(dy, size, channels_last) if by_x else dy.new_empty(0),
        dy.new_empty((n, c) if by_scale else 0, dtype=dtype),
        dy.new_empty(c if by_b else 0, dtype=dtype),
        dy.new_empty((n, 1, h, w) if by_noise else 0, dtype=dtype),
    )


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
backends.register("upfirdn2d_act", kernels_of="scale_bias_act")
