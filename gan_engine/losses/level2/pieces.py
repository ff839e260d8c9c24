"""Rules for functions with straight pieces that no kernel of gan_engine has: limits, slopes that are learned, masks.

The slope at a kink is that of autograd. Up to PyTorch 2.13 clamp lets a gradient through at its limits, and hardtanh
and relu6 never do. At an x of exactly 0, the first gradient of PyTorch's prelu has the learned slope, which is taken
here too. Its second gradient takes 1 there.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.level2.activations import activation, leaky_relu
from gan_engine.losses.level2.linear import linear, record_linear
from gan_engine.losses.level2.plain_steps import record_factor
from gan_engine.losses.level2.products import refuse_more_dimensions
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import NEW_SLOPES, rule
from gan_engine.losses.level2.sums import add
from gan_engine.losses.level2.traced_tensor import TracedTensor, refuse_traced
from gan_engine.ops.bias_act import bias_act
from gan_engine.ops.limits import CLAMP_PASSES


def where_inside(x: TracedTensor, inside: Tensor, y: Tensor | None = None) -> TracedTensor:
    """x where `inside`, and y, which the image has no slope in, at all other places. None: 0 there.

    `inside` holds truth values, or slopes. The mask is of the dtype of x, as a product with it takes a tenth of the
    time of torch.where on a CPU.
    """
    mask = inside.to(x.value.dtype)
    if y is None:
        return record_factor(x, mask)
    offset = y - x.value * mask
    value = offset.detach()

    def piece(v: Tensor, mask: Tensor) -> Tensor:
        return torch.addcmul(value, v, mask)

    return record_linear(torch.mul, (x, mask), {}, offset=offset, with_offset=piece, result_is_fresh=True)


@rule("abs", "absolute", in_place=True)
def absolute(function: Callable, input: Any) -> TracedTensor:
    return record_factor(input, input.value.sign().to(torch.int8))


@rule("clamp", "clip", in_place=True)
def clamp(function: Callable, input: Any, min: Any = None, max: Any = None) -> TracedTensor:
    symmetric = isinstance(max, int | float) and max > 0 and isinstance(min, int | float) and min == -max
    if symmetric and CLAMP_PASSES:
        return activation(bias_act, input, clamp=float(max))
    x = input.value
    slope = torch.ones_like(x)
    for limit in (min, max):
        refuse_traced("limit", limit)
        refuse_more_dimensions(input, limit)
    if min is not None:
        slope = slope * _slope_of_limit(x > min, x == min, min)
    if max is not None:
        slope = slope * _slope_of_limit(x < max, x == max, max)
    if not CLAMP_PASSES and isinstance(min, Tensor) and isinstance(max, Tensor):
        slope = torch.where((x == min) & (x == max), 1.0, slope)  # 1 / 2 for each limit
    return where_inside(input, slope, torch.clamp(x, min, max))


def _slope_of_limit(inside: Tensor, at_limit: Tensor, limit: Any) -> Tensor:
    if CLAMP_PASSES:
        return inside | at_limit
    return inside + at_limit / 2 if isinstance(limit, Tensor) else inside


@rule("clamp_min", in_place=True)
def clamp_min(function: Callable, input: Any, min: Any) -> TracedTensor:
    return clamp(torch.clamp, input, min)


@rule("clamp_max", in_place=True)
def clamp_max(function: Callable, input: Any, max: Any) -> TracedTensor:
    return clamp(torch.clamp, input, None, max)


@rule("hardtanh", in_place=True)
def hardtanh(function: Callable, input: Any, min_val: float = -1.0, max_val: float = 1.0) -> TracedTensor:
    x = input.value
    return where_inside(input, (x > min_val) & (x < max_val), F.hardtanh(x, min_val, max_val))


@rule("relu6", in_place=True)
def relu6(function: Callable, input: Any) -> TracedTensor:
    return hardtanh(F.hardtanh, input, 0.0, 6.0)


@rule("hardsigmoid", in_place=True)
def hardsigmoid(function: Callable, input: Any) -> TracedTensor:
    return relu6(F.relu6, input + 3) / 6


@rule("threshold", "_threshold", in_place=True)
def threshold(function: Callable, input: Any, threshold: float, value: float) -> TracedTensor:
    x = input.value
    return where_inside(input, x > threshold, F.threshold(x, threshold, value))


@rule("hardshrink")
def hardshrink(function: Callable, input: Any, lambd: float = 0.5) -> TracedTensor:
    return where_inside(input, input.value.abs() > lambd)


@rule("softshrink")
def softshrink(function: Callable, input: Any, lambd: float = 0.5) -> TracedTensor:
    return where_inside(input, input.value.abs() > lambd, F.softshrink(input.value, lambd))


@rule("prelu")
def prelu(function: Callable, input: Any, weight: Any) -> TracedTensor:
    refuse_traced("slope", weight)
    slope = weight.reshape([-1] + [1] * (input.ndim - 2)) if weight.numel() > 1 else weight.reshape(())
    positive = (input.value > 0).to(input.value.dtype)
    return linear(_sloped, input, positive, 1 - positive, slope)


def _sloped(x: Tensor, positive: Tensor, negative: Tensor, slope: Tensor) -> Tensor:
    return x * torch.addcmul(positive, negative, slope.to(x.dtype))


@rule("rrelu", in_place=True)
def rrelu(
    function: Callable, input: Any, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> TracedTensor:
    if training:
        raise NotPiecewiseLinear(f"rrelu {NEW_SLOPES}")
    return leaky_relu(F.leaky_relu, input, (lower + upper) / 2)


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", in_place=True)
def dropout(
    function: Callable, input: Any, p: float = 0.5, training: bool = True, *, train: bool = True
) -> TracedTensor:
    """The mask is drawn once, as autograd draws it, and holds in all passes."""
    if not (training and train) or p == 0:
        return input
    return record_factor(input, function(torch.ones_like(input.value), p, True))


@rule("gt", "ge", "lt", "le", "eq", "ne", "greater", "less", "sign", "isnan", "isfinite", "isinf")
def compared(function: Callable, *args: Any, **kwargs: Any) -> Tensor:
    """What has no slope in the image, as it is a step function: it is a constant for autograd too."""
    return function(*(x.value if isinstance(x, TracedTensor) else x for x in args), **kwargs)


@rule("where")
def where(function: Callable, condition: Any, input: Any, other: Any) -> TracedTensor:
    refuse_traced("condition", condition)
    if isinstance(input, TracedTensor) and isinstance(other, TracedTensor):
        if input.ndim != other.ndim:
            raise NotPiecewiseLinear(f"where of {list(input.shape)} and {list(other.shape)} ties samples together")
        refuse_more_dimensions(input, condition)
        return record_linear(torch.where, (condition, input, other), {}, jointly=True)
    x, constant, inside = (input, other, condition) if isinstance(input, TracedTensor) else (other, input, ~condition)
    for part in (condition, constant):
        refuse_more_dimensions(x, part)
    if isinstance(constant, int | float):
        constant = torch.full_like(x.value, constant)
    return add(torch.add, where_inside(x, inside), torch.where(inside, 0, constant))


@rule("masked_fill", in_place=True)
def masked_fill(function: Callable, input: Any, mask: Any, value: Any) -> TracedTensor:
    return where(torch.where, mask, value, input)


@rule("addcmul")
def addcmul(function: Callable, input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> TracedTensor:
    return add(torch.add, input, tensor1 * tensor2 * value)


@rule("lerp")
def lerp(function: Callable, input: Any, end: Any, weight: Any) -> TracedTensor:
    return add(torch.add, input * (1 - weight), end * weight)
