"""The kernel of filtered_lrelu as PyTorch operators without autograd: one writes a mask, and one reads it."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.fir import FirArguments
from gan_engine.ops.kernel_op import define
from gan_engine.ops.scale_bias_act_kernels import as_kernel_input, slope_and_keep
from gan_engine.ops.upfirdn2d_kernels import empty_image, filter_arguments, kernel_arguments


def _empty_mask(x: Tensor, size: list[int], channels_last: bool, alpha: float, clamp: float) -> Tensor:
    """Memory for the bits of u [N, C, H', W'] (csrc/filtered_lrelu.h): [planes, blocks, H', 2 * W'] bytes"""
    n, c = x.shape[:2]
    blocks = n * ((c + 15) // 16) if channels_last else (n * c + 15) // 16
    return x.new_empty(((alpha != 1) + (clamp >= 0), blocks, size[0], size[1] * 2), dtype=torch.uint8)


def _run(x, fu, fd, b, mask, first, second, channels_last, alpha, gain, clamp, backend, derives):
    y = empty_image(x, second.size, channels_last)
    if y.numel() == 0:
        return y
    if x.numel() == 0:
        return y.zero_()
    backends.kernels("filtered_lrelu", backend).filtered_lrelu(
        *kernel_arguments(x, fu, None, first, channels_last), None,
        *filter_arguments((*x.shape[:2], *first.size), x.dtype, fd, y, second, channels_last),
        as_kernel_input(b, x.dtype), *slope_and_keep(mask, alpha, clamp), derives, alpha, gain, clamp,
    )  # fmt: skip
    return y


def _forward(x, fu, fd, b, up, down, start, size, flip, fir_gain, *rest):
    *second, channels_last, alpha, gain, clamp, backend = rest
    first = FirArguments(up, down, start, size, flip, fir_gain)
    mask = _empty_mask(x, size, channels_last, alpha, clamp)
    options = first, FirArguments(*second), channels_last, alpha, gain, clamp, backend
    return _run(x, fu, fd, b, mask, *options, False), mask


def _forward_fake(x, fu, fd, b, up, down, start, size, flip, fir_gain, *rest):
    second, (channels_last, alpha, _, clamp, _) = rest[:6], rest[6:]
    y = empty_image(x, FirArguments(*second).size, channels_last)
    return y, _empty_mask(x, size, channels_last, alpha, clamp)


def _masked(x, fu, fd, mask, up, down, start, size, flip, fir_gain, *rest):
    *second, channels_last, alpha, gain, clamp, backend = rest
    first = FirArguments(up, down, start, size, flip, fir_gain)
    return _run(x, fu, fd, None, mask, first, FirArguments(*second), channels_last, alpha, gain, clamp, backend, True)


def _masked_fake(x, fu, fd, mask, up, down, start, size, flip, fir_gain, *rest):
    return empty_image(x, FirArguments(*rest[:6]).size, rest[6])


_FIRST = "int[] up, int[] down, SymInt[] start, SymInt[] size, bool flip, float fir_gain"
_SECOND = "int[] up2, int[] down2, SymInt[] start2, SymInt[] size2, bool flip2, float fir_gain2"
_OPTIONS = f"{_FIRST}, {_SECOND}, bool channels_last, float alpha, float gain, float clamp, str backend"
define(
    f"filtered_lrelu(Tensor x, Tensor fu, Tensor fd, Tensor? b, {_OPTIONS}) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
define(
    f"filtered_lrelu_masked(Tensor x, Tensor fu, Tensor fd, Tensor mask, {_OPTIONS}) -> Tensor",
    _masked,
    _masked_fake,
)
