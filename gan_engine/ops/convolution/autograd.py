"""Convolution whose gradients of every order are convolutions of the same three kinds.

convolution.py is the door for our own layers, to the same autograd functions where they gain by it;
gan_engine.losses.level2.convolution runs the three kernels without autograd's record.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from gan_engine import backends
from gan_engine.ops.convolution.passes import Call, dgrad, fprop, wgrad
from gan_engine.ops.kernel_op import Function
from gan_engine.ops.one_node import one_node


def conv2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """y[n, o] = b[o] + sum over i of x[n, i] * w[o, i]   # a cross-correlation, as torch.nn.functional.conv2d

    In the second gradient PyTorch computes that of w by a convolution whose kernel is as large as the image: 10 times
    the time of the kernel for weight gradients (3x3, 64 channels, 32x32, batch 8, oneDNN, 2026-11), and not in the
    layout of w. Here every order is made of the forward, data and weight kernels, and what is undefined stays so.

    Those are PyTorch's, but on CPUs with AVX2 or AVX-512, in float32 and from 32 channels on, 3x3 kernels with a stride
    of 1, and 3x3 and 4x4 kernels with one of 2, may be computed by minimal filtering: in a third to nine tenths of the
    time, to an error of at most twice that of PyTorch's kernels (winograd.py has the numbers). Where an image
    holds an infinity or NaN, the tile around it is lost, as much as 5 pixels away. The backend "reference" turns it
    off. Autocast is heeded.

    Args:
        x: [N, I, H, W].
        w: [O, I / groups, kh, kw], in the dtype of x.
        b: [O] or None, in the dtype of x.
        stride, padding, dilation, groups: as in torch.nn.functional.conv2d; padding in numbers.

    Returns:
        y: [N, O, H', W'] in the layout that PyTorch gives it.

    Raises:
        ValueError: an x or w that is not of 4 dimensions.

    Gradients: every order in x, w and b.
    """
    if has_torch_function((x, w, b)):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return handle_torch_function(conv2d, (x, w, b), x, w, b, **options)
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError(f"conv2d: x and w must have 4 dimensions, got {list(x.shape)} and {list(w.shape)}")
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, w, b = (t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (x, w, b))
    if backends.recorded():
        return F.conv2d(x, w, b, stride, padding, dilation, groups)
    return convolution(x, w, b, Call.direct(2, stride, padding, dilation, groups))


# Autograd. Three bilinear maps, <y, F(x, w)> = <x, D(y, w)> = <w, W(x, y)>, are each other's gradients:
#
#   fprop   y = F(x, w)      dx = D(dy, w)      dw = W(x, dy)
#   dgrad   x = D(y, w)      dy = F(dx, w)      dw = W(dx, y)
#   wgrad   w = W(x, y)      dx = D(y, dw)      dy = F(x, dw)


def _wanted(ctx: Any) -> list[bool]:
    """Which inputs of `ctx`, whose tensors come first, the backward pass under way wants a gradient of.

    needs_input_grad says which inputs require one at all. torch.autograd.grad by the image alone does not want those of
    the weights, and to compute them would cost as much again. Whatever the engine does not answer counts as wanted.
    """
    wanted = list(ctx.needs_input_grad)
    if isinstance(ctx, torch.autograd.function.BackwardCFunction):  # compiled autograd has a stand-in, and no engine
        edges = ctx.next_functions
        for i in range(1, len(edges)):
            wanted[i] = wanted[i] and _executes(edges[i][0])
        # Where no other gradient is wanted, the pass has come for the first one. The image of a penalty is such a case.
        wanted[0] = wanted[0] and (not any(wanted[1:]) or _executes(edges[0][0]))
    return wanted


def _executes(node: torch.autograd.graph.Node) -> bool:
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # the answer for a leaf that torch.autograd.grad is asked for, in 20 us
        return True


class _Fprop(Function):
    @staticmethod
    def forward(x, w, b, call):
        return fprop(x, w, b, call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, w, _, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, w)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        if dy is None:
            return None, None, None, None
        x, w = ctx.saved_tensors
        wanted = _wanted(ctx)
        dx = _Dgrad.apply(dy, w, x.detach(), ctx.call) if wanted[0] else None
        dw = _Wgrad.apply(x, dy, w.detach(), ctx.call) if wanted[1] else None
        db = dy.sum((0, 2, 3)) if wanted[2] else None
        return dx, dw, db, None


class _Dgrad(Function):
    """`like` tells the shape and layout of the result, and nothing else."""

    @staticmethod
    def forward(dy, w, like, call):
        return dgrad(dy, like, w, call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        dy, w, _, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, w)

    @staticmethod
    def backward(ctx: Any, d_dx: Tensor | None) -> tuple:
        if d_dx is None:
            return None, None, None, None
        dy, w = ctx.saved_tensors
        wanted = _wanted(ctx)
        d_dy = _Fprop.apply(d_dx, w, None, ctx.call) if wanted[0] else None
        d_w = _Wgrad.apply(d_dx, dy, w.detach(), ctx.call) if wanted[1] else None
        return d_dy, d_w, None, None


class _Wgrad(Function):
    """`like` tells the shape and layout of the result, and nothing else."""

    @staticmethod
    def forward(x, dy, like, call):
        return wgrad(dy, x, like, call)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, dy, _, ctx.call = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, dy)

    @staticmethod
    def backward(ctx: Any, d_dw: Tensor | None) -> tuple:
        if d_dw is None:
            return None, None, None, None
        x, dy = ctx.saved_tensors
        wanted = _wanted(ctx)
        d_x = _Dgrad.apply(dy, d_dw, x.detach(), ctx.call) if wanted[0] else None
        d_dy = _Fprop.apply(x, d_dw, None, ctx.call) if wanted[1] else None
        return d_x, d_dy, None, None


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def convolution(x: Tensor, w: Tensor, b: Tensor | None, call: Call) -> Tensor:
    """F(x, w) + b of plain tensors outside autocast; w of a transposed convolution is [I, O, kh, kw]."""
    return _Fprop.apply(x, w, b, call)
