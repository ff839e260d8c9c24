"""Piecewise linear activations on the kernels of bias_act: leaky ReLU, ReLU, and bias_act itself with its clamp.

    y = clamp(gain * act(x + b), -clamp, clamp) = m (x + b) + k

The slope m and the limit k are noted in two bits for each element, in the forward pass. After that the step is linear.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.losses.level2.offsets import add_offset, add_offset_gradient, per_sample
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import CURVED, rule
from gan_engine.losses.level2.tape import Step
from gan_engine.losses.level2.traced_tensor import TracedTensor, record_step, refuse_traced
from gan_engine.ops.bias_act import bias_act, bias_act_ref
from gan_engine.ops.kernel_op import in_layout, operators


@rule("relu", in_place=True)
def relu(function: Callable, input: Any) -> TracedTensor:
    return activation(bias_act, input, act="relu", gain=1)


@rule("leaky_relu", in_place=True)
def leaky_relu(function: Callable, input: Any, negative_slope: float = 0.01) -> TracedTensor:
    return activation(bias_act, input, act="lrelu", alpha=negative_slope, gain=1)


@rule(bias_act)
def activation(
    function: Callable,
    x: Any,
    b: Any = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> TracedTensor:
    refuse_traced("bias", b)
    if act not in ("linear", "relu", "lrelu"):
        raise NotPiecewiseLinear(f"bias_act with act={act!r} {CURVED}")
    if b is not None and dim % x.ndim == 0:
        raise NotPiecewiseLinear("bias_act with dim=0 has a bias of its own for each sample")
    slopes = Slopes(dim, act, alpha, gain, clamp, backend)
    bias = None if b is None else b.reshape([-1] + [1] * (x.ndim - 1 - dim % x.ndim))
    y = slopes.forward(x.value, None if b is None else b.detach())
    return record_step(x.tape, ActivationStep([x.slot], slopes, bias), y)[0]


@dataclass(eq=False)
class ActivationStep(Step):
    """result = bias_act(source, bias) = m (source + bias) + k"""

    slopes: "Slopes"
    bias: Tensor | None  # broadcasts against the source

    result_is_fresh = True

    def weights_and_offsets(self):
        return [], [self.bias]

    def backward(self, deltas, may_overwrite):
        (dy,) = deltas
        delta = self.slopes.times(dy, may_overwrite)
        if any(self.learned()):
            self.delta = delta
        return (delta,)

    def tangent(self, sources, a, may_overwrite, grads):
        if self.bias is not None and a is not None:
            add_offset_gradient(self.bias, self.delta, a, grads)
        self.delta = None
        if not self.needs_tangent:
            return ()
        (v,) = sources
        if self.bias is not None and a is not None:
            v, may_overwrite = add_offset(v, a, self.bias, may_overwrite).to(v.dtype), True
        y = self.slopes.times(v, may_overwrite)
        if self.slopes.clamp is not None and a is not None:
            y += self.slopes.limits_times(per_sample(a, y))
        return (y,)


class Slopes:
    """m and k of one call of bias_act: y = m (x + b) + k.

    m is 0 where y is clamped. There k is the limit, with its sign, and elsewhere k is 0.
    """

    def __init__(self, dim, act, alpha, gain, clamp, backend) -> None:
        self.alpha = {"linear": 1.0, "relu": 0.0}.get(act, 0.2 if alpha is None else float(alpha))
        # The sign of a clamped y is read from the sign of x + b, which the kernels do not note for "linear".
        self.act = "relu" if self.alpha == 0 else "lrelu"
        self.dim, self.clamp, self.backend = dim, clamp, backend
        self.gain = (1.0 if act == "linear" else 2**0.5) if gain is None else float(gain)

    def forward(self, x: Tensor, b: Tensor | None) -> Tensor:
        """y. The source of m and k is kept: two bits for each element of y, or two truth values."""
        self.dim = self.dim % x.ndim if b is not None else 0
        self.backend = backends.choose("bias_act", x, self.backend)
        if self.backend == "pytorch":  # PyTorch's activations note no bits
            self.backend = "reference"
        if self.backend == "reference":
            options = {"dim": self.dim, "act": self.act, "alpha": self.alpha, "gain": self.gain}
            self.positive = bias_act_ref(x, b, **options | {"act": "linear", "gain": 1.0}, clamp=None) > 0
            y = bias_act_ref(x, b, **options, clamp=None)
            if self.clamp is None:
                return y
            self.keep = y.abs() <= self.clamp
            return y.clamp(-self.clamp, self.clamp)
        y, self.mask = operators.bias_act(x, b, *self._options(self.alpha, self.gain), True)
        self.shape, self.stride = y.shape, y.stride()
        return y

    def times(self, v: Tensor, may_overwrite: bool = False) -> Tensor:
        """m v, in the memory of v where that may be overwritten"""
        if self.backend != "reference":
            laid_out = in_layout(v, self.stride)
            if not may_overwrite and laid_out is v:
                return self._mask_times(v, self.mask, self.alpha, self.gain)
            operators.bias_act_slope_(laid_out, self.mask, *self._options(self.alpha, self.gain)[1:])
            return laid_out
        v = torch.where(self.positive, v, v * self.alpha if self.alpha else 0) * self.gain
        return v if self.clamp is None else v * self.keep

    def limits_times(self, a: Tensor) -> Tensor:
        """a k, for an a that broadcasts against y"""
        above, below = (math.copysign(self.clamp, s) for s in (self.gain, -self.alpha * self.gain))
        if self.backend == "reference":
            return torch.where(self.keep, 0, torch.where(self.positive, above * a, below * a))
        mask = torch.stack([self.mask[0], ~self.mask[1]])
        a = a.expand(self.shape)
        return self._mask_times(a, mask, math.copysign(1.0, -self.alpha), above)

    def _options(self, alpha: float, gain: float) -> tuple:
        """The arguments of the operators of bias_act behind the tensors."""
        return self.dim, self.act, alpha, gain, -1.0 if self.clamp is None else float(self.clamp), self.backend

    def _mask_times(self, v: Tensor, mask: Tensor, alpha: float, gain: float) -> Tensor:
        return operators.bias_act_grad(v, None, mask, None, self.stride, *self._options(alpha, gain), False)[0]
