"""Convolution whose gradients of every order are convolutions of the same three kinds.

gan_engine.ops.convolution is the door for our own layers, which takes these autograd functions where it gains by them.
gan_engine.losses.level2.convolution runs the three maps without autograd's record.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from gan_engine import backends
from gan_engine.ops.convolution import maps
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.kernel_op import Function, check_tensors
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
    backend: str | None = None,
) -> Tensor:
    """y[n, o] = b[o] + sum over i of x[n, i] * w[o, i]   # a cross-correlation, as torch.nn.functional.conv2d

    In the second gradient PyTorch computes the gradient by w as a convolution whose kernel is as large as the image. It
    takes 10 times as long as the gradient by the weight (3x3, 64 channels, 32x32, batch 8, oneDNN, 2026-11), and is not
    in the layout of w. Here every order is made of three maps, the forward pass, the gradient by the image and the
    gradient by the weight, and what is undefined stays so.

    Args:
        x: [N, I, H, W].
        w: [O, I / groups, kh, kw], in the dtype of x.
        b: [O] or None, in the dtype of x.
        stride, padding, dilation, groups: as in torch.nn.functional.conv2d; padding in numbers.
        backend: see gan_engine.backends. "cpu" is minimal filtering, kernels for 1x1 of few channels, or PyTorch's
            kernels in their faster layout. In bfloat16, "cpu" computes in float32 where that is faster
            (gan_engine/system/bfloat16.py); in other dtypes, it is PyTorch's kernels as they are. "pytorch" is
            PyTorch's kernels, and "reference" torch.nn.functional.conv2d.

    Returns:
        y: [N, O, H', W'] in the layout that PyTorch gives it.

    Minimal filtering is chosen on CPUs with AVX2 or AVX-512, in float32 and from 32 channels on, for 3x3 and 4x4
    kernels with a stride of 1 or 2. It takes a third to nine tenths of the time of PyTorch's kernels, and its error is
    at most twice theirs (winograd.py and forms.py have the numbers). An infinity or NaN of an image spoils the tile
    around it, as much as 5 pixels away. 1x1 kernels from or to at most 4 channels, as colours are, have code of their
    own on CPUs (pointwise.py). Autocast is heeded.

    Raises:
        ValueError: an x or w that is not of 4 dimensions.
        TypeError: a dtype other than float32, float64, bfloat16 and float16.

    Gradients: every order in x, w and b.
    """
    if has_torch_function((x, w, b)):
        options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        options |= {} if backend is None else {"backend": backend}
        return handle_torch_function(conv2d, (x, w, b), x, w, b, **options)
    check_tensors("conv2d", x, w=w, b=b)
    if x.ndim != 4 or w.ndim != 4:
        raise ValueError(f"conv2d: x and w must have 4 dimensions, got {list(x.shape)} and {list(w.shape)}")
    # The first question takes a third of the time of the second.
    if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, w, b = (t if t is None or t.dtype == torch.float64 else t.to(dtype) for t in (x, w, b))  # type: ignore[assignment]
    return closed_convolution(x, w, b, ConvolutionArguments.from_conv(2, stride, padding, dilation, groups), backend)


def closed_convolution(
    x: Tensor, w: Tensor, b: Tensor | None, arguments: ConvolutionArguments, backend: str | None = None
) -> Tensor:
    """F(x, w) + b of tensors outside autocast and without subclass; w of a transposed convolution is [I, O, kh, kw]."""
    request = maps.forward_request(x, w, b, arguments)
    chosen = backends.choose(maps.forward_op(arguments), x, backend, request)
    if chosen == "reference":
        return _reference(x, w, b, arguments)
    return convolution(x, w, b, arguments, backend, request.way(chosen))


def _reference(x: Tensor, w: Tensor, b: Tensor | None, arguments: ConvolutionArguments) -> Tensor:
    stride, padding, dilation, transposed, output_padding, groups = arguments
    if transposed:
        return F.conv_transpose2d(x, w, b, stride, padding, output_padding, groups, dilation)
    return F.conv2d(x, w, b, stride, padding, dilation, groups)


# Autograd. Three bilinear maps, <y, F(x, w)> = <x, D(y, w)> = <w, W(x, y)>, are each other's gradients:
#
#   _Forward          y = F(x, w)      dx = D(dy, w)      dw = W(x, dy)
#   _ImageGradient    x = D(y, w)      dy = F(dx, w)      dw = W(dx, y)
#   _WeightGradient   w = W(x, y)      dx = D(y, dw)      dy = F(x, dw)


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


class _Map(Function):
    """One of the three maps, of two tensors. The third input is the bias, or a tensor `like` the result.

    Only the shape and layout of `like` are read. `backend` is the request by name of the call, for every order.
    """

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        first, second, _, ctx.arguments, ctx.backend, *_ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(first, second)


class _Forward(_Map):
    @staticmethod
    def forward(x, w, b, arguments, backend, way):
        return maps.forward(x, w, b, arguments, backend, way)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        if dy is None:
            return (None,) * 6
        (x, w), by = ctx.saved_tensors, _wanted(ctx)
        dx = _ImageGradient.apply(dy, w, x.detach(), ctx.arguments, ctx.backend) if by[0] else None
        dw = _WeightGradient.apply(x, dy, w.detach(), ctx.arguments, ctx.backend) if by[1] else None
        return dx, dw, dy.sum((0, 2, 3)) if by[2] else None, None, None, None


class _ImageGradient(_Map):
    @staticmethod
    def forward(dy, w, like, arguments, backend):
        return maps.image_gradient(dy, w, like, arguments, backend)

    @staticmethod
    def backward(ctx: Any, d_dx: Tensor | None) -> tuple:
        if d_dx is None:
            return (None,) * 5
        (dy, w), by = ctx.saved_tensors, _wanted(ctx)
        d_dy = _Forward.apply(d_dx, w, None, ctx.arguments, ctx.backend, maps.UNDECIDED) if by[0] else None
        d_w = _WeightGradient.apply(d_dx, dy, w.detach(), ctx.arguments, ctx.backend) if by[1] else None
        return d_dy, d_w, None, None, None


class _WeightGradient(_Map):
    @staticmethod
    def forward(x, dy, like, arguments, backend):
        return maps.weight_gradient(x, dy, like, arguments, backend)

    @staticmethod
    def backward(ctx: Any, d_dw: Tensor | None) -> tuple:
        if d_dw is None:
            return (None,) * 5
        (x, dy), by = ctx.saved_tensors, _wanted(ctx)
        d_x = _ImageGradient.apply(dy, d_dw, x.detach(), ctx.arguments, ctx.backend) if by[0] else None
        d_dy = _Forward.apply(x, d_dw, None, ctx.arguments, ctx.backend, maps.UNDECIDED) if by[1] else None
        return d_x, d_dy, None, None, None


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def convolution(
    x: Tensor, w: Tensor, b: Tensor | None, arguments: ConvolutionArguments, backend: str | None, way: int
) -> Tensor:
    """F(x, w) + b, computed in the given way (maps.py), with gradients on `backend`, or chosen if that is None."""
    return _Forward.apply(x, w, b, arguments, backend, way)
