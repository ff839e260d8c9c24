"""Convolutions for our own layers: PyTorch's, unless passes.py has a faster kernel."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import has_torch_function

from gan_engine import backends
from gan_engine.ops.convolution.autograd import convolution
from gan_engine.ops.convolution.passes import Call, gains
from gan_engine.ops.convolution.relayout import in_layout
from gan_engine.ops.convolution.winograd import FEWEST_CHANNELS
from gan_engine.ops.kernel_op import Function, layout, operators
from gan_engine.ops.one_node import one_node
from gan_engine.system import native


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: int | tuple[int, int]) -> Tensor:
    """F.conv2d, x [N, I, H, W], weight [O, I / groups, kh, kw], padding in numbers. Gradients: every order in all."""
    if _own(x, weight, bias) and gains(x, weight, call := Call.direct(2, **options)):
        return convolution(x, weight, bias, call)
    return F.conv2d(x, weight, bias, **options)


def conv_transpose2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, **options: int | tuple[int, int]) -> Tensor:
    """F.conv_transpose2d, x [N, I, H, W], weight [I, O / groups, kh, kw]. Gradients: as `conv2d`."""
    if _own(x, weight, bias) and gains(x, weight, call := Call.of_transposed(2, **options)):
        return convolution(x, weight, bias, call)
    return F.conv_transpose2d(x, weight, bias, **options)


def _own(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether our kernels may gain, and neither autocast nor a recorder is to see what PyTorch is asked for."""
    return (
        x.is_cpu
        and x.ndim == weight.ndim == 4
        and min(weight.shape[0], weight.shape[1]) >= FEWEST_CHANNELS
        and not torch.is_autocast_enabled("cpu")
        and not has_torch_function((x, weight, bias))
        and not backends.recorded()
    )


def transposed(weight: Tensor) -> Tensor:
    """[I, O, kh, kw] of weight [O, I, kh, kw], the taps in reverse order: as a transposed convolution takes it"""
    kernel = native.WHY_NO_CPU is None and not backends.recorded()
    if kernel and weight.device.type == "cpu" and weight.dtype == torch.float32:
        return _transposed(weight)
    return weight.transpose(0, 1).flip([2, 3])


class _Transposed(Function):
    """Its own inverse, and so its own gradient."""

    @staticmethod
    def forward(weight, channels_last):
        return in_layout(operators.transposed_weight(weight), channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.set_materialize_grads(False)
        ctx.channels_last = layout(inputs[0]) == torch.channels_last

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        return None if dy is None else _Transposed.apply(dy, ctx.channels_last), None


# torch.compile must see one node here: traced into, nested Functions lose their second order under torch.func.grad.
@one_node
def _transposed(weight: Tensor) -> Tensor:
    return _Transposed.apply(weight, True)
