"""The kernels of weight_squares as PyTorch operators without autograd."""

import torch
from torch import Tensor

from gan_engine.ops.kernel_op import define, in_layout, layout, wide
from gan_engine.system import native


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """[outer, taps, inner] of a dense x"""
    o, i, h, w = x.shape
    if h * w == 1:
        return 1, 1, o * i
    return (o, h * w, i) if layout(x) == torch.channels_last else (o * i, h * w, 1)


def _taps_dot(x, y):
    dots = _taps_dot_fake(x, y)
    if x.numel() == 0:
        return dots.zero_()
    x = x.contiguous(memory_format=layout(x))
    native.cpu.taps_dot(x, in_layout(y, x.stride()), dots, *_sizes(x), x.dtype)
    return dots


def _taps_dot_fake(x, y):
    return x.new_empty(x.shape[:2], dtype=wide(x.dtype))


def _taps_scale(x, factors):
    x = x.contiguous(memory_format=layout(x))
    out = torch.empty_like(x)
    if x.numel() > 0:
        native.cpu.taps_scale(x, factors.contiguous(), out, *_sizes(x), x.dtype)
    return out


def _taps_scale_fake(x, factors):
    return torch.empty_like(x, memory_format=layout(x))


define("taps_dot(Tensor x, Tensor y) -> Tensor", _taps_dot, _taps_dot_fake)
define("taps_scale(Tensor x, Tensor factors) -> Tensor", _taps_scale, _taps_scale_fake)
