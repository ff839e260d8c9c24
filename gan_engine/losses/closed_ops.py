"""Level 1: functions of PyTorch whose second gradient computes with zeros, and what runs in their place."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gan_engine.ops.avg_pool2d import avg_pool2d
from gan_engine.ops.bias_act import bias_act
from gan_engine.ops.conv2d import conv2d, convolution
from gan_engine.ops.convolution_kernels import Call


class ClosedOps(TorchFunctionMode):
    """What a network computes from `source`, for a gradient by that alone."""

    def __init__(self, source: Tensor) -> None:
        super().__init__()
        self.source = source

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        closed, kwargs = _CLOSED.get(func), kwargs or {}
        # `no_weight_gradients` would cut the way from a weight to the source.
        if closed in _CONVOLUTIONS and any(_depends_on(t, self.source) for t in (*args[1:3], *kwargs.values())):
            func, closed = _CONVOLUTIONS[closed], None
        result = NotImplemented if closed is None else closed(*args, **kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result


def _depends_on(t: object, source: Tensor) -> bool:
    """Whether t was computed from the source, a leaf or what has a graph of its own."""
    nodes = [t.grad_fn] if isinstance(t, Tensor) and t.grad_fn is not None else []
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        if node is source.grad_fn or getattr(node, "variable", None) is source:
            return True
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        nodes += new
    return False


class _Overwrite(torch.autograd.Function):
    """x <- y: what an activation in place does. The gradient is that of y, and none is made up for the old x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.set_materialize_grads(False)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        return None, dy


def _relu(input: Tensor, inplace: bool = False) -> Tensor:
    return _activation(input, inplace, act="relu")


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _activation(input, inplace, act="lrelu", alpha=negative_slope)


def _activation(input: Tensor, inplace: bool, **act: Any) -> Tensor:
    if input.ndim == 0 or (inplace and input._is_view()):  # an undefined gradient of a view would be one of its base
        return NotImplemented
    y = bias_act(input, **act, gain=1)
    return _Overwrite.apply(input, y) if inplace else y


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    if isinstance(padding, str) or input.ndim != 4:
        return NotImplemented
    return conv2d(input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1) -> Tensor:
    if input.ndim != 4 or torch.is_autocast_enabled(input.device.type):
        return NotImplemented
    return convolution(input, weight, bias, Call.of_transposed(2, stride, padding, output_padding, groups, dilation))


# What convolves with a weight that depends on the source, by what convolves with others.
_CONVOLUTIONS = {_conv2d: F.conv2d, conv2d: F.conv2d, _conv_transpose2d: F.conv_transpose2d}

_CLOSED: dict[Callable, Callable] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), lambda input: _relu(input, inplace=True)),
    F.leaky_relu: _leaky_relu,
    F.conv2d: _conv2d,
    conv2d: conv2d,
    F.conv_transpose2d: _conv_transpose2d,
    F.avg_pool2d: avg_pool2d,
}
