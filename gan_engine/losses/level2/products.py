"""Rules for products of an activation with weights: linear layers, matrices, factors and divisors."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.level2.linear import linear, record_linear
from gan_engine.losses.level2.plain_steps import record_factor, record_layer
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import described, rule, why_not
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
    if function is F.linear and weight.ndim == 2:
        return record_layer(input, weight, bias)

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


@rule("matmul", "__rmatmul__", "bmm", "mm", "mv")
def matmul(function: Callable, input: Any, other: Any) -> TracedTensor:
    if function.__name__ == "__rmatmul__":
        input, other = other, input
    if isinstance(input, TracedTensor) and isinstance(other, TracedTensor):
        raise NotPiecewiseLinear(_TWO_ACTIVATIONS)
    if isinstance(input, TracedTensor):
        if other.ndim == 2 and input.ndim >= 2:
            return linear_layer(F.linear, input, other.t())
        refuse_more_dimensions(input, other)
        if input.ndim < 2:
            raise NotPiecewiseLinear("matmul sums over the batch")
    else:
        if other.ndim < 3:
            raise NotPiecewiseLinear("matmul of a matrix with an activation sums over the batch")
        refuse_more_dimensions(other, input)
    return linear(torch.matmul, input, other)


@rule("addmm", "baddbmm", "addmv")
def addmm(function: Callable, input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> TracedTensor:
    """beta * input + alpha * mat1 @ mat2"""
    traced = isinstance(mat1, TracedTensor) or isinstance(mat2, TracedTensor)
    is_bias = not isinstance(input, TracedTensor) and (input.ndim == 1 or (input.ndim == 2 and len(input) == 1))
    if isinstance(mat1, TracedTensor) and function.__name__ == "addmm" and is_bias and beta == alpha == 1:
        return linear_layer(F.linear, mat1, mat2.t(), input.reshape(-1).expand(mat2.shape[1]))
    product: Any = matmul(torch.matmul, mat1, mat2) if traced else torch.matmul(mat1, mat2)
    product = product if alpha == 1 else product * alpha
    return product + (input if beta == 1 else input * beta)


@rule("einsum")
def einsum(function: Callable, equation: Any, *operands: Any) -> TracedTensor:
    tensors = list(operands[0]) if len(operands) == 1 and not isinstance(operands[0], Tensor) else list(operands)
    if not isinstance(equation, str):
        raise NotPiecewiseLinear("einsum: want an equation that is a string")
    activations = [i for i, x in enumerate(tensors) if isinstance(x, TracedTensor)]
    if len(activations) > 1:
        raise NotPiecewiseLinear(_TWO_ACTIVATIONS)
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    own = inputs.split(",")[activations[0]]
    if not arrow:
        letters = inputs.replace(",", "").replace(".", "")
        result = "..." * ("..." in inputs) + "".join(sorted(c for c in letters if letters.count(c) == 1))
    ellipses = [i for i, letters in enumerate(inputs.split(",")) if letters.startswith("...")]
    starts = own.startswith("...") and result.startswith("...") and ellipses == activations
    named = own[:1].isalpha() and result[:1] == own[0] and result.count(own[0]) == 1
    if not (starts or named):
        raise NotPiecewiseLinear(f"einsum {equation} moves the batch from dimension 0, or sums over it")
    if starts and tensors[activations[0]].ndim == len(own) - 3:  # the dots stand for nothing
        raise NotPiecewiseLinear(f"einsum {equation} sums over the batch")
    return linear(function, equation, *tensors)


@rule("bilinear")
def bilinear(function: Callable, input1: Any, input2: Any, weight: Any, bias: Any = None) -> TracedTensor:
    y = linear(function, input1, input2, weight, None)
    return y if bias is None else y + bias


@rule("grid_sample")
def grid_sample(function: Callable, input: Any, grid: Any, *args: Any, **kwargs: Any) -> TracedTensor:
    """The image at positions that do not depend on it. Any mode: all are linear in the image."""
    refuse_traced("grid", grid)
    return linear(function, input, grid, *args, **kwargs)


@rule("batch_norm")
def batch_norm(
    function: Callable,
    input: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> TracedTensor:
    """In eval() it is a scale and a shift for each channel."""
    if training or running_mean is None:
        raise NotPiecewiseLinear(why_not(described(function)))
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    scale, shift = (t.reshape([-1] + [1] * (input.ndim - 2)) for t in (scale, shift))
    dtype, added = input.value.dtype, shift.detach()

    def scaled(x: Tensor, scale: Tensor) -> Tensor:
        return (x * scale).to(dtype)

    def normalised(x: Tensor, scale: Tensor) -> Tensor:
        return (x * scale + added).to(dtype)

    return record_linear(scaled, (input, scale), {}, offset=shift, with_offset=normalised, result_is_fresh=True)


@rule("instance_norm")
def instance_norm(
    function: Callable,
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> TracedTensor:
    """In eval(), if it has kept running statistics, it is the same as a batch norm."""
    if use_input_stats:
        raise NotPiecewiseLinear(why_not(described(function)))
    return batch_norm(torch.batch_norm, input, running_mean, running_var, weight, bias, False, momentum, eps)


@rule("mul", "multiply", in_place=True)
def mul(function: Callable, input: Any, other: Any) -> TracedTensor:
    if isinstance(input, TracedTensor) and isinstance(other, TracedTensor):
        raise NotPiecewiseLinear(_TWO_ACTIVATIONS)
    x, factor = (input, other) if isinstance(input, TracedTensor) else (other, input)
    refuse_more_dimensions(x, factor)
    return factored(x, factor)


def factored(x: TracedTensor, factor: Any) -> TracedTensor:
    """x * factor, where the factor is no activation"""
    learned = isinstance(factor, Tensor) and factor.requires_grad
    return linear(torch.mul, x, factor) if learned else record_factor(x, factor)


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
