"""A smooth activation between an upsampling and a downsampling FIR filter, as BigVGAN has it, for audio and images."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import gan_engine.ops.alias_free_activation_kernels  # noqa: F401  (defines the operators)
from gan_engine import backends
from gan_engine.ops.alias_free_fir import (
    Filters,
    down_rows,
    down_rows_adjoint,
    kaiser_sinc,
    unrounded,
    up_rows,
    up_rows_adjoint,
)
from gan_engine.ops.kernel_op import Function, check_tensors, layout, operators, wide
from gan_engine.ops.one_node import one_node
from gan_engine.system.devices import constant

TAPS = 12  # of both filters, for which there is a kernel
with torch.device("cpu"):  # whatever the default device is at the import
    _DEFAULT: tuple[float, ...] = tuple(kaiser_sinc(TAPS).tolist())


def alias_free_activation(
    x: Tensor,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    act: Callable[[Tensor], Tensor] | None = None,
    log_scale: bool = False,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = down(act(up(x))), act(u) = u + sin^2(alpha[c] u) / (beta[c] + 1e-9)

    Snake and SnakeBeta without aliasing (Lee et al. 2023, arXiv:2206.04658, section 3.2). The activation makes
    frequencies that the grid of x cannot hold. A grid of twice the density holds them until a filter takes them out.
    `up` puts a zero behind each element and convolves with 2 fu; `down` correlates with fd, and keeps every second
    element. Both repeat the border. Images have the filters along both axes.

    Args:
        x: [N, C, T], or images [N, C, H, W]; float32, float64, bfloat16 or float16, any strides, T, H, W at least 1.
        alpha: [C], in the dtype of x or float32.
        beta: as alpha; None is alpha, which makes SnakeBeta Snake.
        act: a smooth function of single elements, instead of alpha and beta, such as torch.nn.functional.gelu. It gets
            float32 or float64, outside autocast, and its result is taken in that dtype.
        log_scale: True if alpha and beta are logarithms.
        fu, fd: filters [taps], of an even number of taps, float32, on the device of x; None is `kaiser_sinc()`, as in
            BigVGAN. The first call copies it to a GPU, so it comes before a CUDA graph is captured.
        backend: see gan_engine.backends.

    Returns:
        y: the shape and dtype of x; channels_last if x is, else contiguous. Half precision is computed in float32, and
            rounded once. Autocast changes nothing. Without elements, y is as empty as x.

    With alpha and filters of 12 taps, the backend "cpu" makes one pass over memory, and one for the gradients; x alone
    is saved. So does "cuda" for [N, C, T]. Images on GPUs, other filters, other functions and "triton" run two calls of
    `upfirdn2d` with the function between.

    Raises:
        ValueError: shapes other than these, filters with an odd number of taps; both or neither of alpha and act; beta
            without alpha; an act that changes the shape.
        TypeError: a dtype of x other than the four, an alpha or beta that is neither like x nor float32, a filter not
            in float32, an act that is no function, or does not return a tensor of floating point.
        RuntimeError: a filter requires a gradient; it has none.

    Gradients: every order in x, alpha and beta; none in fu and fd. The first two orders have kernels where there is one
    pass; further orders run `upfirdn2d`.
    """
    op = "alias_free_activation"
    check_tensors(op, x, alpha=alpha, beta=beta, fu=fu, fd=fd)
    _check(op, x, alpha, beta, act)
    fu, fd = (_filter(op, x, name, f) for name, f in (("fu", fu), ("fd", fd)))
    asked, backend = backend, backends.choose(op, x, backend)
    if alpha is not None:
        alpha = alpha.to(wide(x.dtype))
        beta = alpha if beta is None else beta.to(wide(x.dtype))
        alpha, beta = (alpha.exp(), beta.exp()) if log_scale else (alpha, beta)
        b = 1 / (beta + 1e-9)
        in_one_pass = backend == "cpu" or (backend == "cuda" and x.ndim == 3)
        if in_one_pass and len(fu) == len(fd) == TAPS:
            return _alias_free(x, alpha, b, fu, fd, backend)
        function: Callable[[Tensor], Tensor] = partial(_snake, alpha=alpha, b=b)
    else:
        assert act is not None  # by _check
        function = partial(_act, op, act)
    if x.numel() == 0:  # PyTorch repeats no border of such an image
        with unrounded(x):
            return function(x.to(wide(x.dtype))).to(x.dtype).contiguous(memory_format=layout(x))
    if backend == "reference":
        return alias_free_activation_ref(x, function, fu, fd)
    filters = Filters(fu, fd, backends.handed_on(asked, backend))
    u = filters.up(x.to(wide(x.dtype)).contiguous())
    with unrounded(x):
        a = function(u)
    return filters.down(a).to(x.dtype).contiguous(memory_format=layout(x))


def _check(op: str, x: Tensor, alpha: Tensor | None, beta: Tensor | None, act: Any) -> None:
    if x.ndim not in (3, 4) or 0 in x.shape[2:]:
        raise ValueError(f"{op}: x must be [N, C, T] or [N, C, H, W], T, H, W at least 1, got {list(x.shape)}")
    if act is not None and not callable(act):
        raise TypeError(f"{op}: act must be a function of a tensor, got {act!r}")
    if (alpha is None) == (act is None) or (alpha is None and beta is not None):
        given = [name for name, t in (("alpha", alpha), ("beta", beta), ("act", act)) if t is not None]
        raise ValueError(f"{op}: want alpha, alpha and beta, or act, got {' and '.join(given) or 'none of them'}")
    for name, t in (("alpha", alpha), ("beta", beta)):
        if t is None:
            continue
        if t.shape != x.shape[1:2]:
            raise ValueError(f"{op}: {name} must be [C] = [{x.shape[1]}], got {list(t.shape)}")
        if t.dtype not in (x.dtype, torch.float32):
            raise TypeError(f"{op}: {name} must be {x.dtype} like x, or torch.float32, got {t.dtype}")
        if t.device != x.device:
            raise ValueError(f"{op}: {name} must be on {x.device} like x, got {t.device}")


def _filter(op: str, x: Tensor, name: str, f: Tensor | None) -> Tensor:
    if f is None:
        if x.device.type == "cuda":  # a copy to a GPU waits, so it is made once
            return constant(_DEFAULT, torch.float32, x.device)
        return torch.tensor(_DEFAULT, dtype=torch.float32, device=x.device)
    if f.ndim != 1 or f.shape[0] < 2 or f.shape[0] % 2:
        raise ValueError(f"{op}: {name} must be [taps], an even number of them, got {list(f.shape)}")
    if f.dtype != torch.float32:
        raise TypeError(f"{op}: {name} must be torch.float32, got {f.dtype}")
    if f.device != x.device:
        raise ValueError(f"{op}: {name} must be on {x.device} like x, got {f.device}")
    if f.requires_grad:
        raise RuntimeError(f"{op}: {name} has no gradient, but requires one ({name}.detach() takes it as a constant)")
    return f


def _act(op: str, act: Callable[[Tensor], Any], u: Tensor) -> Tensor:
    y = act(u)
    if not isinstance(y, Tensor) or not y.is_floating_point():
        what = f"one of {y.dtype}" if isinstance(y, Tensor) else type(y).__qualname__
        raise TypeError(f"{op}: act must return a tensor of floating point, got {what}")
    if y.shape != u.shape:
        raise ValueError(f"{op}: act must return the shape that it gets, {list(u.shape)}, got {list(y.shape)}")
    return y.to(u.dtype)


def _snake(u: Tensor, alpha: Tensor, b: Tensor) -> Tensor:
    alpha, b = (t.reshape(len(t), *[1] * (u.ndim - 2)) for t in (alpha, b))
    return u + b * (alpha * u).sin().square()


def alias_free_activation_ref(x: Tensor, function: Callable[[Tensor], Tensor], fu: Tensor, fd: Tensor) -> Tensor:
    """The definition of `alias_free_activation` in PyTorch's own operators"""
    with unrounded(x):
        u = _along_axes(up_rows, x.to(wide(x.dtype)), fu)
        y = _along_axes(down_rows, function(u), fd)
    return y.to(x.dtype).contiguous(memory_format=layout(x))


def _along_axes(rows: Callable[[Tensor, Tensor], Tensor], x: Tensor, f: Tensor) -> Tensor:
    """A function of rows, along all axes of x [N, C, ...] one after the other"""
    for axis in range(2, x.ndim):
        x = rows(x.movedim(axis, -1), f).movedim(-1, axis)
    return x


# Autograd, where there is one pass. h(u) = u + b sin^2(alpha u), and sums are over all but the channels. ^T is the
# adjoint:
#
#   _AliasFree  y  = down(h(u)), u = up(x)
#   _Grad       dx = up^T(h'(u) a), dalpha = sum of a dh/dalpha, db = sum of a dh/db, a = down^T(dy)
#
# _Grad's gradients for v, v_alpha, v_b = d_dx, d_dalpha, d_db are those of the sum of a q, where q is the derivative of
# h along up(v), v_alpha and v_b. A kernel has them; where they have gradients themselves, PyTorch's operators do.


class _AliasFree(Function):
    @staticmethod
    def forward(x, alpha, b, fu, fd, backend):
        return operators.alias_free_activation(x, alpha, b, fu, fd, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        if dy is None:
            return (None,) * 6
        return *_Grad.apply(dy, *ctx.saved_tensors, ctx.backend), None, None, None


class _Grad(Function):
    """(dx, dalpha, db)"""

    @staticmethod
    def forward(dy, x, alpha, b, fu, fd, backend):
        return operators.alias_free_activation_grad(dy, x, alpha, b, fu, fd, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.backend = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, v_alpha: Tensor | None, v_b: Tensor | None) -> tuple:
        if v is None and v_alpha is None and v_b is None:
            return (None,) * 7
        dy, x, alpha, b, fu, fd = ctx.saved_tensors
        v = torch.zeros_like(x) if v is None else v
        v_alpha, v_b = (torch.zeros_like(alpha) if t is None else t for t in (v_alpha, v_b))
        if torch.is_grad_enabled():
            return *_second(dy, x, alpha, b, v, v_alpha, v_b, fu, fd), None, None, None
        found = operators.alias_free_activation_second(dy, x, alpha, b, v, v_alpha, v_b, fu, fd, ctx.backend)
        return *found, None, None, None


def _second(
    dy: Tensor, x: Tensor, alpha: Tensor, b: Tensor, v: Tensor, v_alpha: Tensor, v_b: Tensor, fu: Tensor, fd: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the kernel of that name returns, in PyTorch's own operators"""
    with unrounded(x):
        dtype = wide(x.dtype)
        u, w = (_along_axes(up_rows, t.to(dtype), fu) for t in (x, v))
        A, B, of_A, of_B = (t.reshape(len(t), *[1] * (x.ndim - 2)) for t in (alpha, b, v_alpha, v_b))
        a = _along_axes(down_rows_adjoint, dy.to(dtype), fd)
        turn = 2 * A * u
        sine, cosine, square = turn.sin(), 2 * turn.cos(), (A * u).sin().square()
        slope = A * w + u * of_A
        by_A_and_u = B * (sine + A * u * cosine)
        d_dy = _along_axes(down_rows, w + B * sine * slope + square * of_B, fd)
        d_u = a * (B * A * A * cosine * w + by_A_and_u * of_A + A * sine * of_B)
        d_x = _along_axes(up_rows_adjoint, d_u, fu)
        others = [0, *range(2, x.ndim)]
        d_alpha = (a * (by_A_and_u * w + B * u * u * cosine * of_A + u * sine * of_B)).sum(others)
        d_b = (a * sine * slope).sum(others)
        d_dy, d_x = (t.to(x.dtype).contiguous(memory_format=layout(x)) for t in (d_dy, d_x))
    return d_dy, d_x, d_alpha, d_b


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _alias_free(x: Tensor, alpha: Tensor, b: Tensor, fu: Tensor, fd: Tensor, backend: str) -> Tensor:
    return _AliasFree.apply(x, alpha, b, fu, fd, backend)


backends.register("alias_free_activation", kernels_of="upfirdn2d")
