"""A convolution on the tape: the one step that costs anything, run by its three kernels.

Of its input nothing is kept but the layout. A step whose result leads to no weight, as that of a last convolution,
gets its own gradient by the weight kernel alone: its tangent is never computed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gan_engine.losses.level2.tape import Gradients, Step, per_sample
from gan_engine.ops.convolution.passes import Call, dgrad, fprop, wgrad


@dataclass(eq=False)
class Convolution(Step):
    """result = convolution of the value with weight, + bias [C]"""

    weight: Tensor
    bias: Tensor | None
    call: Call
    like: Callable[[], Tensor] = field(init=False)  # of the shape and layout of the value; what it holds is not read

    owns_result = owns_gradient = True

    @property
    def reads_sources(self) -> bool:
        return self.wanted or self.weight.requires_grad

    def weights_and_offsets(self) -> tuple[list[Tensor], list[Tensor | None]]:
        return [self.weight], [self.bias]

    def forward(self, x: Tensor) -> Tensor:
        shape, stride, dtype, device = x.shape, x.stride(), x.dtype, x.device
        self.like = lambda: torch.empty_strided(shape, stride, dtype=dtype, device=device)
        bias = None if self.bias is None else self.bias.detach()
        return fprop(x, self.weight.detach(), bias, self.call)

    def backward(self, deltas: list[Tensor | None], owned: bool) -> tuple:
        (delta,) = deltas
        if any(self.learned()):
            self.delta = delta
        return (dgrad(delta, self.like(), self.weight.detach(), self.call),)

    def tangent(self, sources: list[Tensor], a: Tensor | None, owned: bool, grads: Gradients) -> tuple:
        if self.delta is not None:
            if a is not None and self.bias is not None and self.bias.requires_grad:
                per_image = self.delta.flatten(2).sum(2, dtype=a.dtype)  # [N, C]
                grads.add(self.bias, (a @ per_image).to(self.bias.dtype))
            if self.weight.requires_grad:
                grads.add(self.weight, wgrad(self.delta, sources[0], self.weight.detach(), self.call))
            self.delta = None
        if not self.wanted:
            return ()
        out = fprop(sources[0], self.weight.detach(), None, self.call)
        if a is not None and self.bias is not None:
            bias = self.bias.detach().reshape([-1] + [1] * (out.ndim - 2))
            out.addcmul_(per_sample(a, out), bias)
        return (out,)
