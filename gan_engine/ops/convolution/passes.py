"""The three kernels of a convolution, each the fastest that there is for its call.

On CPUs and in float32 that may be minimal filtering, of winograd.py. PyTorch's own kernels, which run all else, are for
a convolution with a stride or a transposed one faster in one memory layout than in the other: y and dx in
channels_last, and the gradient by the weight in contiguous memory (256 -> 256 channels, 3x3, stride 2, 32x32 from or to
65x65, batch 8, AVX-512, one thread, milliseconds, 2026-11):

                       y     dx    dweight
    contiguous         72    76    64
    channels_last      52    46    89

More than the change of layout between them costs: `relayout` moves those 34 MB in 6.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.convolution import winograd
from gan_engine.ops.convolution.relayout import in_layout
from gan_engine.ops.kernel_op import layout
from gan_engine.system import native

# With fewer channels than these the layouts do not differ by what changing them costs. (Steps of lapgan and pix2pix, of
# 32 to 128 channels, are 2 to 4 % slower in layouts of their own; that of StyleGAN2, of 512 where minimal filtering
# does not pay, 2 % faster.)
FEWEST_MIXED = 256


class Call(NamedTuple):
    """The arguments that torch.convolution and torch.ops.aten.convolution_backward have in common, in their order."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @classmethod
    def direct(cls, dims: int, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> "Call":
        """From the arguments of torch.nn.functional.conv1d, 2d and 3d."""
        given = (per_side(value, dims) for value in (stride, padding, dilation))
        return cls(*given, False, (0,) * dims, groups)

    @classmethod
    def of_transposed(
        cls, dims: int, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1
    ) -> "Call":
        """From the arguments of torch.nn.functional.conv_transpose1d, 2d and 3d."""
        given = (per_side(value, dims) for value in (stride, padding, dilation))
        return cls(*given, True, per_side(output_padding, dims), groups)


def per_side(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """A number for each of `dims` sides of an image, of which PyTorch takes one for all."""
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values


def gains(x: Tensor, w: Tensor, call: Call) -> bool:
    """Whether `fprop` runs anything but the kernel that PyTorch would."""
    return _mixes(x, w, call) or winograd.takes(x, w, call)


def fprop(x: Tensor, w: Tensor, b: Tensor | None, call: Call) -> Tensor:
    """y = F(x, w) + b, in the layout that PyTorch gives it: channels_last if x or w is"""
    y = winograd.fprop(x, w, b, call)
    if y is not None:
        return y
    if not _mixes(x, w, call):
        return torch.convolution(x, w, b, *call)
    last = torch.channels_last in (layout(x), layout(w))
    return in_layout(torch.convolution(in_layout(x, True), w, b, *call), last)


def dgrad(dy: Tensor, like: Tensor, w: Tensor, call: Call) -> Tensor:
    """dx = D(dy, w), in the shape and layout of `like`, of which nothing else is read"""
    dx = winograd.dgrad(dy, like, w, call)
    if dx is not None:
        return dx
    wanted = (True, False, False)
    if not _mixes(dy, w, call):
        return torch.ops.aten.convolution_backward(dy, like, w, None, *call, wanted)[0]
    last = torch.empty_like(like, memory_format=torch.channels_last)
    dx = torch.ops.aten.convolution_backward(in_layout(dy, True), last, w, None, *call, wanted)[0]
    return in_layout(dx, layout(like) == torch.channels_last)


def wgrad(dy: Tensor, x: Tensor, like: Tensor, call: Call) -> Tensor:
    """dw = W(x, dy), in the shape and layout of `like`, of which nothing else is read"""
    dw = winograd.wgrad(dy, x, like, call)
    if dw is not None:
        return dw
    wanted = (False, True, False)
    if not _mixes(x, like, call):
        return torch.ops.aten.convolution_backward(dy, x, like, None, *call, wanted)[1]
    contiguous = torch.empty_like(like, memory_format=torch.contiguous_format)
    x, dy = in_layout(x, False), in_layout(dy, False)
    dw = torch.ops.aten.convolution_backward(dy, x, contiguous, None, *call, wanted)[1]
    return in_layout(dw, layout(like) == torch.channels_last)


def _mixes(x: Tensor, w: Tensor, call: Call) -> bool:
    return (
        max(call.stride) > 1
        and x.ndim == 4
        and x.is_cpu
        and x.dtype == w.dtype == torch.float32
        and min(w.shape[:2]) >= FEWEST_MIXED
        and native.WHY_NO_CPU is None
        and backends.open_to("cpu")
    )
