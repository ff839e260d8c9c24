"""The squares of a convolution's weight, added over the taps of each kernel: what demodulation divides by."""

from typing import Any

from torch import Tensor

import gan_engine.ops.weight_squares_kernels  # noqa: F401  (defines the operators)
from gan_engine import backends
from gan_engine.ops.kernel_op import Function, check_tensors, operators, wide
from gan_engine.ops.one_node import one_node
from gan_engine.ops.thresholds import TABLE


def weight_squares(x: Tensor, *, backend: str | None = None) -> Tensor:
    """q[o, i] = sum of x[o, i]^2 over the kernel

    Args:
        x: the weight, [O, I, kh, kw], float32, float64, bfloat16 or float16, any strides.
        backend: see gan_engine.backends.

    Returns:
        q: [O, I], float32, or float64 for float64. Half precision is squared and added in float32.

    Gradients: every order in x; the first is 2 x[o, i] dq[o, i].
    """
    check_tensors("weight_squares", x)
    if backends.choose("weight_squares", x, backend) == "cpu":
        return _weight_squares(x)
    return x.to(wide(x.dtype)).square().sum([2, 3])


# Autograd over two kernels, the dot product of two weights and a weight with a factor for each kernel:
#
#   dot     q = sum of x y      dx = scale(y; dq)     dy = scale(x; dq)
#   scale   z = a x             dx = scale(dz; a)     da = dot(dz, x)


class _Kept(Function):
    """The gradient needs all inputs"""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs)


class _WeightSquares(_Kept):
    @staticmethod
    def forward(x):
        return operators.taps_dot(x, x)

    @staticmethod
    def backward(ctx: Any, dq: Tensor | None) -> Tensor | None:
        return None if dq is None else _Scale.apply(*ctx.saved_tensors, 2 * dq)


class _Dot(_Kept):
    @staticmethod
    def forward(x, y):
        return operators.taps_dot(x, y)

    @staticmethod
    def backward(ctx: Any, dq: Tensor | None) -> tuple:
        if dq is None:
            return None, None
        x, y = ctx.saved_tensors
        dx = _Scale.apply(y, dq) if ctx.needs_input_grad[0] else None
        return dx, _Scale.apply(x, dq) if ctx.needs_input_grad[1] else None


class _Scale(_Kept):
    @staticmethod
    def forward(x, a):
        return operators.taps_scale(x, a)

    @staticmethod
    def backward(ctx: Any, dz: Tensor | None) -> tuple:
        if dz is None:
            return None, None
        x, a = ctx.saved_tensors
        dx = _Scale.apply(dz, a) if ctx.needs_input_grad[0] else None
        return dx, _Dot.apply(dz, x) if ctx.needs_input_grad[1] else None


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _weight_squares(x: Tensor) -> Tensor:
    return _WeightSquares.apply(x)


def _no_gain(backend: str, x: Tensor, arguments: None) -> str | None:
    few = TABLE["few squares of a weight"]
    return few.sentence if x.numel() < few.number else None


backends.register("weight_squares", has=("cpu",), no_gain=_no_gain)
