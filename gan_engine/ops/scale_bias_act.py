"""Scale per image and channel, bias, noise, activation, gain and clamp in one pass over memory."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.bias_act import ACTIVATIONS
from gan_engine.ops.kernel_op import Function, check_tensors, define, layout, operators, wide
from gan_engine.ops.one_node import one_node
from gan_engine.ops.upfirdn2d import Fir

ACTS = ("linear", "relu", "lrelu")


def scale_bias_act(
    x: Tensor,
    scale: Tensor | None = None,
    b: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(x * scale[n, c] + b[c] + noise[n, 0, h, w], alpha), -clamp, clamp)

    What stands around the convolution of a style-based generator (Karras et al. 2020, arXiv:1912.04958, figure 2):
    modulation before it, and behind it demodulation, noise, bias and activation.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        scale: [N, C]; None multiplies by 1.
        b: [C]; None adds nothing.
        noise: [N, 1, H, W] or [1, 1, H, W]; None adds nothing.
        act: linear, relu or lrelu.
        alpha: the slope of lrelu below 0, default 0.2; the other activations ignore it.
        gain: factor behind the activation, default sqrt(2) for relu and lrelu, 1 for linear, as in `bias_act`.
        clamp: limit of |y|, at least 0; None is no limit.
        backend: see gan_engine.backends.

    scale, b and noise are in the dtype of x or in float32.

    Returns:
        y: the shape and dtype of x; channels_last where x is, else contiguous. Half precision is computed in float32
        and rounded once.

    Where the slope is not defined the gradient is that of PyTorch: alpha at 0, and 1 at |y| = clamp. Saved for the
    gradient: one bit an element each for slope and clamp, and x where there is a scale. The gradient by the scale is
    the sum of m * dy * x; to read x off y would save an activation, but divides by the scale, loses the digits that a
    large bias or noise covers, and lets the second order flow through y, where nothing should flow.

    Raises:
        ValueError: an activation that is not piecewise linear, shapes that do not fit, a negative clamp.
        TypeError: a dtype other than those above.

    Gradients: every order in x, scale, b and noise.
    """
    check_tensors("scale_bias_act", x, scale=scale, b=b, noise=noise)
    if x.ndim != 4:
        raise ValueError(f"scale_bias_act: x must be [N, C, H, W], got {list(x.shape)}")
    alpha, gain, limit = checked("scale_bias_act", x, x.shape, scale, b, noise, act, alpha, gain, clamp)
    backend = backends.choose("scale_bias_act", x, backend)
    if backend == "reference":
        return scale_bias_act_ref(x, scale, b, noise, alpha, gain, limit)
    return affine(x, None, scale, b, noise, Call(layout(x) == torch.channels_last, alpha, gain, limit, backend))


def scale_bias_act_ref(
    x: Tensor, scale: Tensor | None, b: Tensor | None, noise: Tensor | None, alpha: float, gain: float, clamp: float
) -> Tensor:
    """The definition of `scale_bias_act` in plain PyTorch; alpha is 1 for linear and 0 for relu, clamp < 0 is none."""
    dtype = wide(x.dtype)
    y = x.to(dtype)
    if scale is not None:
        y = y * scale.to(dtype)[:, :, None, None]
    if b is not None:
        y = y + b.to(dtype)[:, None, None]
    if noise is not None:
        y = y + noise.to(dtype)
    if alpha != 1:
        y = F.leaky_relu(y, alpha)
    if gain != 1:
        y = y * gain
    if clamp >= 0:
        y = y.clamp(-clamp, clamp)
    return y.to(x.dtype).contiguous(memory_format=layout(x))


def checked(
    op: str,
    x: Tensor,
    shape: Sequence[int],
    scale: Tensor | None,
    b: Tensor | None,
    noise: Tensor | None,
    act: str,
    alpha: float | None,
    gain: float | None,
    clamp: float | None,
) -> tuple[float, float, float]:
    """alpha, gain and clamp as the kernels take them; refuses, in the name of `op`, what does not fit a y of `shape`"""
    if act not in ACTS:
        raise ValueError(f"{op}: act must be linear, relu or lrelu, got {act!r}")
    n, c, h, w = shape
    noises = {"[N, 1, H, W]": (n, 1, h, w), "[1, 1, H, W]": (1, 1, h, w)}
    for name, t, wanted in (
        ("scale", scale, {"[N, C]": (n, c)}),
        ("b", b, {"[C]": (c,)}),
        ("noise", noise, noises),
    ):
        if t is None:
            continue
        if tuple(t.shape) not in wanted.values():
            want = " or ".join(f"{text} = {list(shape)}" for text, shape in wanted.items())
            raise ValueError(f"{op}: {name} must be {want}, got {list(t.shape)}")
        if t.dtype != x.dtype and t.dtype != torch.float32:
            raise TypeError(f"{op}: {name} must be {x.dtype} like x, or torch.float32, got {t.dtype}")
        if t.device != x.device:
            raise ValueError(f"{op}: {name} must be on {x.device} like x, got {t.device}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"{op}: clamp must be at least 0, got {clamp}")
    slopes = {"linear": 1.0, "relu": 0.0, "lrelu": ACTIVATIONS["lrelu"].alpha if alpha is None else float(alpha)}
    gain = ACTIVATIONS[act].gain if gain is None else float(gain)
    return slopes[act], gain, -1.0 if clamp is None else float(clamp)


# Autograd, also of `upfirdn2d_act`: F is the FIR filter there, and nothing here. With m the derivative by the argument
# of act, 0, gain or alpha * gain, which the bits of the mask give:
#
#   _Affine  y = clamp(gain * act(scale * F x + b + noise))
#   _Pull    (dx, d_scale, db, d_noise) = (scale * g, and the sums of g * x, m * dy and m * dy), g = F^T (m * dy)
#
# and with v the gradients that flow back into those four, _Pull's own gradient is made of the same two passes:
#
#   d_dy = m * (F (scale * v_x + v_scale * x) + v_b + v_noise)
#   (d_x, d_scale) = (v_scale * g, the sum of g * v_x) = _Pull with v_x for x and v_scale for scale
#
# b and noise have no second order, and a gradient that is undefined (None) stays so.


class Call(NamedTuple):
    """What every pass of one call shares."""

    channels_last: bool
    alpha: float
    gain: float
    clamp: float
    backend: str
    fir: Fir | None = None  # F, and
    back: Fir | None = None  # F^T, of a filter f that goes beside x


class _Wanted(NamedTuple):
    """Which gradients are wanted, as the dtypes they take, None for no; a noise for all images is summed over them."""

    x: bool
    scale: torch.dtype | None
    b: torch.dtype | None
    noise: torch.dtype | None
    noise_n: int = 0


class _Affine(Function):
    @staticmethod
    def forward(x, f, scale, b, noise, call):
        *options, fir, _ = call
        if fir is None:
            return operators.scale_bias_act(x, scale, b, noise, *options)
        return operators.upfirdn2d_act(x, f, scale, b, noise, *fir, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, f, scale, b, noise, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.dtypes = [None if t is None else t.dtype for t in (scale, b, noise)]
        ctx.noise_n = 0 if noise is None else noise.shape[0]
        ctx.save_for_backward(None if scale is None else x, f, scale, output[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple:
        if dy is None:
            return (None,) * 6
        by_x, _, *needed, _ = ctx.needs_input_grad
        dtypes = [dtype if need else None for dtype, need in zip(ctx.dtypes, needed, strict=True)]
        wanted = _Wanted(by_x, *dtypes, ctx.noise_n)
        dx, *others = _Pull.apply(dy, *ctx.saved_tensors, ctx.call, wanted)
        return dx, None, *others, None


class _Pull(Function):
    """(dx [N, C, H, W], d_scale [N, C], db [C], d_noise [N or 1, 1, H, W]), each None where it is not wanted"""

    @staticmethod
    def forward(dy, x, f, scale, mask, call, wanted):
        *options, _, back = call
        sums = [dtype is not None for dtype in wanted[1:4]]
        x, scale = x if sums[0] else None, scale if wanted.x else None
        if back is None:
            gradients = operators.scale_bias_act_grad(dy, x, scale, mask, *options, wanted.x, *sums)
        else:
            gradients = operators.upfirdn2d_act_grad(dy, x, f, scale, mask, *back, *options, wanted.x, *sums)
        dx, d_scale, db, d_noise = gradients
        if sums[2] and wanted.noise_n != d_noise.shape[0]:
            d_noise = d_noise.sum(0, keepdim=True)
        return (
            dx if wanted.x else None,
            d_scale.to(wanted.scale) if sums[0] else None,
            db.to(wanted.b) if sums[1] else None,
            d_noise.to(wanted.noise) if sums[2] else None,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        dy, x, f, scale, mask, ctx.call, ctx.wanted = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, f, scale, mask)

    @staticmethod
    def backward(ctx: Any, v_x: Tensor | None, v_scale: Tensor | None, v_b: Tensor | None, v_noise: Tensor | None):
        dy, x, f, scale, mask = ctx.saved_tensors
        by_dy, by_x, _, by_scale, *_ = ctx.needs_input_grad
        d_dy = d_x = d_scale = None
        if by_dy:
            d_dy = _push(v_x, v_scale, v_b, v_noise, x, f, scale, mask, dy, ctx.call)
        by_x, by_scale = by_x and v_scale is not None, by_scale and v_x is not None
        if by_x or by_scale:
            wanted = _Wanted(by_x, scale.dtype if by_scale else None, None, None)
            d_x, d_scale, _, _ = _Pull.apply(dy, v_x, f, v_scale, mask, ctx.call, wanted)
        return d_dy, d_x, None, d_scale, None, None, None


def _push(v_x, v_scale, v_b, v_noise, x, f, scale, mask, dy, call: Call) -> Tensor | None:
    """m * (F (scale * v_x + v_scale * x) + v_b + v_noise), of those v that are defined"""
    linear = call._replace(alpha=1.0, gain=1.0, clamp=-1.0)
    v = None
    if v_x is not None:
        same = f is None and scale is None and v_b is None and v_noise is None
        v = v_x if same else _affine(v_x, f, scale, v_b, v_noise, linear)
        if v_scale is not None:
            v = v + _affine(x, f, v_scale, None, None, linear)
    elif v_scale is not None:
        v = _affine(x, f, v_scale, v_b, v_noise, linear)
    elif v_b is not None or v_noise is not None:
        zeros = dy.new_zeros(()).expand(dy.shape)
        v = _affine(zeros, None, None, v_b, v_noise, linear._replace(fir=None, back=None))
    return None if v is None else _masked(v, mask, call)


def _masked(v: Tensor, mask: Tensor, call: Call) -> Tensor:
    """m * v"""
    n, c, h, w = v.shape
    by_rows = call.fir is not None and not call.channels_last  # csrc/upfirdn2d_act.h has masks of rows of pixels
    wanted = _Wanted(True, None, None, None)
    dz, *_ = _Pull.apply(
        v.reshape(n, c * h, 1, w) if by_rows else v, None, None, None, mask, call._replace(fir=None, back=None), wanted
    )
    return dz.reshape(n, c, h, w) if by_rows else dz


def _affine(x: Tensor, f: Tensor | None, scale: Tensor | None, b: Tensor | None, noise: Tensor | None, call: Call):
    return _Affine.apply(x, f, scale, b, noise, call)[0]


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def affine(
    x: Tensor, f: Tensor | None, scale: Tensor | None, b: Tensor | None, noise: Tensor | None, call: tuple
) -> Tensor:
    """clamp(gain * act(scale * F x + b + noise)) of checked arguments, with its gradients"""
    *options, fir, back = call
    return _affine(x, f, scale, b, noise, Call(*options, fir and Fir(*fir), back and Fir(*back)))


# The kernels as PyTorch operators without autograd, which fake tensors and torch.compile need. To them an image is rows
# of columns, as csrc/scale_bias_act.h says.


def _empty_like(x: Tensor, channels_last: bool) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _in_layout(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _matrix(x: Tensor, channels_last: bool) -> tuple[int, int]:
    """rows and cols of an image"""
    _, c, h, w = x.shape
    return (h * w, c) if channels_last else (c, h * w)


def empty_mask(x: Tensor, rows: int, cols: int, alpha: float, clamp: float) -> Tensor:
    """For N images of rows and columns, N as in x."""
    return x.new_empty(((alpha != 1) + (clamp >= 0), x.shape[0], rows, (cols + 15) // 16 * 2), dtype=torch.uint8)


def slope_and_keep(mask: Tensor, alpha: float, clamp: float) -> tuple[Tensor | None, Tensor | None]:
    """The planes of a mask, each None where there is none."""
    return mask[0] if alpha != 1 else None, mask[-1] if clamp >= 0 else None


def plain(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """t as the kernels take it beside an x of the dtype"""
    return None if t is None else t.detach().to(wide(dtype)).contiguous()


def _forward(x, scale, b, noise, channels_last, alpha, gain, clamp, backend):
    y = _empty_like(x, channels_last)
    mask = empty_mask(x, *_matrix(x, channels_last), alpha, clamp)
    if x.numel() > 0:
        scale, b, noise = (plain(t, x.dtype) for t in (scale, b, noise))
        backends.kernels("scale_bias_act", backend).scale_bias_act(
            _in_layout(x, channels_last), scale, b, noise, y, *slope_and_keep(mask, alpha, clamp),
            x.shape[0], *_matrix(x, channels_last), 0 if noise is None else noise.shape[0], x.dtype, channels_last,
            alpha, gain, clamp,
        )  # fmt: skip
    return y, mask


def _forward_fake(x, scale, b, noise, channels_last, alpha, gain, clamp, backend):
    return _empty_like(x, channels_last), empty_mask(x, *_matrix(x, channels_last), alpha, clamp)


def _grad(dy, x, scale, mask, channels_last, alpha, gain, clamp, backend, by_x, by_scale, by_b, by_noise):
    dx, d_scale, db, d_noise = _grad_fake(
        dy, x, scale, mask, channels_last, alpha, gain, clamp, backend, by_x, by_scale, by_b, by_noise
    )
    if dy.numel() == 0:
        return dx, d_scale.zero_(), db.zero_(), d_noise.zero_()
    n, c, h, w = dy.shape
    rows, cols = _matrix(dy, channels_last)
    kernels = backends.kernels("scale_bias_act", backend)
    slots = kernels.scale_bias_act_grad_slots(n, rows, cols)
    of_channels, of_pixels = ((slots, n, c), (1, n, h * w)) if channels_last else ((1, n, c), (slots, n, h * w))
    products = d_scale.new_empty(of_channels) if by_scale else None
    sums = db.new_empty(of_channels) if by_b else None
    across = d_noise.new_empty(of_pixels) if by_noise else None
    kernels.scale_bias_act_grad(
        _in_layout(dy, channels_last), None if x is None else _in_layout(x, channels_last), plain(scale, dy.dtype),
        *slope_and_keep(mask, alpha, clamp), dx if by_x else None, products, sums, across,
        slots, n, rows, cols, dy.dtype, channels_last, alpha, gain,
    )  # fmt: skip
    return (
        dx,
        products.sum(0) if by_scale else d_scale,
        sums.sum((0, 1)) if by_b else db,
        across.sum(0).reshape(n, 1, h, w) if by_noise else d_noise,
    )


def _grad_fake(dy, x, scale, mask, channels_last, alpha, gain, clamp, backend, by_x, by_scale, by_b, by_noise):
    n, c, h, w = dy.shape
    dtype = wide(dy.dtype)
    return (
        _empty_like(dy, channels_last) if by_x else dy.new_empty(0),
        dy.new_empty((n, c) if by_scale else 0, dtype=dtype),
        dy.new_empty(c if by_b else 0, dtype=dtype),
        dy.new_empty((n, 1, h, w) if by_noise else 0, dtype=dtype),
    )


define(
    "scale_bias_act(Tensor x, Tensor? scale, Tensor? b, Tensor? noise, bool channels_last, float alpha, float gain,"
    " float clamp, str backend) -> (Tensor, Tensor)",
    _forward,
    _forward_fake,
)
define(
    "scale_bias_act_grad(Tensor dy, Tensor? x, Tensor? scale, Tensor mask, bool channels_last, float alpha, float gain,"
    " float clamp, str backend, bool by_x, bool by_scale, bool by_b, bool by_noise)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _grad,
    _grad_fake,
)
backends.register("scale_bias_act", has=("triton", "cpu"))
