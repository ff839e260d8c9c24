"""The three maps of a convolution by minimal filtering: float32, on CPUs. forms.py says where that is the faster way.

A tile of 4x4 pixels of y takes 144 products of a 3x3 convolution, for each channel in and out. Winograd's F(4x4, 3x3)
(1980; Lavin and Gray 2015, arXiv:1509.09308) takes 36 products, of sums of pixels and sums of taps. Tiles of 4x2 pixels
take 24 instead of 72, and tiles of 2x2 take 16 instead of 36. For a 4x4 kernel, tiles of 3x3 pixels take 36 instead of
144, tiles of 3x2 take 30 instead of 96, and tiles of 2x2 take 25 instead of 64.

With a stride of 2 the even and the odd pixels are convolved with every other tap each. F(4, 2) takes 81 products
instead of 144 for a 3x3 kernel and a tile of 4x4, and 100 instead of 256 for 4x4. Small images have tiles of 2x2:
F(2, 2) takes 25 products instead of 36, and 36 instead of 64. A transposed convolution is the same backwards.
csrc/cpu/minimal.h has the formulas.

    milliseconds of PyTorch's kernel / of this     y            dx           dweight
    256 -> 256, 3x3, 64x64                         82 / 27      81 / 28     105 / 28
    512 -> 512, 3x3, 16x16                         20 / 8       21 / 10      25 / 9
    512 -> 512, 3x3, stride 2, 33x33               23 / 17      24 / 22      36 / 18
    64 -> 128, 4x4, stride 2, 32x32, batch 16      2.3 / 1.9    2.5 / 1.8   2.8 / 2.0

(batch 8, channels_last, AVX-512, two threads, tuned malloc, PyTorch 2.13, 2026-11; with a stride of 2 in tiles of 2x2).

The unit of rounding is the tile: an error is a share of the tile's largest number, up to 5 pixels away, and a sum that
should be 0 there is not quite 0. An infinity or NaN makes NaN of its tile.
"""

import torch
from torch import Tensor

from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.kernel_op import define, layout, operators
from gan_engine.system import native

# Each function takes the number of the form that forms.py found for the call.


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, arguments: ConvolutionArguments, form: int) -> Tensor:
    """torch.convolution(x, weight, bias, *arguments)"""
    last = torch.channels_last in (layout(x), layout(weight))
    size, transposed = arguments.output_size(x.shape[2:], weight.shape[2:]), arguments.transposed
    return operators.winograd(x, weight, bias, size, form, arguments.padding[0], transposed, False, last)


def image_gradient(dy: Tensor, weight: Tensor, like: Tensor, arguments: ConvolutionArguments, form: int) -> Tensor:
    """The gradient of <y, dy> by x, in the shape and layout of `like`."""
    last, padding = layout(like) == torch.channels_last, arguments.padding[0]
    flipped = arguments.stride[0] == 1
    if flipped:
        padding = weight.shape[2] - 1 - padding
    size, transposed = like.shape[2:], not arguments.transposed
    return operators.winograd(dy, weight, None, size, form, padding, transposed, flipped, last)


def weight_gradient(x: Tensor, dy: Tensor, like: Tensor, arguments: ConvolutionArguments, form: int) -> Tensor:
    """The gradient of <y, dy> by the weight, in the shape and layout of `like`."""
    if arguments.transposed:
        x, dy = dy, x
    last = layout(like) == torch.channels_last
    return operators.winograd_wgrad(x, dy, like.shape[2], form, arguments.padding[0], last)


# The C++ kernels as PyTorch operators without autograd. A weight is [O, I, k, k], or [I, O, k, k] where it is
# transposed, and its taps may come in reverse order.


def _dense(x: Tensor) -> tuple[Tensor, int]:
    """x without gaps, in one of two layouts; and 1 for channels_last, 0 for contiguous memory."""
    if x.is_contiguous(memory_format=torch.channels_last):
        return x, 1
    return x.contiguous(), 0


def _winograd(x, weight, bias, size, minimal, padding, transposed, flipped, last):
    n, i, h, w = x.shape
    o = weight.shape[1 if transposed else 0]
    y = _winograd_fake(x, weight, bias, size, minimal, padding, transposed, flipped, last)
    x, x_last = _dense(x)
    strides = weight.stride()
    by_out, by_in = (strides[1], strides[0]) if transposed else strides[:2]
    begin, taps = 0, strides[2:]
    if flipped:
        begin, taps = (weight.shape[2] - 1) * sum(taps), [-stride for stride in taps]
    shape = [o, i, by_out, by_in, *taps]
    bias = None if bias is None else bias.contiguous()
    native.cpu.winograd(x, weight, begin, bias, y, [n, h, w, *size, padding, x_last, int(last)], shape, minimal)
    return y


def _winograd_fake(x, weight, bias, size, minimal, padding, transposed, flipped, last):
    shape = x.shape[0], weight.shape[1 if transposed else 0], *size
    memory_format = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


def _winograd_wgrad(x, dy, k, minimal, padding, last):
    dweight = _winograd_wgrad_fake(x, dy, k, minimal, padding, last)
    (x, x_last), (dy, dy_last) = _dense(x), _dense(dy)
    images = [x.shape[0], *x.shape[2:], *dy.shape[2:], padding, x_last, dy_last]
    shape = [*dweight.shape[:2], *dweight.stride()]
    native.cpu.winograd_wgrad(x, dy, dweight, images, shape, minimal)
    return dweight


def _winograd_wgrad_fake(x, dy, k, minimal, padding, last):
    size, memory_format = (dy.shape[1], x.shape[1], k, k), torch.channels_last if last else torch.contiguous_format
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=memory_format)


define(
    "winograd(Tensor x, Tensor weight, Tensor? bias, SymInt[] size, int minimal, int padding, bool transposed,"
    " bool flipped, bool last) -> Tensor",
    _winograd,
    _winograd_fake,
)
define(
    "winograd_wgrad(Tensor x, Tensor dy, SymInt k, int minimal, int padding, bool last) -> Tensor",
    _winograd_wgrad,
    _winograd_wgrad_fake,
)
