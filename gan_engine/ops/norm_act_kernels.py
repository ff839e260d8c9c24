"""The kernels of norm_act as PyTorch operators without autograd, which fake tensors and torch.compile need."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import define, in_layout, wide


def _dense(x: Tensor) -> Tensor:
    """x itself if it is contiguous, channels_last or channels_last_3d, or a contiguous copy."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    return x if last is not None and x.is_contiguous(memory_format=last) else x.contiguous()


def _shape(x: Tensor, batch: bool) -> list[int]:
    """[samples, outer, channels, inner, features] of csrc/norm_act.h for dense x."""
    n, c = x.shape[:2]
    pixels = x[0, 0].numel()
    if not x.is_contiguous():  # channels_last
        return [1, n * pixels, c, 1, c] if batch else [n, pixels, c, 1, c]
    return [1, n, c, pixels, c] if batch else [1, 1, n * c, pixels, c]


def _wide_stats(t: Tensor, dtype: torch.dtype) -> Tensor:
    return t if t.dtype == dtype and t.is_contiguous() else t.to(dtype).contiguous()


def _forward(x, w, b, mean, var, batch, slope, eps, backend):
    shape = (x.shape[1],) if batch else x.shape[:2]
    own_mean, own_var = (x.new_empty(shape if mean is None else 0, dtype=wide(x.dtype)) for _ in range(2))
    dense = _dense(x)
    y = torch.empty_like(dense)
    if x.numel() > 0:
        kernels, dims = backends.kernels("norm_act", backend), _shape(dense, batch)
        if mean is None:
            kernels.norm_stats(dense, own_mean, own_var, dims, x.dtype)
            mean, var = own_mean, own_var
        w, b, mean, var = (_wide_stats(t, wide(x.dtype)) for t in (w, b, mean, var))
        kernels.norm_act(dense, mean, var, w, b, y, dims, x.dtype, slope, eps)
    return y, own_mean, own_var


def _forward_fake(x, w, b, mean, var, batch, slope, eps, backend):
    shape = (x.shape[1],) if batch else x.shape[:2]
    stats = (x.new_empty(shape if mean is None else 0, dtype=wide(x.dtype)) for _ in range(2))
    return torch.empty_like(_dense(x)), *stats


def _grad(dy, x, w, b, mean, var, constant, batch, slope, eps, backend):
    dense = _dense(x)
    dx = torch.empty_like(dense)
    if x.numel() == 0:
        return dx, torch.zeros_like(w), torch.zeros_like(b)
    dy = in_layout(dy, dx.stride())
    given = [_wide_stats(t, wide(x.dtype)) for t in (mean, var, w, b)]
    dims = _shape(dense, batch)
    dw, db = (given[0].new_empty(dims[0], dims[2]) for _ in range(2))
    backends.kernels("norm_act", backend).norm_act_grad(
        dy, dense, *given, dx, dw, db, dims, x.dtype, slope, eps, constant
    )
    dw, db = (t.view(-1, len(w)) for t in (dw, db))
    dw, db = (t[0] if len(t) == 1 else t.sum(0) for t in (dw, db))
    return dx, dw.to(w.dtype), db.to(b.dtype)


def _grad_fake(dy, x, w, b, mean, var, constant, batch, slope, eps, backend):
    return torch.empty_like(_dense(x)), torch.empty_like(w), torch.empty_like(b)


def _second(dy, x, w, b, mean, var, v, v_w, v_b, constant, batch, slope, eps, backend):
    dense = _dense(x)
    d_dy, d_x = torch.empty_like(dense), torch.empty_like(dense)
    if x.numel() == 0:
        return d_dy, d_x, torch.zeros_like(w)
    dy, v = (in_layout(t, d_x.stride()) for t in (dy, v))
    given = [None if t is None else _wide_stats(t, wide(x.dtype)) for t in (mean, var, w, b, v_w, v_b)]
    dims = _shape(dense, batch)
    d_w = given[0].new_empty(dims[0], dims[2])
    backends.kernels("norm_act", backend).norm_act_second(
        dy, dense, *given[:4], v, *given[4:], d_dy, d_x, d_w, dims, x.dtype, slope, eps, constant
    )
    d_w = d_w.view(-1, len(w))
    return d_dy, d_x, (d_w[0] if len(d_w) == 1 else d_w.sum(0)).to(w.dtype)


def _second_fake(dy, x, w, b, mean, var, v, v_w, v_b, constant, batch, slope, eps, backend):
    return torch.empty_like(_dense(x)), torch.empty_like(_dense(x)), torch.empty_like(w)


define(
    "norm_act(Tensor x, Tensor w, Tensor b, Tensor? mean, Tensor? var, bool batch, float slope, float eps, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _forward,
    _forward_fake,
)
define(
    "norm_act_grad(Tensor dy, Tensor x, Tensor w, Tensor b, Tensor mean, Tensor var, bool constant, bool batch,"
    " float slope, float eps, str backend) -> (Tensor, Tensor, Tensor)",
    _grad,
    _grad_fake,
)
define(
    "norm_act_second(Tensor dy, Tensor x, Tensor w, Tensor b, Tensor mean, Tensor var, Tensor v, Tensor? v_w,"
    " Tensor? v_b, bool constant, bool batch, float slope, float eps, str backend) -> (Tensor, Tensor, Tensor)",
    _second,
    _second_fake,
)
