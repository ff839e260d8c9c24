"""Bias, activation, gain and clamp in one pass over memory."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from gan_engine import backends
from gan_engine.ops.bias_act_kernels import ACTIVATIONS
from gan_engine.ops.kernel_op import Function, check_tensors, operators, stride_to_keep, wide
from gan_engine.ops.limits import clamped
from gan_engine.ops.one_node import one_node
from gan_engine.ops.thresholds import TABLE, Threshold

_DEFINITIONS = {
    "linear": lambda z, alpha: z,
    "relu": lambda z, alpha: F.relu(z),
    "lrelu": lambda z, alpha: F.leaky_relu(z, alpha),
    "tanh": lambda z, alpha: torch.tanh(z),
    "sigmoid": lambda z, alpha: torch.sigmoid(z),
    "elu": lambda z, alpha: F.elu(z),
    "selu": lambda z, alpha: F.selu(z),
    "softplus": lambda z, alpha: F.softplus(z),
    "swish": lambda z, alpha: z * torch.sigmoid(z),
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
        y: the shape, dtype and memory layout of x, but for strides of dimensions of size 1. Half precision is computed
        in float32 and rounded once.

    An undefined slope is PyTorch's: alpha at x + b = 0, and 1 at |y| = clamp. Kernels save for the gradient of linear,
    relu and lrelu one bit an element for the slope, and one for the clamp. They save x for swish. They save y for the
    other activations, or x if there is a clamp. PyTorch's operators run few elements on a CPU, and save one number an
    element.

    Raises:
        ValueError: an unknown `act`, a bias that does not fit, a `dim` out of range, a negative clamp.
        TypeError: a dtype other than the four.

    Gradients: every order in x and b.
    """
    if has_torch_function((x, b)):
        return handle_torch_function(
            bias_act, (x, b), x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=backend
        )
    dim, alpha, gain, clamp = _checked(x, b, dim, act, alpha, gain, clamp)
    mixed = b is not None and b.dtype != x.dtype
    backend = backends.choose("bias_act", x, backend, (act, alpha, gain, clamp, mixed))
    if backend == "pytorch" and clamp is None and not mixed:
        if act == "linear" and gain == 1:
            return x.clone() if b is None else x + _along(b, dim, x)
        # The product rounds its factor, which must not vanish.
        if act == "lrelu" and 1e-6 <= abs(alpha) <= 1e6 and x.dtype.itemsize >= 4:
            return lrelu_product(x if b is None else x + _along(b, dim, x), alpha, gain)
    if backend == "pytorch" or backend == "reference":
        return bias_act_ref(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp)
    return _bias_act(x, b, dim, act, alpha, gain, -1.0 if clamp is None else float(clamp), backend)


def _checked(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float | None, gain: float | None, clamp: float | None
) -> tuple[int, float, float, float | None]:
    """Refuse arguments that do not fit. Returns dim from 0 on, and alpha, gain and clamp with their defaults."""
    check_tensors("bias_act", x, b=b)
    spec = ACTIVATIONS.get(act)
    if spec is None:
        raise ValueError(f"bias_act: act must be one of {', '.join(ACTIVATIONS)}, got {act!r}")
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
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"bias_act: clamp must be at least 0, got {clamp}")
    return (
        0 if b is None else dim % x.ndim,
        spec.alpha if alpha is None or act != "lrelu" else float(alpha),
        spec.gain if gain is None else float(gain),
        None if clamp == math.inf else clamp,
    )


def bias_act_ref(
    x: Tensor, b: Tensor | None, *, dim: int, act: str, alpha: float, gain: float, clamp: float | None
) -> Tensor:
    """The definition of `bias_act` in PyTorch's operators."""
    dtype = wide(x.dtype)
    z = x.to(dtype)
    if b is not None:
        z = z + _along(b.to(dtype), dim, z)
    y = _DEFINITIONS[act](z, alpha)
    if gain != 1:
        y = y * gain
    if clamp is not None:
        y = clamped(y, clamp)
    return y.to(x.dtype)


# What the chooser asks. The backend "pytorch" is the definition, except for two short forms without a clamp: x + b, and
# lrelu as a product.

_ONE_OPERATOR = "linear with a gain of 1 and no clamp is one operator of PyTorch"
_AS_DEFINED = "runs the operators of the definition"


def _no_gain(backend: str, x: Tensor, arguments: tuple | None) -> str | None:
    """`arguments`: (act, alpha, gain, clamp, whether b has another dtype than x)"""
    faster = None  # why PyTorch's operators are as fast as a kernel
    if arguments is not None:
        act, alpha, gain, clamp, mixed = arguments
        if clamp is None and not mixed:
            if act == "lrelu":
                if 1e-6 <= abs(alpha) <= 1e6 and is_few(x, x.numel(), few := TABLE["few elements"]):
                    faster = few.sentence
            elif act == "tanh":
                if is_few(x, x.numel(), few := TABLE["few elements of tanh"]):
                    faster = few.sentence
            elif act == "linear" and gain == 1:
                faster = _ONE_OPERATOR
    if backend == "pytorch":
        return _AS_DEFINED if faster is None else None
    return faster


def is_few(x: Tensor, elements: int, threshold: Threshold) -> bool:
    """True if a call makes at most `threshold.number` float32 numbers on a CPU. It makes `elements` of them from x.

    False while a compiler records, because compiled code runs for other sizes too, and under autocast.
    """
    return (
        not torch.compiler.is_compiling()
        and elements <= threshold.number
        and x.is_cpu
        and x.dtype == torch.float32
        and not (torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled("cpu"))
    )


def lrelu_product(z: Tensor, alpha: float, gain: float) -> Tensor:
    """gain * leaky_relu(z, alpha) as z m: the slope m, gain or alpha * gain, is a constant to every order

    The second order of PyTorch's own leaky_relu is a tensor of zeros, which flows on through all layers before it.
    """
    return z * torch.ops.aten.leaky_relu_backward(z.new_full((), gain), z.detach(), alpha, False)


backends.register("bias_act", has=("cuda", "triton", "cpu", "pytorch"), no_gain=_no_gain, recordable=True)


# Autograd. m is the derivative of y by x + b. It is read from a tensor that the forward pass saved.
#
#   forward     y = clamp(gain * act(x + b))
#   _Reduce     (dx, db) = (m * dy, sum of m * dy over all but dim)
#   _Spread     d_dy     = m * (d_dx + d_db)
#
# _Reduce and _Spread are linear, and each is the other's gradient: with a piecewise linear activation every order runs
# on the same kernel. The smooth ones take their second order from m and its slope in PyTorch's operators. A gradient
# that is undefined (None) stays so: zeros in its place would send whole convolutions over zeros through a gradient
# penalty.


class BiasActArguments(NamedTuple):
    """The arguments that all passes of a call share. `stride` is the layout of y, which the bits of the mask follow."""

    stride: tuple[int, ...]
    dim: int
    act: str
    alpha: float
    gain: float
    clamp: float
    backend: str

    @property
    def reads(self) -> str:
        """What m is read from: the mask, x, or y. A clamped y in half precision hides what was just below the clamp."""
        saved = ACTIVATIONS[self.act].saved
        return "x" if saved == "y" and self.clamp >= 0 else saved


class _BiasAct(Function):
    @staticmethod
    def forward(x, b, dim, act, alpha, gain, clamp, backend, record):
        return operators.bias_act(x, b, dim, act, alpha, gain, clamp, backend, record)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, b, dim, act, alpha, gain, clamp, backend, _ = inputs
        y, mask = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(mask)
        ctx.given = BiasActArguments(stride_to_keep(y), dim, act, alpha, gain, clamp, backend)
        ctx.b_dtype = None if b is None else b.dtype
        reads = ctx.given.reads
        ctx.save_for_backward({"mask": mask, "y": y, "x": x}[reads], b if reads == "x" else None)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple:
        if dy is None:
            return (None,) * 9
        given, b_dtype = ctx.given, ctx.b_dtype if ctx.needs_input_grad[1] else None
        if given.act == "linear" and given.clamp < 0 and given.gain == 1:  # dx is dy: there is no pass to join
            db = None if b_dtype is None else _sum_to(dy, given.dim).to(b_dtype)
            return dy, db, None, None, None, None, None, None, None
        return *_Reduce.apply(dy, *ctx.saved_tensors, b_dtype, given), None, None, None, None, None, None, None


class _Reduce(Function):
    """(dx [x.shape], db [C] or None) = (m * dy, its sum over all but dim)"""

    @staticmethod
    def forward(dy, saved, b, b_dtype, given):
        dx, db = operators.bias_act_grad(dy, None, saved, b, *given, b_dtype is not None)
        return dx, None if b_dtype is None else db.to(b_dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        dy, saved, b, _, ctx.given = inputs
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.dtype = dy.shape, dy.dtype
        ctx.save_for_backward(None if ctx.given.reads == "mask" else dy, saved, b)

    @staticmethod
    def backward(ctx: Any, d_dx: Tensor | None, d_db: Tensor | None) -> tuple:
        if d_dx is None and d_db is None:
            return (None,) * 5
        dy, saved, b = ctx.saved_tensors
        if d_dx is None:
            assert d_db is not None
            d_dx = d_db.new_zeros((), dtype=ctx.dtype).expand(ctx.shape)
        if dy is None:
            return _Spread.apply(d_dx, d_db, saved, ctx.given), None, None, None, None
        dtype = wide(dy.dtype)
        v = d_dx.to(dtype)
        if d_db is not None:
            v = v + _along(d_db.to(dtype), ctx.given.dim, v)
        m, slope = _m_and_slope(saved.to(dtype), b, ctx.given)
        d_saved = v * dy.to(dtype) * slope
        d_b = _sum_to(d_saved, ctx.given.dim).to(b.dtype) if ctx.needs_input_grad[2] else None
        return (v * m).to(dy.dtype), d_saved.to(saved.dtype), d_b, None, None


class _Spread(Function):
    """d_dy [x.shape] = m * (d_dx [x.shape] + d_db [C]), for the piecewise linear activations"""

    @staticmethod
    def forward(d_dx, d_db, saved, given):
        return operators.bias_act_grad(d_dx, d_db, saved, None, *given, False)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, d_db, saved, ctx.given = inputs
        ctx.set_materialize_grads(False)
        ctx.b_dtype = None if d_db is None else d_db.dtype
        ctx.save_for_backward(saved)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None) -> tuple:
        if d_out is None:
            return (None,) * 4
        b_dtype = ctx.b_dtype if ctx.needs_input_grad[1] else None
        return *_Reduce.apply(d_out, *ctx.saved_tensors, None, b_dtype, ctx.given), None, None


def _m_and_slope(saved: Tensor, b: Tensor | None, given: BiasActArguments) -> tuple[Tensor, Tensor]:
    """m of a smooth activation as a function of the saved x or y, and the derivative of m by it."""
    z = saved if b is None else saved + _along(b.to(saved.dtype), given.dim, saved)
    if given.act == "swish":
        s = torch.sigmoid(z)
        t = z * s
        m, slope = s * (1 + z * (1 - s)), s * (1 - s) * (2 + z * (1 - 2 * s))
    else:
        # act' and d act' / dt are simple functions of t = act(z). The slope by x is act' d act' / dt.
        t = _DEFINITIONS[given.act](z, given.alpha) if given.reads == "x" else saved / (given.gain or 1.0)
        one = torch.ones((), dtype=t.dtype, device=t.device)
        m, slope = {
            "tanh": lambda: (1 - t * t, -2 * t),
            "sigmoid": lambda: (t * (1 - t), 1 - 2 * t),
            "elu": lambda: (torch.where(t > 0, one, t + 1), (t < 0).to(t.dtype)),
            "selu": lambda: (torch.where(t > 0, _SELU_SCALE * one, t + _SELU_SCALE * _SELU_ALPHA), (t < 0).to(t.dtype)),
            "softplus": lambda: (1 - torch.exp(-t), torch.exp(-t)),
        }[given.act]()
        slope = slope * m if given.reads == "x" else slope / (given.gain or 1.0)
    m, slope = m * given.gain, slope * given.gain
    if given.clamp >= 0:
        passes = (t * given.gain).abs() <= given.clamp
        m, slope = m * passes, slope * passes
    return m, slope


def _along(b: Tensor, dim: int, x: Tensor) -> Tensor:
    """b [C], so that it broadcasts along dimension `dim` of x"""
    if dim == x.ndim - 1:
        return b
    return b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])


def _sum_to(x: Tensor, dim: int) -> Tensor:
    others = [i for i in range(x.ndim) if i != dim]
    return x.sum(others, dtype=wide(x.dtype)) if others else x.to(wide(x.dtype))


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _bias_act(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float, backend: str
) -> Tensor:
    # No mask is written if no gradient will come. A tensor under torch.func speaks for its own level alone.
    wanted = torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    record = wanted or torch._C._are_functorch_transforms_active()
    return _BiasAct.apply(x, b, dim, act, alpha, gain, clamp, backend, record)[0]
