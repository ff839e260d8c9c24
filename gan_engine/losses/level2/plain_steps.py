"""Steps whose three passes are written out: linear layers, constant factors and shapes.

`record_linear` serves any linear function, by autograd's record of it. That costs 0.2 ms a step, and small networks
have little else to do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.level2.offsets import add_offset, add_offset_gradient
from gan_engine.losses.level2.tape import Gradients, Step
from gan_engine.losses.level2.traced_tensor import TracedTensor, record_step


def record_layer(input: TracedTensor, weight: Tensor, bias: Tensor | None) -> TracedTensor:
    """F.linear(input, weight [O, I], bias [O])"""
    step = LayerStep([input.slot], weight, bias)
    out = F.linear(input.value, weight.detach(), None if bias is None else bias.detach())
    return record_step(input.tape, step, out)[0]


def record_factor(input: TracedTensor, factor: Tensor | float) -> TracedTensor:
    """input * factor, where no gradient is asked of the factor, and it has no more dimensions than the input"""
    out = input.value * factor
    return record_step(input.tape, FactorStep([input.slot], factor, input.value.shape, input.value.dtype), out)[0]


def record_shape(function: Callable, input: TracedTensor, *args: Any, **kwargs: Any) -> TracedTensor:
    """function(input), the same numbers in the same order in another shape"""
    out = function(input.value, *args, **kwargs)
    if out is input.value:
        return input
    (result,) = record_step(input.tape, ShapeStep([input.slot], input.value.shape, out.shape), out)
    if out.untyped_storage().data_ptr() == input.value.untyped_storage().data_ptr():
        input.shares_memory = result.shares_memory = True
    return result


@dataclass(eq=False)
class LayerStep(Step):
    """result = source weight' + bias, along the last dimension"""

    weight: Tensor
    bias: Tensor | None

    result_is_fresh = gradient_is_fresh = True

    @property
    def reads_tangents(self) -> bool:
        return self.needs_tangent or self.weight.requires_grad

    def weights_and_offsets(self) -> tuple[list[Tensor], list[Tensor | None]]:
        return [self.weight], [self.bias]

    def products(self, values: tuple[Tensor, ...]) -> int:
        return values[0].numel() * self.weight.shape[1]

    def backward(self, deltas: list[Tensor | None], may_overwrite: bool) -> tuple:
        (delta,) = deltas
        if any(self.learned()):
            self.delta = delta
        return (torch.matmul(delta, self.weight.detach()),)

    def tangent(self, sources: list[Tensor], a: Tensor | None, may_overwrite: bool, grads: Gradients) -> tuple:
        if self.bias is not None and a is not None:
            add_offset_gradient(self.bias, self.delta, a, grads)
        if self.delta is not None and self.weight.requires_grad:
            grads.add(self.weight, self.delta.flatten(0, -2).t() @ sources[0].flatten(0, -2))
        self.delta = None
        if not self.needs_tangent:
            return ()
        out = F.linear(sources[0], self.weight.detach())
        return (out if self.bias is None or a is None else add_offset(out, a, self.bias, True),)


@dataclass(eq=False)
class FactorStep(Step):
    """result = source * factor"""

    factor: Tensor | float
    shape: torch.Size  # of the source
    dtype: torch.dtype

    result_is_fresh = gradient_is_fresh = True

    def weights_and_offsets(self) -> tuple[list[Tensor], list[Tensor | None]]:
        return [self.factor] if isinstance(self.factor, Tensor) else [], []

    def backward(self, deltas: list[Tensor | None], may_overwrite: bool) -> tuple:
        return ((deltas[0] * self.factor).sum_to_size(self.shape).to(self.dtype),)

    def tangent(self, sources: list[Tensor], a: Tensor | None, may_overwrite: bool, grads: Gradients) -> tuple:
        return (sources[0] * self.factor,) if self.needs_tangent else ()


@dataclass(eq=False)
class ShapeStep(Step):
    """result = the source in another shape"""

    source_shape: torch.Size
    result_shape: torch.Size

    def backward(self, deltas: list[Tensor | None], may_overwrite: bool) -> tuple:
        return (deltas[0].reshape(self.source_shape),)

    def tangent(self, sources: list[Tensor], a: Tensor | None, may_overwrite: bool, grads: Gradients) -> tuple:
        return (sources[0].reshape(self.result_shape),) if self.needs_tangent else ()
