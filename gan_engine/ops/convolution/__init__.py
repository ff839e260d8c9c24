"""Convolutions for our own layers: PyTorch's, unless the chooser has a faster way (maps.py)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import has_torch_function

from gan_engine import backends
from gan_engine.ops.convolution import forms, maps
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.convolution.autograd import convolution
from gan_engine.ops.convolution.relayout import in_layout
from gan_engine.ops.kernel_op import Function, layout, operators
from gan_engine.ops.one_node import one_node

Sides = int | tuple[int, int]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Sides = 0,
    dilation: Sides = 1,
    groups: int = 1,
) -> Tensor:
    """F.conv2d, x [N, I, H, W], weight [O, I / groups, kh, kw], padding in numbers. Gradients: every order in all."""
    options = stride, padding, dilation, groups
    return _by_chosen_backend("conv2d", ConvolutionArguments.from_conv, F.conv2d, x, weight, bias, options)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sides = 1,
    padding: Sides = 0,
    output_padding: Sides = 0,
    groups: int = 1,
    dilation: Sides = 1,
) -> Tensor:
    """F.conv_transpose2d, x [N, I, H, W], weight [I, O / groups, kh, kw]. Gradients: as `conv2d`."""
    options = stride, padding, output_padding, groups, dilation
    read, of_pytorch = ConvolutionArguments.from_conv_transpose, F.conv_transpose2d
    return _by_chosen_backend("conv_transpose2d", read, of_pytorch, x, weight, bias, options)


def _by_chosen_backend(op, read, of_pytorch, x, weight, bias, options) -> Tensor:
    """The function `of_pytorch`, or our autograd functions on the backend "cpu". `read` makes ConvolutionArguments."""
    # Everything that overrides torch functions must see the function of PyTorch. It alone takes an image [I, H, W]
    # without a batch.
    tensors = x, weight, bias
    if x.ndim == 4 and not has_torch_function(tensors):
        request = maps.MapRequest(forms.for_forward, tensors, weight, (read, options))
        # The first question takes a third of the time of the second.
        if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled("cpu"):
            request.autocast = torch.get_autocast_dtype("cpu")
        if backends.choose(op, x, None, request) == "cpu":
            way = request.way("cpu")
            if way == maps.IN_FLOAT32 and request.autocast is not None:
                x, weight, bias = (t if t is None else t.to(request.autocast) for t in (x, weight, bias))
            # Where PyTorch computes, autocast casts what it sees PyTorch's function take.
            if way == maps.IN_FLOAT32 or request.autocast is None:
                return convolution(x, weight, bias, request.arguments, None, way)
    return of_pytorch(x, weight, bias, *options)


def transposed(weight: Tensor, backend: str | None = None) -> Tensor:
    """weight [O, I, kh, kw] as a transposed convolution takes it: [I, O, kh, kw], with the taps in reverse order"""
    if backends.choose("transposed_weight", weight, backend) == "cpu":
        return _transposed(weight)
    return weight.transpose(0, 1).flip([2, 3])


def _no_gain(backend: str, weight: Tensor, arguments: None) -> str | None:
    return None if weight.dtype == torch.float32 else "has a kernel for float32 alone; the rest is PyTorch's operators"


backends.register("transposed_weight", has=("cpu",), no_gain=_no_gain)


class _Transposed(Function):
    """The map is its own inverse, and so its own gradient."""

    @staticmethod
    def forward(weight, channels_last):
        return in_layout(operators.transposed_weight(weight), channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.channels_last = layout(inputs[0]) == torch.channels_last

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        return None if dy is None else _Transposed.apply(dy, ctx.channels_last), None


# torch.compile must see one node here: traced into, nested Functions lose their second order under torch.func.grad.
@one_node
def _transposed(weight: Tensor) -> Tensor:
    return _Transposed.apply(weight, True)
