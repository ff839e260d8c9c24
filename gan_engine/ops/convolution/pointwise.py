"""The three maps of a 1x1 convolution between an image of few channels, such as colours, and one of many channels.

StyleGAN's D begins with such a convolution. It is as fast as the image of many channels comes from memory or goes
there, in both layouts: each number of it takes part in at most four products. csrc/cpu/pointwise.cpp has the kernels.
"""

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.convolution.relayout import in_layout
from gan_engine.ops.kernel_op import define, layout, operators
from gan_engine.system import native

MOST_FEW = 4  # channels of the one image
LEAST_MANY = 16  # and of the other


def fits(weight: Tensor, arguments: ConvolutionArguments) -> bool:
    """Whether a convolution by this weight [O, I, kh, kw] is of this kind."""
    few, many = sorted(weight.shape[:2])
    if tuple(weight.shape[2:]) != (1, 1) or not 1 <= few <= MOST_FEW or many < LEAST_MANY:
        return False
    stride, padding, _, transposed, _, groups = arguments
    return not transposed and groups == 1 and tuple(stride) == (1, 1) and tuple(padding) == (0, 0)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """torch.convolution(x, weight, bias)"""
    return operators.pointwise(x, weight, bias, False, _is_last(x) or _is_last(weight))


def image_gradient(dy: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    """The gradient of <y, dy> by x, in the layout of `like`."""
    return operators.pointwise(dy, weight, None, True, _is_last(like))


def weight_gradient(x: Tensor, dy: Tensor, like: Tensor) -> Tensor:
    """The gradient of <y, dy> by the weight, in the layout of `like`."""
    return operators.pointwise_wgrad(x, dy, _is_last(like))


def _is_last(x: Tensor) -> bool:
    """Whether x is in channels_last for PyTorch, which asks the strides where both layouts place the numbers alike.

    They do for grey images, and for weights of one pixel.
    """
    return suggest_memory_format(x) == torch.channels_last


# The C++ kernels as PyTorch operators without autograd. The weight is [O, I, 1, 1]; `back` takes O channels to I.


def _pointwise(x, weight, bias, back, last):
    n, i, h, w = x.shape
    o = weight.shape[1 if back else 0]
    to_many = o > i
    # The image of many channels stays in its layout. One channel, or one pixel, lies the same way in both.
    inner = last if to_many else layout(x) == torch.channels_last
    y = _pointwise_fake(x, weight, bias, back, last if 1 in (o, h * w) else inner)
    bias = None if bias is None else bias.contiguous()
    native.cpu.pointwise(in_layout(x, inner), weight, bias, y, [n, h * w, int(inner)], _shape(weight), int(to_many))
    return in_layout(y, last)


def _pointwise_fake(x, weight, bias, back, last):
    memory_format = torch.channels_last if last else torch.contiguous_format
    size = (x.shape[0], weight.shape[1 if back else 0], *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format)


def _pointwise_wgrad(x, dy, last):
    dweight = _pointwise_wgrad_fake(x, dy, last)
    few, many = (dy, x) if x.shape[1] > dy.shape[1] else (x, dy)
    inner = layout(many) == torch.channels_last
    images = [x.shape[0], x.shape[2] * x.shape[3], int(inner)]
    native.cpu.pointwise_wgrad(in_layout(few, inner), in_layout(many, inner), dweight, images, _shape(dweight))
    return dweight


def _pointwise_wgrad_fake(x, dy, last):
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty((dy.shape[1], x.shape[1], 1, 1), dtype=x.dtype, device=x.device, memory_format=memory_format)


def _shape(weight: Tensor) -> list[int]:
    """The sizes and strides [few, many, by few, by many] of a weight [O, I, 1, 1]"""
    (o, i), (by_o, by_i) = weight.shape[:2], weight.stride()[:2]
    return [i, o, by_i, by_o] if i < o else [o, i, by_o, by_i]


define(
    "pointwise(Tensor x, Tensor weight, Tensor? bias, bool back, bool last) -> Tensor",
    _pointwise,
    _pointwise_fake,
)
define("pointwise_wgrad(Tensor x, Tensor dy, bool last) -> Tensor", _pointwise_wgrad, _pointwise_wgrad_fake)
