"""Feature vectors scaled to unit mean square, pixel by pixel."""

from typing import Any

from torch import Tensor

import gan_engine.ops.pixel_norm_kernels  # noqa: F401  (defines the operator)
from gan_engine import backends
from gan_engine.ops.kernel_op import Function, check_tensors, operators, wide
from gan_engine.ops.one_node import one_node


def pixel_norm(x: Tensor, *, dim: int = 1, eps: float = 1e-8, backend: str | None = None) -> Tensor:
    """y = x / sqrt(mean of x^2 over dim + eps)

    The generator of the progressive GAN normalises its feature maps by it (Karras et al. 2018, arXiv:1710.10196,
    section 4.2). The mapping network of StyleGAN normalises z [N, z_dim].

    Args:
        x: [...], at least one dimension, float32, float64, bfloat16 or float16, any strides.
        dim: the dimension of the features, not empty.
        eps: added to the mean square, at least 0; at 0 a vector of zeros has no value.
        backend: see gan_engine.backends.

    Returns:
        y: the shape, dtype and memory layout of x. Half precision is computed in float32 and rounded once.

    Raises:
        ValueError: a `dim` out of range or empty, a negative eps.
        TypeError: a dtype other than the four.

    Gradients: every order in x; the second and higher orders in PyTorch's own operators.
    """
    check_tensors("pixel_norm", x)
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"pixel_norm: dim must be in [{-x.ndim}, {x.ndim - 1}] for x {list(x.shape)}, got {dim}")
    if x.shape[dim] == 0:
        raise ValueError(f"pixel_norm: x must not be empty along dim {dim}, got {list(x.shape)}")
    if not eps >= 0:
        raise ValueError(f"pixel_norm: eps must be at least 0, got {eps}")
    backend = backends.choose("pixel_norm", x, backend)
    if backend == "reference":
        return pixel_norm_ref(x, dim=dim, eps=eps)
    return _pixel_norm(x, dim % x.ndim, float(eps), backend)


def pixel_norm_ref(x: Tensor, *, dim: int, eps: float) -> Tensor:
    """The definition of `pixel_norm` in PyTorch's own operators."""
    x_ = x.to(wide(x.dtype))
    return (x_ * (x_.square().mean(dim, keepdim=True) + eps).rsqrt()).to(x.dtype)


# Autograd. r is (mean of x^2 + eps)^(-1/2), and means are over dim:
#
#   _PixelNorm  y  = r x
#   _Grad       dx = r dy - r^3 x mean(x dy)
#
# _Grad is its own adjoint in dy. Its gradient by x, for v = d_dx, is
#
#   d_x = -r^3 ((mean(v dy) - 3 r^2 mean(v x) mean(x dy)) x + mean(x dy) v + mean(v x) dy)


class _PixelNorm(Function):
    @staticmethod
    def forward(x, dim, eps, backend):
        return operators.pixel_norm(x, None, dim, eps, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, *ctx.options = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        dx = None if dy is None else _Grad.apply(dy, *ctx.saved_tensors, *ctx.options)
        return dx, None, None, None


class _Grad(Function):
    @staticmethod
    def forward(dy, x, dim, eps, backend):
        return operators.pixel_norm(x, dy, dim, eps, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        dy, x, *ctx.options = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None) -> tuple:
        if v is None:
            return (None,) * 5
        dy, x = ctx.saved_tensors
        d_dy = _Grad.apply(v, x, *ctx.options) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return d_dy, None, None, None, None
        dim, eps, _ = ctx.options
        dtype = wide(x.dtype)
        v, dy, x_ = v.to(dtype), dy.to(dtype), x.to(dtype)
        r2 = 1 / (x_.square().mean(dim, keepdim=True) + eps)
        v_dy, v_x, x_dy = ((a * b).mean(dim, keepdim=True) for a, b in ((v, dy), (v, x_), (x_, dy)))
        d_x = -r2 * r2.sqrt() * ((v_dy - 3 * r2 * v_x * x_dy) * x_ + x_dy * v + v_x * dy)
        return d_dy, d_x.to(x.dtype), None, None, None


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _pixel_norm(x: Tensor, dim: int, eps: float, backend: str) -> Tensor:
    return _PixelNorm.apply(x, dim, eps, backend)


backends.register("pixel_norm", has=("triton", "cpu"))
