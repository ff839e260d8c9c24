"""The kernels of alias_free_activation as PyTorch operators without autograd: value, gradient, and its gradient."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import define, wide


def _rows(x, alpha, b, fu, fd) -> tuple:
    """The rows of x, as the kernels take them. Tensors are contiguous already, and the caller holds them."""
    return x, alpha, b, fu, fd, x.shape[0] * x.shape[1], x.shape[1], x.shape[2], x.dtype


def _kernels(backend):
    return backends.kernels("alias_free_activation", backend)


def _empty_sums(kernels, x: Tensor) -> Tensor:
    """[2, N, C, pieces of a row], one slot for each"""
    n, c, size = x.shape
    return x.new_empty((2, n, c, kernels.alias_free_activation_slots(n * c, size)), dtype=wide(x.dtype))


def _value(x, alpha, b, fu, fd, backend):
    x, alpha, b, fu, fd = (t.contiguous() for t in (x, alpha, b, fu, fd))
    y = torch.empty_like(x)
    if x.numel() > 0:
        _kernels(backend).alias_free_activation(*_rows(x, alpha, b, fu, fd), y)
    return y


def _value_fake(x, alpha, b, fu, fd, backend):
    return x.new_empty(x.shape)


def _gradient(dy, x, alpha, b, fu, fd, backend):
    dy, x, alpha, b, fu, fd = (t.contiguous() for t in (dy, x, alpha, b, fu, fd))
    dx = torch.empty_like(x)
    if x.numel() == 0:
        return dx, torch.zeros_like(alpha), torch.zeros_like(b)
    kernels = _kernels(backend)
    sums = _empty_sums(kernels, x)
    kernels.alias_free_activation_grad(*_rows(x, alpha, b, fu, fd), dy, dx, sums)
    by_alpha, by_b = sums.sum((1, 3)).unbind()
    return dx, by_alpha.clone(), by_b.clone()


def _gradient_fake(dy, x, alpha, b, fu, fd, backend):
    return x.new_empty(x.shape), alpha.new_empty(alpha.shape), b.new_empty(b.shape)


def _second(dy, x, alpha, b, v, v_alpha, v_b, fu, fd, backend):
    tensors = dy, x, alpha, b, v, v_alpha, v_b, fu, fd
    dy, x, alpha, b, v, v_alpha, v_b, fu, fd = (t.contiguous() for t in tensors)
    d_dy, d_x = torch.empty_like(x), torch.empty_like(x)
    if x.numel() == 0:
        return d_dy, d_x, torch.zeros_like(alpha), torch.zeros_like(b)
    kernels = _kernels(backend)
    sums = _empty_sums(kernels, x)
    kernels.alias_free_activation_second(*_rows(x, alpha, b, fu, fd), dy, v, v_alpha, v_b, d_dy, d_x, sums)
    by_alpha, by_b = sums.sum((1, 3)).unbind()
    return d_dy, d_x, by_alpha.clone(), by_b.clone()


def _second_fake(dy, x, alpha, b, v, v_alpha, v_b, fu, fd, backend):
    return x.new_empty(x.shape), *_gradient_fake(dy, x, alpha, b, fu, fd, backend)


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
