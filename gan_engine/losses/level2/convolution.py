"""Convolutions, which take nearly all of the time of a step. They run on gan_engine's three passes of a convolution.

Nothing of the input is kept but its shape and layout. A step whose tangent is not needed, as that of a last
convolution, computes the gradient by the weight alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses.level2.offsets import per_sample
from gan_engine.losses.level2.products import affine, cast_by_autocast
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import rule
from gan_engine.losses.level2.tape import Gradients, Step
from gan_engine.losses.level2.traced_tensor import TracedTensor, record_step, refuse_traced
from gan_engine.ops.convolution import maps
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.convolution.autograd import conv2d


@rule("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", conv2d)
def convolution(
    function: Callable, input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any
) -> TracedTensor:
    refuse_traced("weight", weight)
    refuse_traced("bias", bias)
    x = input.value
    if x.ndim != weight.ndim:
        raise NotPiecewiseLinear(f"{function.__name__} of a tensor {list(x.shape)} without a batch dimension")
    if "same" in (*args, *kwargs.values()) or "valid" in (*args, *kwargs.values()):
        return affine(function, input, weight, bias, *args, dim=1, **kwargs)
    input, weight, bias = cast_by_autocast(input, weight, bias)
    transposed = "transpose" in function.__name__
    read = ConvolutionArguments.from_conv_transpose if transposed else ConvolutionArguments.from_conv
    step = ConvolutionStep([input.slot], weight, bias, read(x.ndim - 2, *args, **kwargs))
    return record_step(input.tape, step, step.forward(input.value))[0]


@dataclass(eq=False)
class ConvolutionStep(Step):
    """result = convolution of the source with weight, + bias [C]"""

    weight: Tensor
    bias: Tensor | None
    arguments: ConvolutionArguments
    empty_like_source: Callable[[], Tensor] = field(init=False)  # a tensor of its shape and layout

    result_is_fresh = gradient_is_fresh = True

    @property
    def reads_tangents(self) -> bool:
        return self.needs_tangent or self.weight.requires_grad

    def weights_and_offsets(self) -> tuple[list[Tensor], list[Tensor | None]]:
        return [self.weight], [self.bias]

    def products(self, values: tuple[Tensor, ...]) -> int:
        return values[0].numel() * self.weight[0].numel()

    def forward(self, x: Tensor) -> Tensor:
        shape, stride, dtype, device = x.shape, x.stride(), x.dtype, x.device
        self.empty_like_source = lambda: torch.empty_strided(shape, stride, dtype=dtype, device=device)
        bias = None if self.bias is None else self.bias.detach()
        return maps.forward(x, self.weight.detach(), bias, self.arguments)

    def backward(self, deltas: list[Tensor | None], may_overwrite: bool) -> tuple:
        (delta,) = deltas
        if any(self.learned()):
            self.delta = delta
        like = self.empty_like_source()
        return (maps.image_gradient(delta, self.weight.detach(), like, self.arguments),)

    def tangent(self, sources: list[Tensor], a: Tensor | None, may_overwrite: bool, grads: Gradients) -> tuple:
        if self.delta is not None:
            if a is not None and self.bias is not None and self.bias.requires_grad:
                per_image = self.delta.flatten(2).sum(2, dtype=a.dtype)  # [N, C]
                grads.add(self.bias, (a @ per_image).to(self.bias.dtype))
            if self.weight.requires_grad:
                weight = self.weight.detach()
                grads.add(self.weight, maps.weight_gradient(sources[0], self.delta, weight, self.arguments))
            self.delta = None
        if not self.needs_tangent:
            return ()
        out = maps.forward(sources[0], self.weight.detach(), None, self.arguments)
        if a is not None and self.bias is not None:
            bias = self.bias.detach().reshape([-1] + [1] * (out.ndim - 2))
            out.addcmul_(per_sample(a, out), bias)
        return (out,)
