"""Rules for products of an activation with weights: linear layers, matrices, factors and divisors."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.level2.linear import linear, record_linear
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import rule
from gan_engine.losses.level2.traced_tensor import TracedTensor, refuse_traced

_TWO_ACTIVATIONS = "the product of two activations is not linear"


def affine(
    function: Callable, input: Any, weight: Any, bias: Any = None, *args: Any, dim: int, **kwargs: Any
) -> TracedTensor:
    """A convolution or a matrix product, with a bias along `dim` of the result."""
    refuse_traced("weight", weight)
    refuse_traced("bias", bias)
    if input.ndim < 2:
        raise NotPiecewiseLinear(f"{function.__name__} of a tensor {list(input.shape)} sums over the batch")
    input, weight, bias = cast_by_autocast(input, weight, bias)

    def without_bias(x: Tensor, w: Tensor) -> Tensor:
        return function(x, w, None, *args, **kwargs)

    if bias is None:
        return linear(without_bias, input, weight)
    offset = bias.reshape([-1] + [1] * (input.ndim - 1 - dim)) if dim > 0 else bias
    detached = bias.detach()

    def with_bias(x: Tensor, w: Tensor) -> Tensor:
        return function(x, w, detached, *args, **kwargs)

    options = {"offset": offset, "with_offset": with_bias, "result_is_fresh": True}
    return record_linear(without_bias, (input, weight), {}, **options)


def cast_by_autocast(
    input: TracedTensor, weight: Tensor, bias: Tensor | None
) -> tuple[TracedTensor, Tensor, Tensor | None]:
    """The three in the dtype of autocast, where it is on."""
    device = input.value.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return input, weight, bias


@rule("linear")
def linear_layer(function: Callable, input: Any, weight: Any, bias: Any = None) -> TracedTensor:
    return affine(function, input, weight, bias, dim=-1)


@rule("matmul")
def matmul(function: Callable, input: Any, other: Any) -> TracedTensor:
    if isinstance(input, TracedTensor) and isinstance(other, TracedTensor):
        raise NotPiecewiseLinear(_TWO_ACTIVATIONS)
    if not isinstance(input, TracedTensor) or other.ndim > 2 or input.ndim < 2:
        raise NotPiecewiseLinear("matmul: want an activation times a matrix")
    return linear_layer(F.linear, input, other.t()) if other.ndim == 2 else linear(function, input, other)


@rule("mul", "multiply", in_place=True)
def mul(function: Callable, input: Any, other: Any) -> TracedTensor:
    if isinstance(input, TracedTensor) and isinstance(other, TracedTensor):
        raise NotPiecewiseLinear(_TWO_ACTIVATIONS)
    x, factor = (input, other) if isinstance(input, TracedTensor) else (other, input)
    refuse_more_dimensions(x, factor)
    return linear(torch.mul, x, factor)


@rule("div", "true_divide", in_place=True)
def div(function: Callable, input: Any, other: Any) -> TracedTensor:
    if isinstance(other, TracedTensor):
        raise NotPiecewiseLinear("a division by an activation is not linear")
    refuse_more_dimensions(input, other)
    return linear(torch.div, input, other)


@rule("neg")
def neg(function: Callable, input: Any) -> TracedTensor:
    return linear(torch.neg, input)


def refuse_more_dimensions(x: TracedTensor, y: Any) -> None:
    """Refuse a tensor y that x is broadcast to: the batch would no longer be in dimension 0."""
    if isinstance(y, Tensor) and y.ndim > x.ndim:
        raise NotPiecewiseLinear(f"{list(x.shape)} with {list(y.shape)} moves the batch from dimension 0")
