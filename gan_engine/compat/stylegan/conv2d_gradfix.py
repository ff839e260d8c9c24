"""Convolutions whose weights can be left out of a backward pass. `enabled` changes nothing: gradients always have every
order.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from gan_engine.ops import convolution
from gan_engine.ops.kernel_op import Function

enabled = False
weight_gradients_disabled = False


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """Backward passes inside give no gradient to the weights of convolutions of this module, unless `disable` is False.

    `torch.autograd.grad` by the images alone leaves the weights out by itself, inside and outside.
    """
    global weight_gradients_disabled
    before = weight_gradients_disabled
    weight_gradients_disabled = before or disable
    try:
        yield
    finally:
        weight_gradients_disabled = before


class _Gate(Function):
    """The weight itself; its gradient is undefined inside of `no_weight_gradients`."""

    @staticmethod
    def forward(weight):
        return weight.expand_as(weight)  # view_as changes the strides of sides of 1, which PyTorch refuses in float64

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None) -> Tensor | None:
        return None if weight_gradients_disabled else gradient


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """torch.nn.functional.conv2d, on the backend that the chooser finds"""
    return convolution.conv2d(input, _Gate.apply(weight), bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """torch.nn.functional.conv_transpose2d, on the backend that the chooser finds"""
    options = stride, padding, output_padding, groups, dilation
    return convolution.conv_transpose2d(input, _Gate.apply(weight), bias, *options)
