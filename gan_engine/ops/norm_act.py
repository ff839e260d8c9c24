"""Batch or instance normalisation with the activation behind it."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import gan_engine.ops.norm_act_kernels  # noqa: F401  (defines the operators)
from gan_engine import backends
from gan_engine.ops.kernel_op import Function, check_tensors, layout, operators, wide
from gan_engine.ops.one_node import one_node

_ACTS = ("linear", "relu", "lrelu")


def norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    *,
    norm: str = "batch",
    act: str = "linear",
    alpha: float = 0.2,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    backend: str | None = None,
) -> Tensor:
    """y = act(weight * (x - mean) / sqrt(var + eps) + bias)

    with mean and var of each channel; var is divided by the number of elements. "batch" takes them over the batch and
    its pixels (Ioffe and Szegedy 2015, arXiv:1502.03167). "instance" takes them over the pixels of each sample (Ulyanov
    et al. 2016, arXiv:1607.08022). The activation costs no pass over memory. The forward pass reads x twice and writes
    y. The gradient reads dy and x twice and writes dx. Only x is saved. Forward and backward are 1.4 to 3 times as fast
    as PyTorch's normalisation with bias_act behind it (one core, AVX-512, 2026-11): "batch" 2.4 to 2.6 in float32, 1.5
    to 1.9 in bfloat16 and 1.4 to 1.9 in channels_last; "instance" 1.4 to 2, and 2.4 to 3 in channels_last.

    Args:
        x: [N, C, ...], float32, float64, bfloat16 or float16, any strides.
        weight, bias: [C], in the dtype of x or in float32.
        running_mean, running_var: [C] or None, for "batch" alone, in float32 or the dtype of x. They move in place by
            `momentum` towards mean and the unbiased variance in training. Otherwise they are mean and var.
        act: linear, relu or lrelu, whose slope below 0 is alpha; no gain.
        training: False normalises "batch" with the running statistics; "instance" does the same in both modes.
        backend: see gan_engine.backends.

    Returns:
        y: the shape and dtype of x, channels_last if x is. Half precision is computed in float32 and rounded once.

    Raises:
        ValueError: an unknown `norm` or `act`, shapes that do not fit, statistics over a single element, no running
            statistics where they are needed.
        TypeError: other dtypes, a momentum of None.

    Gradients: every order in x, weight and bias. On GPUs the second and higher orders are PyTorch's operators, on CPUs
    the third and higher. Backend "reference" has two orders: PyTorch's batch_norm takes mean and var for constants in
    the third.
    """
    running = {"running_mean": running_mean, "running_var": running_var}
    own, count = _checked(x, {"weight": weight, "bias": bias, **running}, norm, act, training, momentum)
    slope = {"linear": 1.0, "relu": 0.0, "lrelu": float(alpha)}[act]
    backend = backends.choose("norm_act", x, backend)
    if backend == "reference":
        options: dict[str, Any] = {"norm": norm, "slope": slope, "training": own, "momentum": momentum, "eps": eps}
        return norm_act_ref(x, weight, bias, running_mean, running_var, **options)
    given = NormActArguments(norm == "batch", slope, float(eps), backend)
    stats = (None, None) if own else (running_mean, running_var)
    y, mean, var = _norm_act(x, weight, bias, *stats, given)
    if own and running_mean is not None and running_var is not None and x.numel() > 0:
        # Autograd does not count this change, as in PyTorch's batch norm: a backward pass may still wait.
        moved = mean.to(running_mean.dtype), var.mul(count / (count - 1)).to(running_var.dtype)
        torch._foreach_lerp_([running_mean.data, running_var.data], moved, momentum)
    return y


def _checked(
    x: Tensor, tensors: dict[str, Tensor | None], norm: str, act: str, training: bool, momentum: float
) -> tuple[bool, int]:
    """Refuse what does not fit. Returns whether x has statistics of its own, and over how many elements."""
    check_tensors("norm_act", x, **tensors)
    running_mean, running_var = tensors["running_mean"], tensors["running_var"]
    if tensors["weight"] is None or tensors["bias"] is None:
        raise TypeError("norm_act: weight and bias must be [C]; ones and zeros are what None would stand for")
    if norm not in ("batch", "instance"):
        raise ValueError(f"norm_act: norm must be batch or instance, got {norm!r}")
    if act not in _ACTS:
        raise ValueError(f"norm_act: act must be one of {', '.join(_ACTS)}, got {act!r}")
    if x.ndim < 2:
        raise ValueError(f"norm_act: x must be [N, C, ...], got {list(x.shape)}")
    for name, t in tensors.items():
        if t is None:
            continue
        if t.shape != x.shape[1:2]:
            raise ValueError(f"norm_act: {name} must be [C] = [{x.shape[1]}], got {list(t.shape)}")
        if t.dtype not in (x.dtype, torch.float32):
            raise TypeError(f"norm_act: {name} must be {x.dtype} like x, or torch.float32, got {t.dtype}")
        if t.device != x.device:
            raise ValueError(f"norm_act: {name} must be on {x.device} like x, got {t.device}")
    if (running_mean is None) != (running_var is None):
        raise ValueError("norm_act: running_mean and running_var must both be given or both be None, got one")
    if norm == "instance" and running_mean is not None:
        raise ValueError("norm_act: running statistics must be None with instance normalisation, got tensors")
    if norm == "batch" and not training and running_mean is None:
        raise ValueError("norm_act: running_mean and running_var must be given where training is False, got None")
    if momentum is None:
        raise TypeError("norm_act: momentum must be a number, got None; a plain mean takes 1 / (number of batches)")
    own = training or norm == "instance"
    count = x[:, :1].numel() if norm == "batch" else x[:1, :1].numel()
    if own and x.numel() > 0 and count < 2:
        raise ValueError(f"norm_act: statistics must be over at least 2 elements, got x {list(x.shape)}")
    return own, count


def norm_act_ref(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    *,
    norm: str,
    slope: float,
    training: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """The definition of `norm_act` in PyTorch's operators."""
    dtype = wide(x.dtype)
    x_, weight, bias = (t.to(dtype) for t in (x, weight, bias))
    if x.numel() == 0:
        z = x_ + (weight + bias).sum() * 0
    elif norm == "batch":
        z = F.batch_norm(x_, running_mean, running_var, weight, bias, training, momentum, eps)
    else:
        z = F.instance_norm(x_, weight=weight, bias=bias, eps=eps)
    y = z if slope == 1 else F.leaky_relu(z, slope) if slope else F.relu(z)
    return y.to(x.dtype, memory_format=layout(x)) if x.ndim == 4 else y.to(x.dtype)


backends.register("norm_act", has=("triton", "cpu"))


# Autograd. xhat = (x - mean) r, r = (var + eps)^(-1/2), z = w xhat + b, m = act'(z) and h = w m dy. < > is the mean
# over the elements of a channel that its statistics are taken over.
#
#   forward     y  = act(z)
#   _Grad       dx = r (h - <h> - xhat <h xhat>) = r P(h)    dw = sum of m dy xhat    db = sum of m dy
#
# P is its own adjoint, and the gradient of xhat by x is r P, that of r is -r^2 xhat / n. (v, v_w, v_b) are the
# gradients by (dx, dw, db). They give
#
#   d_dy = m (w r P(v) + v_w xhat + v_b)     d_w = sum of m dy r P(v)
#   d_x  = r P(v_w m dy - r (v <h xhat> + h <v xhat>)) - r^2 xhat <v P(h)>
#
# P(h) is h with running statistics, and d_x = v_w m dy r.


class NormActArguments(NamedTuple):
    batch: bool
    slope: float
    eps: float
    backend: str


class _NormAct(Function):
    """(y [x.shape], mean and var [C] or [N, C])"""

    @staticmethod
    def forward(x, w, b, mean, var, given):
        return operators.norm_act(x, w, b, mean, var, *given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, w, b, mean, var, ctx.given = inputs
        _, own_mean, own_var = output
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(own_mean, own_var)
        ctx.constant = mean is not None
        stats = (mean, var) if ctx.constant else (own_mean, own_var)
        ctx.save_for_backward(x, w, b, *stats)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _mean: None, _var: None) -> tuple:
        if dy is None:
            return (None,) * 6
        return *_Grad.apply(dy, *ctx.saved_tensors, ctx.constant, ctx.given), None, None, None


class _Grad(Function):
    """(dx [x.shape], dw [C], db [C])"""

    @staticmethod
    def forward(dy, x, w, b, mean, var, constant, given):
        return operators.norm_act_grad(dy, x, w, b, mean, var, constant, *given)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.constant, ctx.given = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, v: Tensor | None, v_w: Tensor | None, v_b: Tensor | None) -> tuple:
        if v is None and v_w is None and v_b is None:
            return (None,) * 8
        given: NormActArguments = ctx.given
        inputs = *ctx.saved_tensors, v, v_w, v_b, ctx.constant
        if given.backend == "cpu" and v is not None and not torch.is_grad_enabled():
            d_dy, d_x, d_w = operators.norm_act_second(*inputs, *given)
            if ctx.constant and v_w is None:
                d_x = None  # and not zeros, which all layers before would carry
        else:
            d_dy, d_x, d_w = _second(*inputs, given=given)
        return d_dy, d_x, d_w, None, None, None, None, None


def _second(
    dy: Tensor,
    x: Tensor,
    w: Tensor,
    b: Tensor,
    mean: Tensor,
    var: Tensor,
    v: Tensor | None,
    v_w: Tensor | None,
    v_b: Tensor | None,
    constant: bool,
    *,
    given: NormActArguments,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(d_dy, d_x, d_w) in PyTorch's own operators, which may be differentiated again; v, v_w or v_b is a tensor"""
    over = [0, *range(2, x.ndim)] if given.batch else [*range(2, x.ndim)]
    channels = [0, *range(2, x.ndim)]
    dtype = wide(x.dtype)

    def along(t: Tensor) -> Tensor:
        """[C] or [N, C] beside x"""
        return t.to(dtype).reshape(*([1] if t.ndim == 1 else []), *t.shape, *[1] * (x.ndim - 2))

    def average(t: Tensor) -> Tensor:
        return t.mean(over, keepdim=True)

    x_, dy_, w_ = x.to(dtype), dy.to(dtype), along(w)
    # mean and var must be functions of x again, because later orders differentiate this.
    mean, var = (along(mean), along(var)) if constant else (average(x_), x_.var(over, correction=0, keepdim=True))
    r = (var + given.eps).rsqrt()
    xhat = (x_ - mean) * r
    with torch.no_grad():
        rises = (w_ * xhat + along(b) > 0).to(dtype)
        m = rises + (1 - rises) * given.slope
    dz = m * dy_
    h = w_ * dz

    def project(t: Tensor) -> Tensor:
        return t if constant else t - average(t) - xhat * average(t * xhat)

    d_dy = d_x = d_w = None
    if v is not None:
        v = v.to(dtype)
        pv = r * project(v)
        d_dy = m * w_ * pv
        d_w = (dz * pv).sum(channels).to(w.dtype)
        if not constant:
            d_x = -r * r * (project(v * average(h * xhat) + h * average(v * xhat)) + xhat * average(v * project(h)))
    if v_w is not None:
        d_dy = _plus(d_dy, m * along(v_w) * xhat)
        d_x = _plus(d_x, r * project(along(v_w) * dz))
    if v_b is not None:
        d_dy = _plus(d_dy, m * along(v_b))
    d_x = None if d_x is None else d_x.to(x.dtype)
    assert d_dy is not None  # v, v_w or v_b is there
    return d_dy.to(dy.dtype), d_x, d_w


def _plus(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else a + b


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _norm_act(
    x: Tensor, w: Tensor, b: Tensor, mean: Tensor | None, var: Tensor | None, given: NormActArguments
) -> tuple[Tensor, Tensor, Tensor]:
    return _NormAct.apply(x, w, b, mean, var, given)
