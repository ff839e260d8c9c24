"""The kernels of bias_act as PyTorch operators without autograd, which fake tensors and torch.compile need."""

from typing import NamedTuple

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import define, in_layout, wide


class Activation(NamedTuple):
    """An activation of `bias_act`: its defaults, its number in csrc/bias_act.h, and what its gradient is read from."""

    code: int
    alpha: float
    gain: float
    saved: str  # "mask": one bit per element; "y": the output, or the input where there is a clamp; "x": the input


ACTIVATIONS = {
    "linear": Activation(0, 0.0, 1.0, "mask"),
    "relu": Activation(1, 0.0, 2**0.5, "mask"),
    "lrelu": Activation(2, 0.2, 2**0.5, "mask"),
    "tanh": Activation(3, 0.0, 1.0, "y"),
    "sigmoid": Activation(4, 0.0, 1.0, "y"),
    "elu": Activation(5, 0.0, 1.0, "y"),
    "selu": Activation(6, 0.0, 1.0, "y"),
    "softplus": Activation(7, 0.0, 1.0, "y"),
    "swish": Activation(8, 0.0, 2**0.5, "x"),
}


def _planes(act: str, clamp: float) -> tuple[bool, bool]:
    """Which bits an element's mask has: that of the slope, and that of the clamp."""
    masked = ACTIVATIONS[act].saved == "mask"
    return masked and act != "linear", masked and clamp >= 0


def _empty_mask(x: Tensor, act: str, clamp: float) -> Tensor:
    return x.new_empty((sum(_planes(act, clamp)), (x.numel() + 63) // 64 * 8), dtype=torch.uint8)


def _slope_and_keep(mask: Tensor, act: str, clamp: float) -> tuple[Tensor | None, Tensor | None]:
    has_slope, has_keep = _planes(act, clamp)
    return mask[0] if has_slope else None, mask[-1] if has_keep else None


def _inner(x: Tensor, dim: int) -> int:
    """How many elements of dense x lie between two neighbours along dim, so that c = (offset // inner) % C."""
    return x.stride(dim) if x.shape[dim] > 1 else 1


def _forward(x, b, dim, act, alpha, gain, clamp, backend, record):
    y, mask = _forward_fake(x, b, dim, act, alpha, gain, clamp, backend, record)
    if x.numel() > 0:
        if x.stride() != y.stride():
            x = y.new_empty_strided(y.shape, y.stride()).copy_(x)
        b = None if b is None else b.to(wide(x.dtype)).contiguous()
        slope, keep = _slope_and_keep(mask, act, clamp) if record else (None, None)
        backends.kernels("bias_act", backend).bias_act(
            x, b, y, slope, keep, x.numel(), _inner(x, dim), x.shape[dim], x.dtype,
            ACTIVATIONS[act].code, alpha, gain, clamp,
        )  # fmt: skip
    return y, mask


def _forward_fake(x, b, dim, act, alpha, gain, clamp, backend, record):
    return torch.empty_like(x), _empty_mask(x, act, clamp) if record else x.new_empty(0, dtype=torch.uint8)


def _grad(dy, d_db, saved, b, stride, dim, act, alpha, gain, clamp, backend, reduce):
    channels = dy.shape[dim]
    dx = dy.new_empty_strided(dy.shape, stride)
    if dy.numel() == 0:
        return dx, dy.new_zeros(channels if reduce else 0, dtype=wide(dy.dtype))
    dy = in_layout(dy, stride)
    dtype = wide(dy.dtype)
    d_db, b = (None if t is None else t.to(dtype).contiguous() for t in (d_db, b))
    slope, keep = _slope_and_keep(saved, act, clamp)
    if ACTIVATIONS[act].saved != "mask":
        saved = in_layout(saved, stride)
    kernels = backends.kernels("bias_act", backend)
    inner = _inner(dx, dim)
    slots = kernels.bias_act_grad_slots(dy.numel(), inner, channels) if reduce else 0
    partial = dy.new_empty((slots, channels), dtype=dtype)
    kernels.bias_act_grad(
        dy, d_db, saved, b, slope, keep, dx, partial, slots, dy.numel(), inner, channels, dy.dtype,
        ACTIVATIONS[act].code, alpha, gain, clamp,
    )  # fmt: skip
    if not reduce:
        return dx, dy.new_empty(0, dtype=dtype)
    return dx, partial[0] if slots == 1 else partial.sum(0, dtype=torch.float64).to(dtype)


def _grad_fake(dy, d_db, saved, b, stride, dim, act, alpha, gain, clamp, backend, reduce):
    return dy.new_empty_strided(dy.shape, stride), dy.new_empty(dy.shape[dim] if reduce else 0, dtype=wide(dy.dtype))


def _slope(v, mask, act, alpha, gain, clamp, backend):
    slope, keep = _slope_and_keep(mask, act, clamp)
    if v.numel() > 0:
        backends.kernels("bias_act", backend).bias_act_grad(
            v, None, mask, None, slope, keep, v, v.new_empty(0), 0, v.numel(), 1, 1, v.dtype,
            ACTIVATIONS[act].code, alpha, gain, clamp,
        )  # fmt: skip


def _slope_fake(v, mask, act, alpha, gain, clamp, backend):
    pass


define(
    "bias_act(Tensor x, Tensor? b, int dim, str act, float alpha, float gain, float clamp, str backend,"
    " bool record) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
define(
    "bias_act_grad(Tensor dy, Tensor? d_db, Tensor saved, Tensor? b, SymInt[] stride, int dim, str act, float alpha,"
    " float gain, float clamp, str backend, bool reduce) -> (Tensor, Tensor)",
    _grad,
    _grad_fake,
)
# v <- m v in place, for a piecewise linear activation; v is laid out as the y of which mask speaks.
define(
    "bias_act_slope_(Tensor(a!) v, Tensor mask, str act, float alpha, float gain, float clamp, str backend) -> ()",
    _slope,
    _slope_fake,
)
