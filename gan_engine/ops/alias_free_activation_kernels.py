"""The kernels of alias_free_activation as PyTorch operators without autograd: value, gradient, and its gradient."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import define, layout, wide


def _of(x, alpha, b, fu, fd) -> tuple:
    """Rows or images, as the kernels take them. Tensors are contiguous in their layout, and the caller holds them."""
    if x.ndim == 3:
        return x, alpha, b, fu, fd, x.shape[0] * x.shape[1], x.shape[1], x.shape[2], x.dtype
    return x, alpha, b, fu, fd, *x.shape, x.dtype, layout(x) == torch.channels_last


def _kernel(x: Tensor, backend: str, order: str):
    of = "alias_free_activation" if x.ndim == 3 else "alias_free_images"
    return getattr(backends.kernels("alias_free_activation", backend), of + order)


def _empty_sums(x: Tensor, backend: str) -> Tensor:
    """[2, N, C, pieces of a row], or [2, pieces of an image, N, C]: one slot for each"""
    n, c, *size = x.shape
    pieces = _kernel(x, backend, "_slots")(n * c, *size)
    shape = (2, n, c, pieces) if x.ndim == 3 else (2, pieces, n, c)
    return x.new_empty(shape, dtype=wide(x.dtype))


def _summed(sums: Tensor, x: Tensor) -> list[Tensor]:
    return [t.clone() for t in sums.sum((1, 3) if x.ndim == 3 else (1, 2)).unbind()]


def _contiguous(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """All of them in the layout of x, where they have its dimensions"""
    kept = layout(x)
    return tuple(
        t.contiguous(memory_format=kept if t.ndim == x.ndim else torch.contiguous_format) for t in (x, *others)
    )


def _value(x, alpha, b, fu, fd, backend):
    x, alpha, b, fu, fd = _contiguous(x, alpha, b, fu, fd)
    y = torch.empty_like(x)
    if x.numel() > 0:
        _kernel(x, backend, "")(*_of(x, alpha, b, fu, fd), y)
    return y


def _empty(x: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=layout(x))


def _value_fake(x, alpha, b, fu, fd, backend):
    return _empty(x)


def _gradient(dy, x, alpha, b, fu, fd, backend):
    x, dy, alpha, b, fu, fd = _contiguous(x, dy, alpha, b, fu, fd)
    dx = torch.empty_like(x)
    if x.numel() == 0:
        return dx, torch.zeros_like(alpha), torch.zeros_like(b)
    sums = _empty_sums(x, backend)
    _kernel(x, backend, "_grad")(*_of(x, alpha, b, fu, fd), dy, dx, sums)
    return dx, *_summed(sums, x)


def _gradient_fake(dy, x, alpha, b, fu, fd, backend):
    return _empty(x), alpha.new_empty(alpha.shape), b.new_empty(b.shape)


def _second(dy, x, alpha, b, v, v_alpha, v_b, fu, fd, backend):
    x, dy, alpha, b, v, v_alpha, v_b, fu, fd = _contiguous(x, dy, alpha, b, v, v_alpha, v_b, fu, fd)
    d_dy, d_x = torch.empty_like(x), torch.empty_like(x)
    if x.numel() == 0:
        return d_dy, d_x, torch.zeros_like(alpha), torch.zeros_like(b)
    sums = _empty_sums(x, backend)
    _kernel(x, backend, "_second")(*_of(x, alpha, b, fu, fd), dy, v, v_alpha, v_b, d_dy, d_x, sums)
    return d_dy, d_x, *_summed(sums, x)


def _second_fake(dy, x, alpha, b, v, v_alpha, v_b, fu, fd, backend):
    return _empty(x), *_gradient_fake(dy, x, alpha, b, fu, fd, backend)


_OF = "Tensor x, Tensor alpha, Tensor b"
_FILTERS = "Tensor fu, Tensor fd, str backend"
define(f"alias_free_activation({_OF}, {_FILTERS}) -> Tensor", _value, _value_fake)
define(
    f"alias_free_activation_grad(Tensor dy, {_OF}, {_FILTERS}) -> (Tensor, Tensor, Tensor)", _gradient, _gradient_fake
)
define(
    f"alias_free_activation_second(Tensor dy, {_OF}, Tensor v, Tensor v_alpha, Tensor v_b, {_FILTERS})"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _second,
    _second_fake,
)
