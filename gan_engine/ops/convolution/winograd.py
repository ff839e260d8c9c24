"""The three kernels of a convolution by minimal filtering: float32, on CPUs, where that is the faster.

A tile of 4x4 pixels of y takes 144 products of a 3x3 convolution, for each channel in and out. Winograd's F(4x4, 3x3)
(1980; Lavin and Gray 2015, arXiv:1509.09308) makes do with 36, of sums of pixels and sums of taps; tiles of 4x2 pixels
take 24 instead of 72, and of 2x2 16 instead of 36. With a stride of 2 the even and the odd pixels are convolved with
every other tap each, and F(2, 2) takes 25 products instead of 36 for a 3x3 kernel, and 36 instead of 64 for 4x4; a
transposed convolution is the same backwards. csrc/cpu/minimal.h has the formulas.

    milliseconds of PyTorch's kernel / of this     y            dx           dweight
    256 -> 256, 3x3, 64x64                         82 / 27      81 / 28     105 / 28
    512 -> 512, 3x3, 16x16                         20 / 8       21 / 10      25 / 9
    512 -> 512, 3x3, stride 2, 33x33               23 / 17      24 / 22      36 / 18
    64 -> 128, 4x4, stride 2, 32x32, batch 16      2.3 / 1.9    2.5 / 1.8   2.8 / 2.0

(batch 8, channels_last, AVX-512, two threads, tuned malloc, PyTorch 2.13, 2026-11).

Rounding is that of a tile: what is off is off by a share of its largest number, up to 5 pixels away, and there a sum
that should be 0 is not quite; an infinity or NaN makes NaN of its tile. What is not taken, or what would not gain, is
left to PyTorch: each function returns None then.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.convolution.relayout import in_layout
from gan_engine.ops.kernel_op import define, layout, operators
from gan_engine.system import native

if TYPE_CHECKING:
    from gan_engine.ops.convolution.passes import Call


class Form(NamedTuple):
    """How csrc/winograd.h numbers a way to compute a convolution, and from where on it is accurate."""

    number: int
    points: int  # products a tile, for each channel in and out
    weights: int  # which the taps of the kernel become
    tile: tuple[int, int]  # pixels of y
    channels: int  # the fewest in for y or dx
    pixels: int  # the fewest of y for the gradient by the weight
    paddings: tuple[int, ...] = (0, 1, 2, 3)


# With fewer channels than these, or a smaller share of the time, there is nothing to gain.
FEWEST_CHANNELS, GAIN = 32, 0.9

# By kernel size, stride and whether transposed. Larger tiles take fewer products and round more. From these channels
# and pixels on, and with these paddings, errors are at most twice those of PyTorch's kernels in the one of its layouts
# that rounds more, y and dx in channels_last, the gradient by the weight in contiguous memory: in all but 4 of
# 1,076 draws of shapes, with 32 and 48 channels, that came to 2.5 times. (Numbers from a normal distribution behind
# leaky ReLU, batch 8, relative errors in the 2-norm in 1e-7, AVX-512, PyTorch 2.13, 2026-11.)
#
#     channels, side        y: contiguous  channels_last  2x2  4x2  4x4    dweight: contiguous  last  2x2  4x2  4x4
#     64, 32                       2.1          4.1       2.4  4.2   7.4               11.2      3.0  3.0  4.8  8.1
#     512, 32                      2.4         12.0       3.4  5.9  10.3               15.9      4.1  3.0  4.8  8.0
#     512, 8                       2.3         11.4       3.6  6.2  11.1                3.7      1.5  2.6  4.5  6.2
_NEVER = sys.maxsize
FORMS = {
    (3, 1, False): (
        Form(0, 16, 16, (2, 2), 32, 128),
        Form(1, 24, 24, (4, 2), 64, 512, (1,)),
        Form(2, 36, 36, (4, 4), 192, 2048, (1,)),
    ),
    (3, 2, False): (Form(3, 25, 16, (2, 2), 32, 256),),
    (3, 2, True): (Form(4, 49, 25, (6, 6), 32, _NEVER),),
    (4, 2, False): (Form(5, 36, 36, (2, 2), 32, 256),),
    (4, 2, True): (Form(6, 36, 36, (4, 4), 32, _NEVER),),
}

# The vectors of the portable build are too short to be faster than PyTorch's kernels.
WHY_NOT = native.WHY_NO_CPU or ("needs AVX2 or AVX-512" if native.cpu.module.isa() == "portable" else None)


def takes(x: Tensor, weight: Tensor, call: "Call") -> bool:
    """Whether `fprop` is not None, without a bias."""
    return _form(x, weight, call) is not None


def fprop(x: Tensor, weight: Tensor, bias: Tensor | None, call: "Call") -> Tensor | None:
    """torch.convolution(x, weight, bias, *call)"""
    out = weight.shape[1 if call.transposed else 0]
    if bias is not None and not (bias.is_cpu and bias.dtype == torch.float32 and bias.shape == (out,)):
        return None
    form = _form(x, weight, call)
    if form is None:
        return None
    last = torch.channels_last in (layout(x), layout(weight))
    size = output_size(x, weight, call)
    return operators.winograd(x, weight, bias, size, form.number, call.padding[0], call.transposed, False, last)


def dgrad(dy: Tensor, like: Tensor, weight: Tensor, call: "Call") -> Tensor | None:
    """The gradient of <y, dy> by x, in the shape and layout of `like`."""
    transposed = call.stride[0] > 1 and not call.transposed
    if not _suits(dy, weight, call, weight.shape[1 if call.transposed else 0]):
        return None
    out, size = weight.shape[0 if call.transposed else 1], like.shape[2:]
    last = layout(like) == torch.channels_last
    form = _best(_kind(weight, call, transposed), dy, out, size, call.padding[0], last)
    if form is None:
        return None
    flipped = call.stride[0] == 1
    padding = weight.shape[2] - 1 - call.padding[0] if flipped else call.padding[0]
    return operators.winograd(dy, weight, None, size, form.number, padding, not call.transposed, flipped, last)


def wgrad(dy: Tensor, x: Tensor, like: Tensor, call: "Call") -> Tensor | None:
    """The gradient of <y, dy> by the weight, in the shape and layout of `like`."""
    if call.transposed:
        x, dy = dy, x
    if dy.dtype != torch.float32 or dy.ndim != 4 or not _suits(x, like, call, like.shape[1]):
        return None
    size = dy.shape[2:]
    form = _best(_kind(like, call, False), x, dy.shape[1], size, call.padding[0], None, dy)
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
    if not _suits(x, weight, call, weight.shape[0 if call.transposed else 1]):
        return None
    out, size = weight.shape[1 if call.transposed else 0], output_size(x, weight, call)
    last = torch.channels_last in (layout(x), layout(weight))
    return _best(_kind(weight, call, call.transposed), x, out, size, call.padding[0], last)


def _suits(x: Tensor, weight: Tensor, call: "Call", channels: int) -> bool:
    """Whether there are forms for the kernel, and its tensors are as they need them, x with `channels`."""
    if not (x.is_cpu and weight.is_cpu and x.ndim == weight.ndim == 4):
        return False
    if not x.dtype == weight.dtype == torch.float32:
        return False
    kh, kw = weight.shape[2:]
    square = kh == kw and call.stride[0] == call.stride[1] and 0 <= call.padding[0] == call.padding[1] < kh
    if not square or x.shape[1] != channels or call.groups != 1 or call.dilation != (1, 1):
        return False
    return _kind(weight, call, call.transposed) in FORMS and WHY_NOT is None and backends.open_to("cpu")


def _kind(weight: Tensor, call: "Call", transposed: bool) -> tuple[int, int, bool]:
    return int(weight.shape[2]), call.stride[0], transposed


def _best(
    kind: tuple[int, int, bool],
    x: Tensor,
    out: int,
    size: Sequence[int],
    padding: int,
    last: bool | None,
    dy: Tensor | None = None,
) -> Form | None:
    """The fastest form of the kind that is accurate, or None if that is PyTorch's kernel.

    `size`: of y, which is to be channels_last if `last`. With dy it is for the gradient by the weight.

    Times are in that of a product of a vector [I] and a matrix [I, O], 2 I O / 220 GFLOP/s on one thread, as fitted to
    measurements of 64 to 512 channels and 4x4 to 64x64 pixels. PyTorch takes as long as a product for each tap and
    pixel, and 100 of them for reading a tap. A form takes a product for each point and tile, in full vectors, 84 for
    making a weight, and some for its numbers of pixels, which come from and go to tensors in channels_last.
    """
    n, channels, h, w = x.shape
    if min(channels, out) < FEWEST_CHANNELS or min(n, h, w, *size) < 1:
        return None
    k, _, transposed = kind
    # Tiles of a transposed convolution begin a pixel before y with every other padding.
    early = transposed and padding % 2 != (k == 4)
    pixels = n * size[0] * size[1]
    vectors = -(-channels // 16) * 16 * -(-out // 32) * 32 / (channels * out)
    # What relayouts move, 0.7 ns an element.
    moved = 0 if layout(x) == torch.channels_last else x.numel()
    if dy is not None:
        moved += 0 if layout(dy) == torch.channels_last else dy.numel()
    elif not last:
        moved += pixels * out
    best, least = None, GAIN * k**2 * (min(n * h * w, pixels) + 100)
    for form in FORMS.get(kind, ()):
        if padding not in form.paddings or (channels < form.channels if dy is None else pixels < form.pixels):
            continue
        down, across = (-(-(side + early) // tile) for side, tile in zip(size, form.tile, strict=True))
        cost = form.points * n * down * across * (vectors + 12 / channels + 12 / out)
        cost += 84 * form.weights + 77 * moved / (channels * out)
        if cost < least:
            best, least = form, cost
    return best


# The kernels as PyTorch operators without autograd. A weight is [O, I, k, k], where it is transposed [I, O, k, k], and
# its taps may come in reverse order.


def _winograd(x, weight, bias, size, minimal, padding, transposed, flipped, last):
    n, i, h, w = x.shape
    o = weight.shape[1 if transposed else 0]
    y = torch.empty((n, o, *size), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    strides = weight.stride()
    by_out, by_in = (strides[1], strides[0]) if transposed else strides[:2]
    begin, taps = 0, strides[2:]
    if flipped:
        begin, taps = (weight.shape[2] - 1) * sum(taps), [-stride for stride in taps]
    shape = [o, i, by_out, by_in, *taps]
    bias = None if bias is None else bias.contiguous()
    native.cpu.winograd(in_layout(x, True), weight, begin, bias, y, [n, h, w, *size, padding], shape, minimal)
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
