"""Convolutions with a stride, each pass in the memory layout in which it is the fastest.

On CPUs and in float32, y and dx of a strided or transposed convolution are faster in channels_last, and the gradient by
the weight is faster in contiguous memory (256 -> 256 channels, 3x3, stride 2, 32x32 from or to 65x65, batch 8, AVX-512,
one thread, milliseconds, 2026-11):

                       y     dx    dweight
    contiguous         72    76    64
    channels_last      52    46    89

More than the change of layout between them costs: `relayout` moves those 34 MB in 6. Elsewhere these are the
convolutions of PyTorch.

conv2d.py stands apart: its op takes the place of PyTorch's in networks of any make, in the layouts that they chose.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from gan_engine import native
from gan_engine.ops.conv2d import Call, Wgrad, weight_gradients
from gan_engine.ops.kernel_op import Function, define, layout, operators

# With fewer channels than this the layouts do not differ by what changing them costs (same measurement).
FEWEST_CHANNELS = 32


def conv2d(x: Tensor, weight: Tensor, *, stride: int, padding: int = 0) -> Tensor:
    """F.conv2d, x [N, I, H, W], weight [O, I, kh, kw]; channels_last where x is. Gradients: every order in both."""
    if not _mixes(x, weight, stride):
        return F.conv2d(x, weight, stride=stride, padding=padding)
    return _strided_convolution(x, weight, Call.direct(2, stride, padding))


def conv_transpose2d(x: Tensor, weight: Tensor, *, stride: int, padding: int = 0) -> Tensor:
    """F.conv_transpose2d, x [N, I, H, W], weight [I, O, kh, kw]; channels_last where x is. Gradients: as `conv2d`."""
    if not _mixes(x, weight, stride):
        return F.conv_transpose2d(x, weight, stride=stride, padding=padding)
    return _strided_convolution(x, weight, Call.of_transposed(2, stride, padding))


def _mixes(x: Tensor, weight: Tensor, stride: int) -> bool:
    return (
        stride > 1
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and min(weight.shape[:2]) >= FEWEST_CHANNELS
        and native.WHY_NO_CPU is None
        and not torch.is_autocast_enabled("cpu")  # whose casts are PyTorch's to make
    )


def _strided_convolution(x: Tensor, weight: Tensor, call: Call) -> Tensor:
    if has_torch_function_unary(x):
        return handle_torch_function(_strided_convolution, (x,), x, weight, call)
    return _convolution(x, weight, call)


# Autograd: the gradient by x is the other convolution with the same weight, so one Function is closed in x; the
# gradient by the weight is that of conv2d.py, which has gradients again.


class _Convolution(Function):
    @staticmethod
    def forward(x, weight, call):
        y = torch.convolution(_in_layout(x, True), weight, None, *call)
        return _in_layout(y, layout(x) == torch.channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, weight, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        if dy is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = _Convolution.apply(dy, weight, _back(ctx.call, dy, x, weight))
        if weight_gradients() and ctx.needs_input_grad[1]:
            # PyTorch takes the layout from the weight as well, of which it reads nothing but the shape here.
            like = torch.empty_like(weight, memory_format=torch.contiguous_format)
            dweight = Wgrad.apply(_Relayout.apply(x, False), _Relayout.apply(dy, False), like, ctx.call)
        return dx, dweight, None


def _back(call: Call, dy: Tensor, x: Tensor, weight: Tensor) -> Call:
    """The convolution that leads from dy to dx, whose size of several that fit the output padding tells."""
    rest = (0, 0)
    if not call.transposed:
        sides = zip(x.shape[2:], dy.shape[2:], weight.shape[2:], call.stride, call.padding, strict=True)
        rest = tuple(n - ((m - 1) * stride + k - 2 * padding) for n, m, k, stride, padding in sides)
    return call._replace(transposed=not call.transposed, output_padding=rest)


class _Relayout(Function):
    """x itself, in the other layout: to a gradient that is nothing."""

    @staticmethod
    def forward(x, channels_last):
        y = _in_layout(x, channels_last)
        return y.view_as(y) if y is x else y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        return dy, None


# torch.compile must see one node here: traced into, nested Functions lose their second order under torch.func.grad.
@torch.compiler.allow_in_graph
def _convolution(x: Tensor, weight: Tensor, call: Call) -> Tensor:
    return _Convolution.apply(x, weight, call)


def transposed(weight: Tensor) -> Tensor:
    """[I, O, kh, kw] of weight [O, I, kh, kw], the taps in reverse order: as a transposed convolution takes it"""
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and native.WHY_NO_CPU is None:
        return _transposed(weight)
    return weight.transpose(0, 1).flip([2, 3])


class _Transposed(Function):
    """Its own inverse, and so its own gradient."""

    @staticmethod
    def forward(weight):
        return operators.transposed_weight(weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.channels_last = layout(inputs[0]) == torch.channels_last

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Tensor | None:
        return None if dy is None else _Relayout.apply(_Transposed.apply(dy), ctx.channels_last)


@torch.compiler.allow_in_graph
def _transposed(weight: Tensor) -> Tensor:
    return _Transposed.apply(weight)


def _in_layout(x: Tensor, channels_last: bool) -> Tensor:
    """x, dense in the layout asked for."""
    wanted, other = torch.contiguous_format, torch.channels_last
    if channels_last:
        wanted, other = other, wanted
    if x.is_contiguous(memory_format=wanted):
        return x
    if x.dtype == torch.float32 and x.is_contiguous(memory_format=other) and x.numel() > 0:
        return operators.relayout(x, channels_last)
    return x.contiguous(memory_format=wanted)


# The kernel as a PyTorch operator without autograd: x is dense in the other layout.


def _relayout(x, channels_last):
    y = _relayout_fake(x, channels_last)
    n, c, h, w = x.shape
    native.cpu.relayout(x, y, n, *((c, h * w) if channels_last else (h * w, c)), 1)
    return y


def _relayout_fake(x, channels_last):
    return torch.empty_like(x, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _transposed_weight(weight):
    y = _transposed_weight_fake(weight)
    o, i, h, w = weight.shape
    if weight.numel() > 0:
        native.cpu.relayout(weight.contiguous(), y, 1, o, i * h * w, h * w)
    return y


def _transposed_weight_fake(weight):
    o, i, h, w = weight.shape
    return weight.new_empty((i, h, w, o)).permute(0, 3, 1, 2)


define("transposed_weight(Tensor weight) -> Tensor", _transposed_weight, _transposed_weight_fake)
define("relayout(Tensor x, bool channels_last) -> Tensor", _relayout, _relayout_fake)
