"""Rules for sums of activations, and for sums and concatenations of activations with constants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses.level2.linear import linear, record_linear
from gan_engine.losses.level2.offsets import add_offset_gradient, per_sample
from gan_engine.losses.level2.products import refuse_more_dimensions
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import rule
from gan_engine.losses.level2.tape import Step, Tape
from gan_engine.losses.level2.traced_tensor import TracedTensor, record_step


@rule("add", in_place=True)
def add(function: Callable, input: Any, other: Any, *, alpha: float = 1) -> TracedTensor:
    return weighted_sum(input, other, alpha)


@rule("sub", "subtract", in_place=True)
def sub(function: Callable, input: Any, other: Any, *, alpha: float = 1) -> TracedTensor:
    return weighted_sum(input, other, -alpha)


@rule("rsub", "__rsub__")
def reversed_sub(function: Callable, input: Any, other: Any) -> TracedTensor:
    return weighted_sum(other, input, -1)


def weighted_sum(x: Any, y: Any, alpha: float) -> TracedTensor:
    """x + alpha y, where one of them is an activation, or both are"""
    if isinstance(x, TracedTensor) and isinstance(y, TracedTensor):
        if x.value.ndim != y.value.ndim:
            raise NotPiecewiseLinear(f"the sum of {list(x.shape)} and {list(y.shape)} ties samples together")
        if x.value.shape == y.value.shape and x.value.dtype == y.value.dtype:
            out = torch.add(x.value, y.value, alpha=alpha)
            return record_step(x.tape, SumStep([x.slot, y.slot], alpha), out)[0]
        return record_linear(torch.add, (x, y), {"alpha": alpha}, jointly=True)
    if not isinstance(x, TracedTensor):
        x, y, alpha = (y if alpha == 1 else linear(torch.mul, y, alpha)), x, 1
    y = torch.as_tensor(y, dtype=None if isinstance(y, Tensor) else x.dtype, device=x.device)
    refuse_more_dimensions(x, y)
    y = _copy_unless_learned(y if alpha == 1 else y * alpha)
    detached = y.detach()
    return record_linear(lambda v: v, (x,), {}, offset=y, with_offset=lambda v: v + detached)


@rule("cat", "concat", "concatenate", "stack")
def cat(function: Callable, tensors: Any, dim: int = 0) -> TracedTensor:
    first = next(x for x in tensors if isinstance(x, TracedTensor))
    if dim % (first.ndim + (function.__name__ == "stack")) == 0:
        raise NotPiecewiseLinear(f"{function.__name__} along dimension 0 joins batches")
    tensors = [x if isinstance(x, TracedTensor) else _constant(first.tape, x) for x in tensors]
    return record_linear(function, (tensors, dim), {}, jointly=True)


def _constant(tape: Tape, x: Tensor) -> TracedTensor:
    x = _copy_unless_learned(x)
    value = x.detach()
    return record_step(tape, ConstantStep([], x, value), value)[0]


def _copy_unless_learned(offset: Tensor) -> Tensor:
    """The offset for the tangents. A buffer is copied, because D may fill it anew: autograd does not read it again."""
    return offset if offset.requires_grad else offset.clone()


@dataclass(eq=False)
class SumStep(Step):
    """result = source + alpha * source, of one shape and dtype"""

    alpha: float

    result_is_fresh = True

    def backward(self, deltas, may_overwrite):
        (delta,) = deltas
        return delta, delta if self.alpha == 1 else delta * self.alpha

    def tangent(self, sources, a, may_overwrite, grads):
        if not self.needs_tangent:
            return ()
        x, y = sources
        return (x.add_(y, alpha=self.alpha) if may_overwrite else torch.add(x, y, alpha=self.alpha),)


@dataclass(eq=False)
class ConstantStep(Step):
    """result = offset, which the image has no part in"""

    offset: Tensor
    value: Tensor

    def weights_and_offsets(self):
        return [], [self.offset]

    def backward(self, deltas, may_overwrite):
        (self.delta,) = deltas
        return ()

    def tangent(self, sources, a, may_overwrite, grads):
        if a is None:
            return (torch.zeros_like(self.value),)
        add_offset_gradient(self.offset, self.delta, a, grads)
        return ((per_sample(a, self.value) * self.value).to(self.value.dtype),)
