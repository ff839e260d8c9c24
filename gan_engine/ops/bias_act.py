"""Bias, activation, gain and clamp in one pass over memory."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine import backends, native
from gan_engine.ops.kernel_op import define


class Activation(NamedTuple):
    """An activation of `bias_act`: its defaults, its number in csrc/bias_act.h, and what its gradient is read from."""

    code: int
    alpha: float
    gain: float
    saved: str  # "mask": one bit per element; "y": the output; "x": the input


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
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(x + b, alpha), -clamp, clamp)

    Args:
        x: [...], at least one dimension, float32, float64, bfloat16 or float16, any strides.
        b: [C] with C = x.shape[dim], in the dtype of x or in float32; None adds nothing.
        dim: the dimension of x that b runs along; of no account without b.
        act: linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus (identity above 20) or swish (x * sigmoid(x)).
        alpha: the slope of lrelu below 0, default 0.2; the other activations ignore it.
        gain: factor behind the activation; default sqrt(2) for relu, lrelu and swish (He et al. 2015,
            arXiv:1502.01852: it keeps the variance), 1 for the others.
        clamp: limit of |y|, at least 0; None is no limit.
        backend: see gan_engine.backends.

    Returns:
        y: the shape, dtype and memory layout of x. Half precision is computed in float32 and rounded once.

    Where the slope is not defined the gradient is that of PyTorch: alpha at x + b = 0, and 1 at |y| = clamp (the smooth
    activations read the clamp from y, so there it is 0). Saved for the gradient: one bit an element each for slope and
    clamp (linear, relu, lrelu), or y, or x (swish).

    Raises:
        ValueError: an unknown `act`, a bias that does not fit, a `dim` out of range, a negative clamp.
        TypeError: a dtype other than the four.

    Gradients: every order in x and b.
    """
    spec = ACTIVATIONS.get(act)
    if spec is None:
        raise ValueError(f"bias_act: act must be one of {', '.join(ACTIVATIONS)}, got {act!r}")
    if x.dtype not in native.DTYPES:
        raise TypeError(f"bias_act: x must be float32, float64, bfloat16 or float16, got {x.dtype}")
    if x.ndim == 0:
        raise ValueError("bias_act: x must have at least 1 dimension, got a scalar")
    if b is not None:
        if not -x.ndim <= dim < x.ndim:
            raise ValueError(f"bias_act: dim must be in [{-x.ndim}, {x.ndim - 1}] for x {list(x.shape)}, got {dim}")
        if b.ndim != 1 or b.shape[0] != x.shape[dim]:
            raise ValueError(f"bias_act: b must be [C] = [{x.shape[dim]}], got {list(b.shape)}")
        if b.dtype != x.dtype and b.dtype != torch.float32:
            raise TypeError(f"bias_act: b must be {x.dtype} like x, or torch.float32, got {b.dtype}")
        if b.device != x.device:
            raise ValueError(f"bias_act: b must be on {x.device} like x, got {b.device}")
        dim = dim % x.ndim
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"bias_act: clamp must be at least 0, got {clamp}")
    alpha = spec.alpha if alpha is None or act != "lrelu" else float(alpha)
    gain = spec.gain if gain is None else float(gain)
    backend = backends.choose("bias_act", x, backend)
    if backend == "reference":
        return bias_act_ref(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
    limit = -1.0 if clamp is None else float(clamp)
    return _bias_act(x, b, dim if b is not None else 0, act, alpha, gain, limit, backend)


def bias_act_ref(
    x: Tensor, b: Tensor | None, *, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """The definition of `bias_act` in plain PyTorch."""
    wide = _wide(x.dtype)
    z = x.to(wide)
    if b is not None:
        z = z + b.to(wide).reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    y = {
        "linear": lambda: z,
        "relu": lambda: F.relu(z),
        "lrelu": lambda: F.leaky_relu(z, alpha),
        "tanh": lambda: torch.tanh(z),
        "sigmoid": lambda: torch.sigmoid(z),
        "elu": lambda: F.elu(z),
        "selu": lambda: F.selu(z),
        "softplus": lambda: F.softplus(z),
        "swish": lambda: z * torch.sigmoid(z),
    }[act]()
    if gain != 1:
        y = y * gain
    if clamp is not None:
        y = y.clamp(-clamp, clamp)
    return y.to(x.dtype)


# Autograd. With m the derivative of y by x + b, read from what the forward pass saved:
#
#   forward     y = clamp(gain * act(x + b))
#   _Reduce     (dx, db) = (m * dy, sum of m * dy over all but dim)
#   _Spread     d_dy     = m * (d_dx + d_db)
#
# _Reduce and _Spread are linear, and each is the other's gradient: with a piecewise linear activation every order runs
# on the same kernel. The smooth ones take their second order from m and its slope in plain PyTorch. A gradient that is
# undefined (None) stays so: zeros in its place would send whole convolutions over zeros through a gradient penalty.


class _Call(NamedTuple):
    """What every pass of one call shares. `stride` is the layout of y, which the bits of the mask follow."""

    stride: tuple[int, ...]
    dim: int
    act: str
    alpha: float
    gain: float
    clamp: float
    backend: str

    @property
    def scales_only(self) -> bool:
        return self.act == "linear" and self.clamp < 0


class _BiasAct(torch.autograd.Function):
    @staticmethod
    def forward(x, b, dim, act, alpha, gain, clamp, backend):
        return torch.ops.gan_engine.bias_act(x, b, dim, act, alpha, gain, clamp, backend)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, b, dim, act, alpha, gain, clamp, backend = inputs
        y, mask = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mask)
        ctx.call = _Call(y.stride(), dim, act, alpha, gain, _storable(clamp, y.dtype), backend)
        ctx.b_dtype = None if b is None else b.dtype
        reads = ACTIVATIONS[ctx.call.act].saved
        ctx.save_for_backward({"mask": mask, "y": y, "x": x}[reads], b if reads == "x" else None)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple:
        if dy is None:
            return (None,) * 8
        saved, b = ctx.saved_tensors
        dx, db = _Reduce.apply(dy, saved, b, ctx.b_dtype if ctx.needs_input_grad[1] else None, ctx.call)
        return dx, db, None, None, None, None, None, None


class _Reduce(torch.autograd.Function):
    """(dx [x.shape], db [C] or None) = (m * dy, its sum over all but dim)"""

    @staticmethod
    def forward(dy, saved, b, b_dtype, call):
        if call.scales_only:
            dx = dy.view_as(dy) if call.gain == 1 else dy * call.gain
            db = None if b_dtype is None else _sum_to(dx.to(_wide(dx.dtype)), call.dim)
        else:
            dx, db = torch.ops.gan_engine.bias_act_grad(dy, None, saved, b, *call, b_dtype is not None)
        return dx, None if b_dtype is None else db.to(b_dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        dy, saved, b, _, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.dtype = dy.shape, dy.dtype
        ctx.save_for_backward(dy if ACTIVATIONS[ctx.call.act].saved != "mask" else None, saved, b)

    @staticmethod
    def backward(ctx: Any, d_dx: Tensor | None, d_db: Tensor | None) -> tuple:
        if d_dx is None and d_db is None:
            return (None,) * 5
        dy, saved, b = ctx.saved_tensors
        if d_dx is None:
            d_dx = d_db.new_zeros((), dtype=ctx.dtype).expand(ctx.shape)
        if dy is None:
            return _Spread.apply(d_dx, d_db, saved, ctx.call), None, None, None, None
        wide = _wide(dy.dtype)
        v = d_dx.to(wide)
        if d_db is not None:
            v = v + _along(d_db.to(wide), ctx.call.dim, v)
        m, slope = _m_and_slope(saved.to(wide), b, ctx.call)
        d_saved = v * dy.to(wide) * slope
        d_b = _sum_to(d_saved, ctx.call.dim).to(b.dtype) if ctx.needs_input_grad[2] else None
        return (v * m).to(dy.dtype), d_saved.to(saved.dtype), d_b, None, None


class _Spread(torch.autograd.Function):
    """d_dy [x.shape] = m * (d_dx [x.shape] + d_db [C]), for the piecewise linear activations"""

    @staticmethod
    def forward(d_dx, d_db, saved, call):
        if not call.scales_only:
            return torch.ops.gan_engine.bias_act_grad(d_dx, d_db, saved, None, *call, False)[0]
        if d_db is not None:
            d_dx = d_dx + _along(d_db, call.dim, d_dx).to(d_dx.dtype)
        return d_dx.view_as(d_dx) if call.gain == 1 else d_dx * call.gain

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, d_db, saved, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.b_dtype = None if d_db is None else d_db.dtype
        ctx.save_for_backward(saved)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None) -> tuple:
        if d_out is None:
            return (None,) * 4
        b_dtype = ctx.b_dtype if ctx.needs_input_grad[1] else None
        return *_Reduce.apply(d_out, *ctx.saved_tensors, None, b_dtype, ctx.call), None, None


def _m_and_slope(saved: Tensor, b: Tensor | None, call: _Call) -> tuple[Tensor, Tensor]:
    """m as a function of what was saved (y, or x of swish), and its derivative by that."""
    if call.act == "swish":
        z = saved if b is None else saved + _along(b.to(saved.dtype), call.dim, saved)
        s = torch.sigmoid(z)
        y = call.gain * z * s
        m = call.gain * s * (1 + z * (1 - s))
        slope = call.gain * s * (1 - s) * (2 + z * (1 - 2 * s))
    else:
        y = saved
        t = y / call.gain if call.gain != 0 else y
        one = torch.ones((), dtype=t.dtype, device=t.device)
        m, slope = {
            "tanh": lambda: (1 - t * t, -2 * t),
            "sigmoid": lambda: (t * (1 - t), 1 - 2 * t),
            "elu": lambda: (torch.where(t > 0, one, t + 1), (t <= 0).to(t.dtype)),
            "selu": lambda: (
                torch.where(t > 0, _SELU_SCALE * one, t + _SELU_SCALE * _SELU_ALPHA),
                (t <= 0).to(t.dtype),
            ),
            "softplus": lambda: (1 - torch.exp(-t), torch.exp(-t)),
        }[call.act]()
        m = m * call.gain
    if call.clamp >= 0:
        passes = y.abs() < call.clamp
        m, slope = m * passes, slope * passes
    return m, slope


def _storable(value: float, dtype: torch.dtype) -> float:
    """`value` as numbers of `dtype` can hold it: a clamped y in half precision may lie below the clamp itself."""
    bits = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.float64: 53}[dtype]
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _along(b: Tensor, dim: int, x: Tensor) -> Tensor:
    return b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])


def _sum_to(x: Tensor, dim: int) -> Tensor:
    return x.sum_to_size([n if i == dim else 1 for i, n in enumerate(x.shape)]).reshape(-1)


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@torch.compiler.allow_in_graph
def _bias_act(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float, backend: str
) -> Tensor:
    return _BiasAct.apply(x, b, dim, act, alpha, gain, clamp, backend)[0]


# The kernels as PyTorch operators without autograd, which fake tensors and torch.compile need.


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


def _forward(x, b, dim, act, alpha, gain, clamp, backend):
    y = torch.empty_like(x)
    mask = _empty_mask(x, act, clamp)
    if x.numel() > 0:
        if x.stride() != y.stride():
            x = y.new_empty_strided(y.shape, y.stride()).copy_(x)
        b = None if b is None else b.detach().to(_wide(x.dtype)).contiguous()
        slope, keep = _slope_and_keep(mask, act, clamp)
        backends.kernels("bias_act", backend).bias_act(
            x, b, y, slope, keep, x.numel(), _inner(x, dim), x.shape[dim], x.dtype,
            ACTIVATIONS[act].code, alpha, gain, clamp,
        )  # fmt: skip
    return y, mask


def _forward_fake(x, b, dim, act, alpha, gain, clamp, backend):
    return torch.empty_like(x), _empty_mask(x, act, clamp)


def _grad(dy, d_db, saved, b, stride, dim, act, alpha, gain, clamp, backend, reduce):
    channels = dy.shape[dim]
    dx = dy.new_empty_strided(dy.shape, stride)
    if dy.numel() == 0:
        return dx, dy.new_zeros(channels if reduce else 0, dtype=_wide(dy.dtype))
    dy = _in_layout(dy, stride)
    wide = _wide(dy.dtype)
    d_db, b = (None if t is None else t.detach().to(wide).contiguous() for t in (d_db, b))
    slope, keep = _slope_and_keep(saved, act, clamp)
    if ACTIVATIONS[act].saved != "mask":
        saved = _in_layout(saved, stride)
    kernels = backends.kernels("bias_act", backend)
    inner = _inner(dx, dim)
    slots = kernels.bias_act_grad_slots(dy.numel(), inner, channels) if reduce else 0
    partial = dy.new_empty((slots, channels), dtype=wide)
    kernels.bias_act_grad(
        dy, d_db, saved, b, slope, keep, dx, partial, slots, dy.numel(), inner, channels, dy.dtype,
        ACTIVATIONS[act].code, alpha, gain, clamp,
    )  # fmt: skip
    return dx, partial.sum(0, dtype=torch.float64).to(wide) if reduce else dy.new_empty(0, dtype=wide)


def _in_layout(t: Tensor, stride: tuple[int, ...]) -> Tensor:
    same = all(n == 1 or a == b for n, a, b in zip(t.shape, t.stride(), stride, strict=True))
    return t if same else t.new_empty_strided(t.shape, stride).copy_(t)


def _grad_fake(dy, d_db, saved, b, stride, dim, act, alpha, gain, clamp, backend, reduce):
    return dy.new_empty_strided(dy.shape, stride), dy.new_empty(dy.shape[dim] if reduce else 0, dtype=_wide(dy.dtype))


define(
    "bias_act(Tensor x, Tensor? b, int dim, str act, float alpha, float gain, float clamp, str backend)"
    " -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
define(
    "bias_act_grad(Tensor dy, Tensor? d_db, Tensor saved, Tensor? b, SymInt[] stride, int dim, str act, float alpha,"
    " float gain, float clamp, str backend, bool reduce) -> (Tensor, Tensor)",
    _grad,
    _grad_fake,
)
backends.register("bias_act")
