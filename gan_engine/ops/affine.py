"""y = clamp(gain * act(scale * F x + b + noise)): what `scale_bias_act` and `upfirdn2d_act` share.

F is the FIR filter of `upfirdn2d_act`; `scale_bias_act` has none. Both ops share their options and this autograd. The
operators of each op are in `<op>_kernels.py`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_engine.ops.bias_act_kernels import ACTIVATIONS
from gan_engine.ops.fir import FirArguments
from gan_engine.ops.kernel_op import Function, operators
from gan_engine.ops.one_node import one_node

ACTS = ("linear", "relu", "lrelu")  # the piecewise linear activations


def affine_options(
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
    """(alpha, gain, clamp) as the kernels take them: alpha is 1 for linear and 0 for relu, and clamp < 0 is no limit.

    Tensors and options that do not fit x or a y of `shape` are refused in the name of `op`.
    """
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


# Autograd. m is the derivative by the argument of act: 0, gain or alpha * gain, as the bits of the mask say.
#
#   _Affine           y = clamp(gain * act(scale * F x + b + noise))
#   _AffineGradients  (dx, d_scale, db, d_noise) = (scale * g, and the sums of g * x, m * dy and m * dy)
#                     with g = F^T (m * dy)
#
#   _AffineSecond     (d_dy, d_x, d_scale), the gradients of <dx, v_x> + <d_scale, v_scale> + .. by dy, x and scale
#
# v are the gradients by the four results of _AffineGradients. They give
#
#   d_dy = m * (F (scale * v_x + v_scale * x) + v_b + v_noise)
#   (d_x, d_scale) = (v_scale * g, the sum of g * v_x) = _AffineGradients with v_x for x and v_scale for scale
#
# _AffineSecond computes them without F, in one pass over memory. With F, they are made of the passes above. u are the
# gradients by the results of _AffineSecond. Its gradients are made of both passes without F:
#
#   d_v    = _AffineGradients of u_dy, plus (u_scale * g, the sum of g * u_x) for v_x and v_scale
#   d_dy   = m * (v_scale * u_x + u_scale * v_x) = _AffineSecond with u for v, v_x for x and v_scale for scale
#   (d_x, d_scale) = _AffineGradients of u_dy, with v_x for x and v_scale for scale
#
# b and noise have no second order. A gradient that is undefined (None) stays undefined.
#
# d_scale is the sum of m * dy * F x. The sum of g * x is the same number, so F x is never needed again. x is saved
# instead of being recovered from y. The recovery divides by the scale, and loses the digits that a large bias or noise
# covers. The second order would also flow through y, where nothing should flow.


class AffineArguments(NamedTuple):
    """The options of one call, which all of its passes share."""

    channels_last: bool
    alpha: float
    gain: float
    clamp: float
    backend: str
    fir: FirArguments | None = None  # F; its taps are the argument f
    transposed: FirArguments | None = None  # F^T


class WantedGradients(NamedTuple):
    """Which gradients to compute: x by True, the others by the dtype to return, where None is not wanted"""

    x: bool
    scale: torch.dtype | None
    b: torch.dtype | None
    noise: torch.dtype | None
    noise_n: int = 0  # images of the noise; if it is 1 and N is not, the gradient is summed over the images


class _Affine(Function):
    """(y, mask); the taps f and the filters in `arguments` are None or not, together"""

    @staticmethod
    def forward(x, f, scale, b, noise, arguments):
        *options, fir, _ = arguments
        if fir is None:
            return operators.scale_bias_act(x, scale, b, noise, *options)
        return operators.upfirdn2d_act(x, f, scale, b, noise, *fir, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, f, scale, b, noise, ctx.arguments = inputs
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
        wanted = WantedGradients(by_x, *dtypes, ctx.noise_n)  # type: ignore[call-arg, arg-type]
        dx, *others = _AffineGradients.apply(dy, *ctx.saved_tensors, ctx.arguments, wanted)
        return dx, None, *others, None


class _AffineGradients(Function):
    """(dx [N, C, H, W], d_scale [N, C], db [C], d_noise [N or 1, 1, H, W]), each None if it is not wanted"""

    @staticmethod
    def forward(dy, x, f, scale, mask, arguments, wanted):
        *options, _, transposed = arguments
        sums = [dtype is not None for dtype in wanted[1:4]]
        x, scale = x if sums[0] else None, scale if wanted.x else None
        if transposed is None:
            gradients = operators.scale_bias_act_grad(dy, x, scale, mask, *options, wanted.x, *sums)
        else:
            gradients = operators.upfirdn2d_act_grad(dy, x, f, scale, mask, *transposed, *options, wanted.x, *sums)
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
        dy, x, f, scale, mask, ctx.arguments, ctx.wanted = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, f, scale, mask)

    @staticmethod
    def backward(ctx: Any, v_x: Tensor | None, v_scale: Tensor | None, v_b: Tensor | None, v_noise: Tensor | None):
        dy, x, f, scale, mask = ctx.saved_tensors
        by_dy, by_x, _, by_scale, *_ = ctx.needs_input_grad
        by_dy = by_dy and any(v is not None for v in (v_x, v_scale, v_b, v_noise))
        by_x, by_scale = by_x and v_scale is not None, by_scale and v_x is not None
        d_dy = d_x = d_scale = None
        wanted = WantedGradients(by_x, scale.dtype if by_scale else None, None, None)
        if f is None and (by_dy or by_x or by_scale):
            d_dy, d_x, d_scale = _AffineSecond.apply(
                dy, x, scale, v_x, v_scale, v_b, v_noise, mask, ctx.arguments, by_dy, wanted
            )
        if f is not None and by_dy:
            d_dy = _gradient_by_dy(v_x, v_scale, v_b, v_noise, x, f, scale, mask, dy, ctx.arguments)
        if f is not None and (by_x or by_scale):
            d_x, d_scale, _, _ = _AffineGradients.apply(dy, v_x, f, v_scale, mask, ctx.arguments, wanted)
        return d_dy, d_x, None, d_scale, None, None, None


class _AffineSecond(Function):
    """(d_dy and d_x [N, C, H, W], d_scale [N, C]), each None if it is not wanted; scale None is 1, and v None is 0"""

    @staticmethod
    def forward(dy, x, scale, v_x, v_scale, v_b, v_noise, mask, arguments, by_dy, wanted):
        by_x, by_scale = wanted.x, wanted.scale is not None
        x = None if v_scale is None else x
        d_dy, d_x, d_scale = operators.scale_bias_act_second(
            dy, x, scale, v_x, v_scale, v_b, v_noise, mask, *arguments[:-2], by_dy, by_x, by_scale
        )
        return d_dy if by_dy else None, d_x if by_x else None, d_scale.to(wanted.scale) if by_scale else None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        dy, x, scale, v_x, v_scale, v_b, v_noise, mask, ctx.arguments, _, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, scale, v_x, v_scale, mask)
        ctx.dtypes = [None if t is None else t.dtype for t in (v_scale, v_b, v_noise)]
        ctx.noise_n = 0 if v_noise is None else v_noise.shape[0]

    @staticmethod
    def backward(ctx: Any, u_dy: Tensor | None, u_x: Tensor | None, u_scale: Tensor | None) -> tuple:
        dy, x, scale, v_x, v_scale, mask = ctx.saved_tensors
        by_dy, by_x, by_scale, by_v_x, *by_others, _, _, _, _ = ctx.needs_input_grad
        d_dy = d_x = d_scale = None
        d_v: list[Tensor | None] = [None] * 4

        def gradients(dy: Tensor, x: Tensor | None, scale: Tensor | None, *wanted: Any) -> tuple:
            if not any(wanted[:4]):
                return (None,) * 4
            return _AffineGradients.apply(dy, x, None, scale, mask, ctx.arguments, WantedGradients(*wanted))

        if u_dy is not None:
            by = [dtype if need else None for dtype, need in zip(ctx.dtypes, by_others, strict=True)]
            d_v = list(gradients(u_dy, x, scale, by_v_x, *by, ctx.noise_n))
            by_scale = by_scale and v_x is not None
            d_x, d_scale, _, _ = gradients(
                u_dy, v_x, v_scale, by_x and v_scale is not None, scale.dtype if by_scale else None, None, None
            )
        by_v_x, by_v_scale = by_v_x and u_scale is not None, by_others[0] and u_x is not None
        if by_v_x or by_v_scale:
            more = gradients(dy, u_x, u_scale, by_v_x, v_scale.dtype if by_v_scale else None, None, None)
            d_v[:2] = [_sum(a, b) for a, b in zip(d_v, more[:2], strict=False)]
        if by_dy and (u_x is not None or u_scale is not None):
            second = (dy, v_x, v_scale, u_x, u_scale, None, None, mask, ctx.arguments, True)
            d_dy, _, _ = _AffineSecond.apply(*second, WantedGradients(False, None, None, None))
        return d_dy, d_x, d_scale, *d_v, None, None, None, None


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return a if b is None else b if a is None else a + b


def _gradient_by_dy(v_x, v_scale, v_b, v_noise, x, f, scale, mask, dy, arguments: AffineArguments) -> Tensor | None:
    """m * (F (scale * v_x + v_scale * x) + v_b + v_noise); a v that is None is left out"""
    linear = arguments._replace(alpha=1.0, gain=1.0, clamp=-1.0)
    v = None
    if v_x is not None:
        v = _affine(v_x, f, scale, v_b, v_noise, linear)
        if v_scale is not None:
            v = v + _affine(x, f, v_scale, None, None, linear)
    elif v_scale is not None:
        v = _affine(x, f, v_scale, v_b, v_noise, linear)
    elif v_b is not None or v_noise is not None:
        zeros = dy.new_zeros(()).expand(dy.shape)
        v = _affine(zeros, None, None, v_b, v_noise, linear._replace(fir=None, transposed=None))
    return None if v is None else _masked(v, mask, arguments)


def _masked(v: Tensor, mask: Tensor, arguments: AffineArguments) -> Tensor:
    """m * v"""
    n, c, h, w = v.shape
    by_rows = arguments.fir is not None and not arguments.channels_last  # see the masks in csrc/upfirdn2d_act.h
    wanted = WantedGradients(True, None, None, None)
    without_fir = arguments._replace(fir=None, transposed=None)
    v = v.reshape(n, c * h, 1, w) if by_rows else v
    dz, *_ = _AffineGradients.apply(v, None, None, None, mask, without_fir, wanted)
    return dz.reshape(n, c, h, w) if by_rows else dz


def _affine(x, f, scale, b, noise, arguments: AffineArguments) -> Tensor:
    return _Affine.apply(x, f, scale, b, noise, arguments)[0]


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def affine(
    x: Tensor, f: Tensor | None, scale: Tensor | None, b: Tensor | None, noise: Tensor | None, arguments: tuple
) -> Tensor:
    """clamp(gain * act(scale * F x + b + noise)) of checked arguments, with gradients of every order"""
    *options, fir, transposed = arguments  # torch.compile hands over tuples without names
    filters = (fir and FirArguments(*fir), transposed and FirArguments(*transposed))
    return _affine(x, f, scale, b, noise, AffineArguments(*options, *filters))  # type: ignore[call-arg]
