"""The arithmetic of gradient penalties, sample by sample: sums of squares, weighted sums and interpolation."""

from typing import Any

from torch import Tensor

import gan_engine.ops.gradient_penalty_kernels  # noqa: F401  (defines the operators)
from gan_engine import backends
from gan_engine.ops.kernel_op import Function, check_tensors, operators, wide
from gan_engine.ops.one_node import one_node


def sum_of_squares(x: Tensor, *, backend: str | None = None) -> Tensor:
    """s[n] = sum over i of x[n, i]^2

    Args:
        x: [N, ...], float32, float64, bfloat16 or float16, any strides.
        backend: see gan_engine.backends.

    Returns:
        s: [N], float32, or float64 for float64. Half precision is squared and added in float32.

    Raises:
        TypeError, ValueError: a dtype other than the four, an x without a batch dimension.

    Gradients: every order in x; the first is 2 x[n] ds[n], without a square root to divide by.
    """
    _check("sum_of_squares", x)
    backend = backends.choose("sum_of_squares", x, backend)
    if backend == "reference":
        return sum_of_squares_ref(x)
    return _sum_of_squares(x, backend)


def sum_of_squares_ref(x: Tensor) -> Tensor:
    """The definition of `sum_of_squares` in PyTorch's own operators."""
    dtype = wide(x.dtype)
    squares = (x if x.dtype == dtype else x.to(dtype)).square()
    return squares.sum(list(range(1, x.ndim))) if x.ndim > 1 else squares


def mix(x: Tensor, y: Tensor, a: Tensor, b: Tensor, *, backend: str | None = None) -> Tensor:
    """z[n] = a[n] * x[n] + b[n] * y[n]

    Args:
        x, y: [N, ...] of one shape and dtype: float32, float64, bfloat16 or float16, any strides.
        a, b: [N], of any floating dtype, read in float32 (float64 for float64).
        backend: see gan_engine.backends.

    Returns:
        z: [N, ...] in the dtype and layout of x, rounded once.

    Raises:
        TypeError, ValueError: dtypes or shapes that do not fit.

    Gradients: every order in x, y, a and b.
    """
    _check("mix", x, y=y, a=a, b=b)
    if y.shape != x.shape or y.dtype != x.dtype or y.device != x.device:
        raise ValueError(
            f"mix: y must be {list(x.shape)} of {x.dtype} on {x.device} like x, "
            f"got {list(y.shape)} of {y.dtype} on {y.device}"
        )
    for name, weight in (("a", a), ("b", b)):
        if weight.shape != x.shape[:1]:
            raise ValueError(f"mix: {name} must be [N] = [{x.shape[0]}], got {list(weight.shape)}")
        if weight.device != x.device:
            raise ValueError(f"mix: {name} must be on {x.device} like x, got {weight.device}")
    backend = backends.choose("mix", x, backend)
    if backend == "reference":
        return mix_ref(x, y, a, b)
    return _mix(x, y, a.to(wide(x.dtype)), b.to(wide(x.dtype)), backend)


def mix_ref(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The definition of `mix` in PyTorch's own operators."""
    dtype = wide(x.dtype)
    a, b = (weight.to(dtype).reshape([-1] + [1] * (x.ndim - 1)) for weight in (a, b))
    return (a * x.to(dtype) + b * y.to(dtype)).to(x.dtype)


def interpolate(real: Tensor, fake: Tensor, eps: Tensor, *, backend: str | None = None) -> Tensor:
    """x[n] = eps[n] * real[n] + (1 - eps[n]) * fake[n]   # Gulrajani et al. 2017, arXiv:1704.00028, algorithm 1

    eps is [N]: 0 is fake, 1 is real. Arguments, errors and gradients are as in `mix`.
    """
    eps = eps.to(wide(real.dtype))
    return mix(real, fake, eps, 1 - eps, backend=backend)


def _check(name: str, x: Tensor, **others: Tensor) -> None:
    check_tensors(name, x, **others)
    if x.ndim == 0:
        raise ValueError(f"{name}: x must be [N, ...], got a scalar")


# Autograd over two kernels, which work sample by sample: the dot product and the weighted sum of two batches.
#
#   dot     s = <x, y>         dx = mix(y; ds)     dy = mix(x; ds)
#   mix     z = a x + b y      dx = mix(dz; a)     da = dot(dz, x)      likewise for y and b
#
# A sum of squares is the dot product of x with itself.


class _Dot(Function):
    @staticmethod
    def forward(x, y, backend):
        return operators.sample_dot(x, y, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, y, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y)

    @staticmethod
    def backward(ctx: Any, ds: Tensor | None) -> tuple:
        if ds is None:
            return None, None, None
        x, y = ctx.saved_tensors
        dx = _Mix.apply(y, None, ds, None, ctx.backend) if ctx.needs_input_grad[0] else None
        dy = _Mix.apply(x, None, ds, None, ctx.backend) if ctx.needs_input_grad[1] else None
        return dx, dy, None


class _SumOfSquares(Function):
    @staticmethod
    def forward(x, backend):
        return operators.sample_dot(x, x, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, ds: Tensor | None) -> tuple:
        if ds is None:
            return None, None
        return _Mix.apply(*ctx.saved_tensors, None, 2 * ds, None, ctx.backend), None


class _Mix(Function):
    """a x + b y, or a x if y and b are None"""

    @staticmethod
    def forward(x, y, a, b, backend):
        return operators.sample_mix(x, y, a, b, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, y, a, b, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, y, a, b)

    @staticmethod
    def backward(ctx: Any, dz: Tensor | None) -> tuple:
        if dz is None:
            return (None,) * 5
        x, y, a, b = ctx.saved_tensors
        need = ctx.needs_input_grad
        dx = _Mix.apply(dz, None, a, None, ctx.backend) if need[0] else None
        dy = _Mix.apply(dz, None, b, None, ctx.backend) if need[1] else None
        da = _Dot.apply(dz, x, ctx.backend) if need[2] else None
        db = _Dot.apply(dz, y, ctx.backend) if need[3] else None
        return dx, dy, da, db, None


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _sum_of_squares(x: Tensor, backend: str) -> Tensor:
    return _SumOfSquares.apply(x, backend)


@one_node
def _mix(x: Tensor, y: Tensor, a: Tensor, b: Tensor, backend: str) -> Tensor:
    return _Mix.apply(x, y, a, b, backend)


backends.register("gradient_penalty")
backends.register("sum_of_squares", kernels_of="gradient_penalty")
backends.register("mix", kernels_of="gradient_penalty")
