"""Leaky ReLU between an upsampling and a downsampling FIR filter, as StyleGAN3 has it, in one pass over memory."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

import gan_engine.ops.filtered_lrelu_kernels  # noqa: F401  (defines the operators)
from gan_engine import backends
from gan_engine.ops.affine import affine_options
from gan_engine.ops.bias_act import bias_act
from gan_engine.ops.fir import FirArguments, Padding, Pair, as_pair, fir_arguments
from gan_engine.ops.kernel_op import Function, check_tensors, layout, operators, wide
from gan_engine.ops.one_node import one_node
from gan_engine.ops.scale_bias_act import scale_bias_act_ref
from gan_engine.ops.upfirdn2d import upfirdn2d, upfirdn2d_ref
from gan_engine.ops.upfirdn2d_act import upfirdn2d_act


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    *,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    backend: str | None = None,
) -> Tensor:
    """y = upfirdn2d(clamp(gain * leaky_relu(u, slope), -clamp, clamp), fd, down), u = upfirdn2d(x + b[c], fu, up)

    The activation of StyleGAN3 (Karras et al. 2021, arXiv:2106.12423, section 3.2). The kink of the leaky ReLU makes
    frequencies that the grid of x cannot hold. A finer grid holds them, until the filter fd takes them out.

    A CPU makes one pass over memory, and one for the gradient: u lies in the cache alone. A GPU runs `bias_act`,
    `upfirdn2d_act` and `upfirdn2d`.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        fu, fd: filters, as f of `upfirdn2d`; None is [1]. fu has a gain of up_x * up_y, which keeps the signal.
        b: [C], in the dtype of x or float32. It is added before x is padded with zeros.
        up, down: factors, at least 1: one number, or [x, y].
        padding: zeros around the upsampled image, as in `upfirdn2d`.
        gain, slope: factor behind the leaky ReLU, and its slope below 0.
        clamp: limit, at least 0; None is no limit.
        flip_filter: False convolves, True correlates; for both filters.
        backend: see gan_engine.backends.

    Returns:
        y: [N, C, H', W'] with H' = (H * up_y + y0 + y1 - (taps of fu - 1) - taps of fd) // down_y + 1, likewise W'; in
            the dtype of x, channels_last if x is, else contiguous. Half precision is computed in float32, and rounded
            once.

    Saved for the gradient where there is one pass: two bits for each element of u, u > 0 and within the clamp, and
    nothing else. A pixel that is not finite may reach the outputs next to its own.

    Raises:
        ValueError: shapes, factors or a clamp out of range, or a padded image that is smaller than a filter.
        TypeError: a dtype of x other than the four, a b that is neither like x nor float32, or a filter not in float32.
        RuntimeError: a filter requires a gradient; it has none.

    Gradients: every order in x and b, by the same kernel with the filters exchanged; none in fu and fd.
    """
    op = "filtered_lrelu"
    check_tensors(op, x, fu=fu, fd=fd, b=b)
    ux, uy = as_pair(up, "up", op)
    nothing = (0, 0, 0, 0)
    fu, first, pads = fir_arguments(op, x, fu, [ux, uy], 1, padding, nothing, flip_filter, ux * uy, "fu")
    fd, second, _ = fir_arguments(op, x, fd, 1, down, 0, nothing, flip_filter, 1, "fd", first.size)
    options = affine_options(op, x, x.shape, None, b, None, "lrelu", slope, gain, clamp)
    asked, backend = backend, backends.choose(op, x, backend)
    if backend == "reference":
        return filtered_lrelu_ref(x, fu, fd, b, first, second, pads, *options)
    if backend != "cpu":
        backend = backends.handed_on(asked, backend)
        # In float32 between the three: each would round half precision, and the second order has too many roundings.
        dtype, x = x.dtype, x.to(wide(x.dtype))
        x = x if b is None else bias_act(x, b.to(x.dtype), backend=backend)
        shared: dict[str, Any] = {"flip_filter": flip_filter, "backend": backend}
        lrelu: dict[str, Any] = {"act": "lrelu", "alpha": slope, "gain": gain, "clamp": clamp}
        u = upfirdn2d_act(x, fu, up=first.up, padding=pads, fir_gain=first.gain, **lrelu, **shared)
        return upfirdn2d(u, fd, down=second.down, **shared).to(dtype)
    last = layout(x) == torch.channels_last
    return _filtered_lrelu(x, fu, fd, b, Arguments(first, second, list(x.shape[2:]), last, *options, backend))


def filtered_lrelu_ref(
    x: Tensor,
    fu: Tensor,
    fd: Tensor,
    b: Tensor | None,
    first: FirArguments,
    second: FirArguments,
    padding: list[int],
    slope: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """The definition of `filtered_lrelu` in PyTorch's own operators; clamp < 0 is no limit."""
    z = scale_bias_act_ref(x.to(wide(x.dtype)), None, b, None, 1.0, 1.0, -1.0)
    a = scale_bias_act_ref(_filtered(z, fu, first, padding), None, None, None, slope, gain, clamp)
    return _filtered(a, fd, second, [0, 0, 0, 0]).to(x.dtype).contiguous(memory_format=layout(x))


def _filtered(x: Tensor, f: Tensor, fir: FirArguments, padding: list[int]) -> Tensor:
    """`upfirdn2d_ref`, axis by axis where f is separable: the sums of all taps would be long, and their errors large"""
    (up_x, up_y), (down_x, down_y) = fir.up, fir.down
    if f.ndim == 2:
        passes = [(f, fir.up, fir.down, padding, fir.gain)]
    else:
        passes = [
            (f[None, :], [up_x, 1], [down_x, 1], [*padding[:2], 0, 0], 1.0),
            (f[:, None], [1, up_y], [1, down_y], [0, 0, *padding[2:]], fir.gain),
        ]
    for taps, up, down, sides, gain in passes:
        x = upfirdn2d_ref(x, taps, up=up, down=down, padding=sides, flip_filter=fir.flip, gain=gain)
    return x


# Autograd. m is the derivative by u: 0, gain or slope * gain, as the bits of the mask say. U and D are the filters.
#
#   _FilteredLrelu  y = D act(U (x + b))
#   _Masked         dx = U^T (m * D^T dy), and db is the sum of dx
#
# _Masked is linear in dy. Its gradient by dy is D (m * U v), where v is the gradient by dx: _Masked again, with other
# filters and the same mask. So two functions have every order.


class Arguments(NamedTuple):
    """The options of one call, which all of its passes share."""

    first: FirArguments  # from x to u
    second: FirArguments  # from act(u) to y
    size: list[int]  # [H, W] of x
    channels_last: bool
    slope: float
    gain: float
    clamp: float
    backend: str

    def transposed(self, fu: Tensor, fd: Tensor) -> "Arguments":
        """The options of the gradient by x, whose filters are fd and fu"""
        first, second = self.second.transposed(fd, self.first.size), self.first.transposed(fu, self.size)
        return self._replace(first=first, second=second, size=self.second.size)

    def flat(self) -> tuple:
        """As the operators take them"""
        return (*self.first, *self.second, *self[3:])


class _FilteredLrelu(Function):
    """(y, mask)"""

    @staticmethod
    def forward(x, fu, fd, b, arguments):
        return operators.filtered_lrelu(x, fu, fd, b, *arguments.flat())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        _, fu, fd, b, ctx.arguments = inputs
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output[1])
        ctx.dtype = None if b is None else b.dtype
        ctx.save_for_backward(fu, fd, output[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, _: None) -> tuple:
        if dy is None:
            return (None,) * 5
        by_x, _, _, by_b, _ = ctx.needs_input_grad
        fu, fd, mask = ctx.saved_tensors
        dx = _Masked.apply(dy, fd, fu, mask, ctx.arguments.transposed(fu, fd))
        db = dx.sum((0, 2, 3), dtype=wide(dx.dtype)).to(ctx.dtype) if by_b else None
        return dx if by_x else None, None, None, db, None


class _Masked(Function):
    """Second filter of m times the first filter of x"""

    @staticmethod
    def forward(x, first, second, mask, arguments):
        return operators.filtered_lrelu_masked(x, first, second, mask, *arguments.flat())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, first, second, mask, ctx.arguments = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(first, second, mask)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        if dy is None:
            return (None,) * 5
        first, second, mask = ctx.saved_tensors
        arguments = ctx.arguments.transposed(first, second)
        return _Masked.apply(dy, second, first, mask, arguments), None, None, None, None


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _filtered_lrelu(x: Tensor, fu: Tensor, fd: Tensor, b: Tensor | None, arguments: tuple) -> Tensor:
    first, second, *others = arguments  # torch.compile hands over tuples without names
    named = Arguments(FirArguments(*first), FirArguments(*second), *others)
    return _FilteredLrelu.apply(x, fu, fd, b, named)[0]


backends.register("filtered_lrelu", kernels_of="upfirdn2d_act")
