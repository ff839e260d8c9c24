"""The three kernels of a convolution by minimal filtering: float32, on CPUs, where that is the faster.

A tile of 4x4 pixels of y takes 144 products of a 3x3 convolution, for each channel in and out. Winograd's F(4x4, 3x3)
(1980; Lavin and Gray 2015, arXiv:1509.09308) makes do with 36, of sums of pixels and sums of taps; tiles of 4x2 pixels
take 24 instead of 72, and of 2x2 16 instead of 36. With a stride of 2 the even and the odd pixels are convolved with
every other tap each, and F(2, 2) takes 25 products instead of 36 for a 3x3 kernel, and 36 instead of 64 for 4x4; a
transposed convolution is the same backwards. csrc/cpu/winograd.cpp has the formulas.

    milliseconds of PyTorch's kernel / of this     y            dx           dweight
    256 -> 256, 3x3, 64x64                         82 / 26      82 / 26     103 / 28
    512 -> 512, 3x3, 16x16                         22 / 9       22 / 10      26 / 10
    512 -> 512, 3x3, stride 2, 33x33               24 / 20      25 / 21      37 / 19
    64 -> 128, 4x4, stride 2, 32x32, batch 16      2.3 / 1.8    2.4 / 2.1   2.8 / 1.9

(batch 8, channels_last, AVX-512, two threads, PyTorch 2.13, 2026-11). What it does not take, or what would not gain, is
left to PyTorch: each function returns None then.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gan_engine import backends, native
from gan_engine.ops.kernel_op import define, layout, operators
from gan_engine.ops.relayout import in_layout

if TYPE_CHECKING:
    from gan_engine.ops.convolution_kernels import Call


class Form(NamedTuple):
    """How csrc/winograd.h numbers a way to compute a convolution, and from where on it is accurate."""

    number: int
    points: int  # products a tile, for each channel in and out
    weights: int  # which the taps of the kernel become
    tile: tuple[int, int]  # pixels of y
    channels: int  # the fewest in for y or dx
    pixels: int  # the fewest of y for the gradient by the weight


# By kernel size, stride and whether transposed. Larger tiles take fewer products and round more. From these channels
# and pixels on errors are at most twice those of PyTorch's kernels, in the one of its layouts that rounds more: y and
# dx in channels_last, the gradient by the weight in contiguous memory (numbers from a normal distribution behind leaky
# ReLU, batch 8, relative errors in the 2-norm in 1e-7, AVX-512, PyTorch 2.13, 2026-11):
#
#     channels, side        y: contiguous  channels_last  2x2  4x2  4x4    dweight: contiguous  last  2x2  4x2  4x4
#     64, 32                       2.1          4.1       2.4  4.2   7.4               11.2      3.0  3.0  4.8  8.1
#     512, 32                      2.4         12.0       3.4  5.9  10.3               15.9      4.1  3.0  4.8  8.0
#     512, 8                       2.3         11.4       3.6  6.2  11.1                3.7      1.5  2.6  4.5  6.2
_NEVER = sys.maxsize

# With fewer channels than these, or a smaller share of the time, there is nothing to gain.
LEAST_CHANNELS, GAIN = 32, 0.9
FORMS = {
    (3, 1, False): (
        Form(0, 16, 16, (2, 2), 32, 128),
        Form(1, 24, 24, (4, 2), 32, 512),
        Form(2, 36, 36, (4, 4), 64, 512),
    ),
    (3, 2, False): (Form(3, 25, 16, (2, 2), 32, 256),),
    (3, 2, True): (Form(4, 49, 25, (6, 6), 32, _NEVER),),
    (4, 2, False): (Form(5, 36, 36, (2, 2), 32, 256),),
    (4, 2, True): (Form(6, 36, 36, (4, 4), 32, _NEVER),),
}
_WEIGHTS = {form.number: form.weights for forms in FORMS.values() for form in forms}

# The vectors of the portable build are too short to be faster than PyTorch's kernels.
WHY_NOT = native.WHY_NO_CPU or ("needs AVX2 or AVX-512" if native.cpu.module.isa() == "portable" else None)


def takes(x: Tensor, weight: Tensor, call: "Call") -> bool:
    """Whether `fprop` is not None."""
    return _form(x, weight, call) is not None


def fprop(x: Tensor, weight: Tensor, bias: Tensor | None, call: "Call") -> Tensor | None:
    """torch.convolution(x, weight, bias, *call)"""
    form = _form(x, weight, call)
    if form is None:
        return None
    last = torch.channels_last in (layout(x), layout(weight))
    size = output_size(x, weight, call)
    return operators.winograd(x, weight, bias, size, form.number, call.padding[0], call.transposed, False, last)


def dgrad(dy: Tensor, like: Tensor, weight: Tensor, call: "Call") -> Tensor | None:
    """The gradient of <y, dy> by x, in the shape and layout of `like`."""
    if not _suits(dy, weight, call):
        return None
    flipped = call.stride[0] == 1
    out, size = weight.shape[0 if call.transposed else 1], like.shape[2:]
    transposed = not (flipped or call.transposed)
    form = _best(_forms(weight, call, transposed), dy, out, _covered(size, weight, call, transposed), 0)
    if form is None:
        return None
    padding = weight.shape[2] - 1 - call.padding[0] if flipped else call.padding[0]
    last = layout(like) == torch.channels_last
    return operators.winograd(dy, weight, None, size, form.number, padding, not call.transposed, flipped, last)


def wgrad(dy: Tensor, x: Tensor, like: Tensor, call: "Call") -> Tensor | None:
    """The gradient of <y, dy> by the weight, in the shape and layout of `like`."""
    if not _suits(x, like, call) or dy.dtype != torch.float32:
        return None
    if call.transposed:
        x, dy = dy, x
    size = dy.shape[2:]
    form = _best(_forms(like, call, False), x, dy.shape[1], size, dy.shape[0] * size[0] * size[1])
    if form is None:
        return None
    last = layout(like) == torch.channels_last
    return operators.winograd_wgrad(x, dy, like.shape[2], form.number, call.padding[0], last)


def output_size(x: Tensor, weight: Tensor, call: "Call") -> list[int]:
    """[H', W'] of a convolution without dilation."""
    sides = zip(x.shape[2:], weight.shape[2:], call.stride, call.padding, call.output_padding, strict=True)
    if call.transposed:
        return [(n - 1) * stride - 2 * padding + k + rest for n, k, stride, padding, rest in sides]
    return [(n + 2 * padding - k) // stride + 1 for n, k, stride, padding, _ in sides]


def _form(x: Tensor, weight: Tensor, call: "Call") -> Form | None:
    if not _suits(x, weight, call):
        return None
    out = weight.shape[1 if call.transposed else 0]
    size = _covered(output_size(x, weight, call), weight, call, call.transposed)
    return _best(_forms(weight, call, call.transposed), x, out, size, 0)


def _suits(x: Tensor, weight: Tensor, call: "Call") -> bool:
    """Whether there is a form for the kernel and its tensors."""
    if weight.ndim != 4 or not x.is_cpu or not x.dtype == weight.dtype == torch.float32:
        return False
    kh, kw = weight.shape[2:]
    square = kh == kw and call.stride[0] == call.stride[1] and call.padding[0] == call.padding[1] < kh
    known = square and bool(_forms(weight, call, call.transposed))
    return known and call.groups == 1 and call.dilation == (1, 1) and WHY_NOT is None and backends.open_to("cpu")


def _covered(size: Sequence[int], weight: Tensor, call: "Call", transposed: bool) -> Sequence[int]:
    """What tiles must cover of y: those of a transposed convolution with some paddings begin a pixel before it."""
    early = transposed and call.padding[0] % 2 != (weight.shape[2] == 4)
    return [n + 1 for n in size] if early else size


def _forms(weight: Tensor, call: "Call", transposed: bool) -> tuple[Form, ...]:
    return FORMS.get((weight.shape[2], call.stride[0], transposed), ())


def _best(forms: Sequence[Form], x: Tensor, out: int, size: Sequence[int], pixels: int) -> Form | None:
    """The fastest of `forms` that is accurate, or None if that is PyTorch's kernel.

    `pixels`: of y, if it is for the gradient by the weight, else 0. Times are in that of a product of a vector [I] and
    a matrix [I, O], 2 I O / 220 GFLOP/s on one thread, as fitted to measurements of 64 to 512 channels and 4x4 to 64x64
    pixels: a kernel of PyTorch takes as long as a product for each tap and pixel, and 100 of them for reading a tap. A
    form takes a product for each point and tile, 84 for making a weight, and some for making its numbers of pixels.
    """
    n, channels, h, w = x.shape
    fewest = min(channels, out)
    if not forms or fewest < LEAST_CHANNELS or x.numel() == 0:
        return None
    k, from_pixels = (4 if forms[0].number > 4 else 3), n * min(h * w, size[0] * size[1])
    best, least = None, GAIN * k * k * (from_pixels + 100)
    for form in forms:
        if (pixels < form.pixels) if pixels else (channels < form.channels):
            continue
        tiles = n * -(-size[0] // form.tile[0]) * -(-size[1] // form.tile[1])
        cost = form.points * tiles * (1 + 12 / channels + 12 / out) + 84 * form.weights
        if cost < least:
            best, least = form, cost
    return best


# The kernels as PyTorch operators without autograd. A weight is [O, I, k, k], where it is transposed [I, O, k, k], and
# its taps may come in reverse order.


def _winograd(x, weight, bias, size, minimal, padding, transposed, flipped, last):
    n, i, h, w = x.shape
    o = weight.shape[1 if transposed else 0]
    y = torch.empty((n, o, *size), memory_format=torch.channels_last)
    strides = weight.stride()
    by_out, by_in = (strides[1], strides[0]) if transposed else strides[:2]
    begin, taps = 0, strides[2:]
    if flipped:
        begin, taps = (weight.shape[2] - 1) * sum(taps), [-stride for stride in taps]
    u = torch.empty(_WEIGHTS[minimal] * -(-o // 32) * i * 32)
    native.cpu.winograd_weight(weight, begin, u, [o, i, by_out, by_in, *taps], minimal)
    native.cpu.winograd(in_layout(x, True), u, bias, y, [n, h, w, *size, padding], i, o, minimal)
    return in_layout(y, last)


def _winograd_fake(x, weight, bias, size, minimal, padding, transposed, flipped, last):
    y = x.new_empty((x.shape[0], weight.shape[1 if transposed else 0], *size))
    return y.contiguous(memory_format=torch.channels_last) if last else y


def _winograd_wgrad(x, dy, k, minimal, padding, last):
    dweight = _winograd_wgrad_fake(x, dy, k, minimal, padding, last)
    images = [x.shape[0], *x.shape[2:], *dy.shape[2:], padding]
    shape = [*dweight.shape[:2], *dweight.stride()]
    native.cpu.winograd_wgrad(in_layout(x, True), in_layout(dy, True), dweight, images, shape, minimal)
    return dweight


def _winograd_wgrad_fake(x, dy, k, minimal, padding, last):
    dweight = x.new_empty((dy.shape[1], x.shape[1], k, k))
    return dweight.contiguous(memory_format=torch.channels_last) if last else dweight


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
