"""Which form of minimal filtering computes a map of a convolution, and whether it is faster than PyTorch's kernels.

`for_forward`, `for_image_gradient` and `for_weight_gradient` answer (number of the form, its time as a share of the
time of PyTorch's kernels in float32), and NO_FORM where no form is accurate or fits the call. They take images
[N, C, H, W] and their weights, in one dtype. `found` remembers what they answered.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.kernel_op import layout
from gan_engine.ops.one_node import constant
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native
from gan_engine.system.cpu import halves_512_bits


class Form(NamedTuple):
    """How csrc/winograd.h numbers a way to compute a convolution, and the sizes from which on it is accurate."""

    number: int
    points: int  # products a tile, for each channel in and out
    weights: int  # numbers that the taps of the kernel become
    tile: tuple[int, int]  # pixels of y
    channels: int  # the fewest in for y or dx
    pixels: int  # the fewest of y for the gradient by the weight
    paddings: tuple[int, ...] = (0, 1, 2, 3)
    side: int = 1  # the shortest of y


# By kernel size, stride and whether transposed. Larger tiles take fewer products and round more. From these channels,
# pixels and sides on, and with these paddings, errors are at most twice the errors of PyTorch's kernels, in 1,072 of
# 1,076 draws of shapes; the other 4, with 32 and 48 channels, came to 2.5 times. With one image and AVX2 PyTorch rounds
# less: 10 of 270 maps came to 2.3 to 3.4 times its errors. (Forms 7 to 9: at most twice in all of 586 draws. On shorter
# sides they are not faster. Forms 10 to 12: at most twice in all of 638 maps. PyTorch rounds less with a padding of 2,
# which form 12 therefore does not take.) PyTorch's error is taken in the layout that rounds more: y and dx in
# channels_last, the gradient by the weight in contiguous memory. (Numbers from a normal distribution behind leaky ReLU,
# batch 8, relative errors in the 2-norm in 1e-7, AVX-512, PyTorch 2.13, 2026-11.)
#
#     channels, side        y: contiguous  channels_last  2x2  4x2  4x4    dweight: contiguous  last  2x2  4x2  4x4
#     64, 32                       2.1          4.1       2.4  4.2   7.4               11.2      3.0  3.0  4.8  8.1
#     512, 32                      2.4         12.0       3.4  5.9  10.3               15.9      4.1  3.0  4.8  8.0
#     512, 8                       2.3         11.4       3.6  6.2  11.1                3.7      1.5  2.6  4.5  6.2
_NEVER = 1 << 62
FORMS = {
    (3, 1, False): (
        Form(0, 16, 16, (2, 2), 32, 128),
        Form(1, 24, 24, (4, 2), 64, 512, (1,)),
        Form(2, 36, 36, (4, 4), 192, 2048, (1,)),
    ),
    (4, 1, False): (
        Form(10, 25, 25, (2, 2), 32, 256, (0, 1, 2)),
        Form(11, 30, 30, (3, 2), 192, 512, (0, 1, 2)),
        Form(12, 36, 36, (3, 3), 32, 2048, (0, 1)),
    ),
    (3, 2, False): (Form(3, 25, 16, (2, 2), 32, 256), Form(7, 81, 36, (4, 4), 32, 256, side=8)),
    (3, 2, True): (Form(4, 49, 25, (6, 6), 32, _NEVER),),
    (4, 2, False): (Form(5, 36, 36, (2, 2), 32, 256), Form(8, 100, 100, (4, 4), 32, 256, side=8)),
    (4, 2, True): (Form(6, 36, 36, (4, 4), 32, _NEVER), Form(9, 100, 100, (8, 8), 128, _NEVER, side=12)),
}

# Why no form is chosen with this instruction set, else None. A request by name runs a form all the same.
_NOT_CHOSEN = {
    "portable": "minimal filtering needs AVX2 or AVX-512: the vectors of the portable build are too short to be faster",
    "neon": "minimal filtering on NEON was never measured beside PyTorch's kernels",
}
WHY_NOT = None if native.WHY_NO_CPU else _NOT_CHOSEN.get(native.cpu.module.isa())


class Costs(NamedTuple):
    """What a convolution costs, in products of a vector [I] and a matrix [I, O] as fast as PyTorch's kernels make them.

    PyTorch takes a product for each tap and pixel, and `tap` products for reading a tap; with a stride, `strided` times
    as much. `layouts` says whether its kernels with a stride gain more by their faster layout than a change costs.

    A form takes `product` for each point and tile, in full vectors; `transform` / I and `transform` / O for making the
    point of x and of y; `weight` for making a weight; and `moved` / (I O) for an element of x or y that is not in
    channels_last, as tiles are.
    """

    product: float
    transform: float
    weight: float
    tap: float
    moved: float
    strided: float
    layouts: bool


# By instruction set, one thread, 64 to 512 channels and 4x4 to 64x64 pixels. `python -m benchmarks.convolution_costs`
# measures a row. A table decides, and no timing on the user's machine: the forms differ by their numbers of products
# more than by the machine, and the bits of a run must not depend on noise.
#
#     avx512    PyTorch at 220 GFLOP/s, AMD EPYC, 2026-11; strides not measured apart
#     avx512 in halves    PyTorch at 107 GFLOP/s, AMD EPYC (Zen 4), two runs, busy, 2026-11
#     avx2      PyTorch at 89 GFLOP/s, Intel Xeon (Sapphire Rapids) with AVX2 forced, 2026-11. Contiguous images
#               with a stride: in channels_last, y took 1.1 to 1.26 times as long (256 and 512 channels)
#
# `moved` is 10 on that EPYC with both sets (2026-12). The number of "avx512" is not measured: its product takes half of
# the time, and moving takes as long.
COSTS = {
    "avx512": Costs(product=1, transform=12, weight=84, tap=100, moved=20, strided=1, layouts=True),
    "avx512 in halves": Costs(product=1.1, transform=7, weight=11, tap=30, moved=10, strided=1.02, layouts=True),
    "avx2": Costs(product=1.23, transform=3, weight=13, tap=57, moved=10, strided=1.15, layouts=False),
}


@constant
def costs() -> Costs:
    """The costs on the instruction set that our kernels run; torch.compile takes those of its first call."""
    isa = "" if native.WHY_NO_CPU else native.cpu.module.isa()
    if isa == "avx512" and halves_512_bits():
        isa = "avx512 in halves"
    return COSTS.get(isa, COSTS["avx2"])


Found = tuple[int | None, float]
NO_FORM: Found = (None, float("inf"))


_PLAIN = frozenset((Tensor, torch.nn.Parameter))
_MOST_ANSWERS = 4096
_answers: dict[tuple, Found] = {}


def found(
    search: Callable[..., Found], a: Tensor, b: Tensor, c: Tensor | None, arguments: ConvolutionArguments
) -> Found:
    """search(a, b, c, arguments) by one of the three functions below, from memory where these sizes came before.

    A search takes 9 us and a look into the memory 2 us, three times in the 900 us of a forward and backward pass of 64
    channels at 8x8, batch 4 (AVX-512, one thread, 2026-11).
    """
    if torch.compiler.is_compiling() or type(a) not in _PLAIN or type(b) not in _PLAIN:
        return search(a, b, c, arguments)
    third = c if c is None else (c.shape, c.stride(), c.is_cpu)
    key = (search, arguments, costs(), a.shape, a.stride(), b.shape, b.stride(), third)
    answer = _answers.get(key)
    if answer is None:
        if len(_answers) >= _MOST_ANSWERS:
            _answers.clear()
        answer = _answers[key] = search(a, b, c, arguments)
    return answer


def for_forward(x: Tensor, weight: Tensor, bias: Tensor | None, arguments: ConvolutionArguments) -> Found:
    """The form of y = F(x, weight) + bias."""
    out = weight.shape[1 if arguments.transposed else 0]
    if bias is not None and not (bias.is_cpu and bias.shape == (out,)):
        return NO_FORM
    if not _fits(x, weight, arguments, weight.shape[0 if arguments.transposed else 1]):
        return NO_FORM
    size = arguments.output_size(x.shape[2:], weight.shape[2:])
    x_last = _is_last(x)
    y_last = x_last or _is_last(weight)
    kind = _kind(weight, arguments, arguments.transposed)
    return _fastest(kind, x.shape, out, size, arguments.padding[0], _moved(x, x_last, y_last, out, size))


def for_image_gradient(dy: Tensor, weight: Tensor, like: Tensor, arguments: ConvolutionArguments) -> Found:
    """The form of dx = D(dy, weight), in the shape and layout of `like`."""
    if not _fits(dy, weight, arguments, weight.shape[1 if arguments.transposed else 0]):
        return NO_FORM
    transposed = arguments.stride[0] > 1 and not arguments.transposed
    out, size = weight.shape[0 if arguments.transposed else 1], like.shape[2:]
    moved = _moved(dy, _is_last(dy), _is_last(like), out, size)
    padding = arguments.padding[0]
    if arguments.stride[0] == 1:  # a convolution again, padded by what is left of the kernel
        padding = int(weight.shape[2]) - 1 - padding
    return _fastest(_kind(weight, arguments, transposed), dy.shape, out, size, padding, moved)


def for_weight_gradient(x: Tensor, dy: Tensor, like: Tensor, arguments: ConvolutionArguments) -> Found:
    """The form of dweight = W(x, dy), in the shape and layout of `like`."""
    if arguments.transposed:
        x, dy = dy, x
    if dy.ndim != 4 or not _fits(x, like, arguments, like.shape[1]):
        return NO_FORM
    moved = sum(0 if _is_last(t) else t.numel() for t in (x, dy))
    kind, (_, out, *size) = _kind(like, arguments, False), dy.shape
    return _fastest(kind, x.shape, out, size, arguments.padding[0], moved, for_weight=True)


def _is_last(x: Tensor) -> bool:
    return layout(x) == torch.channels_last


def _moved(x: Tensor, x_last: bool, y_last: bool, out: int, size: Sequence[int]) -> int:
    """Elements of x and y that are not in channels_last."""
    return (0 if x_last else x.numel()) + (0 if y_last else x.shape[0] * out * size[0] * size[1])


def _fits(x: Tensor, weight: Tensor, arguments: ConvolutionArguments, channels: int) -> bool:
    """Whether there are forms for the kernel size, and the images have the `channels` of the weight."""
    (kh, kw), stride, padding = weight.shape[2:], arguments.stride, arguments.padding
    square = kh == kw and stride[0] == stride[1] and 0 <= padding[0] == padding[1] < kh
    if not square or x.shape[1] != channels or arguments.groups != 1 or arguments.dilation != (1, 1):
        return False
    return _kind(weight, arguments, arguments.transposed) in FORMS


def _kind(weight: Tensor, arguments: ConvolutionArguments, transposed: bool) -> tuple[int, int, bool]:
    return int(weight.shape[2]), arguments.stride[0], transposed


def in_vectors(channels: int, out: int) -> int:
    """I O, as the kernels pad it to full vectors."""
    return -(-channels // 16) * 16 * -(-out // 32) * 32


def _fastest(
    kind: tuple[int, int, bool],
    shape: Sequence[int],
    out: int,
    size: Sequence[int],
    padding: int,
    moved: int,
    *,
    for_weight: bool = False,
) -> Found:
    """The fastest form of the kind that is accurate, and its share of the time of PyTorch's kernels.

    The share is infinite with few channels, and with the instruction sets of `_NOT_CHOSEN`.

    `shape` is the shape of x, `size` the size of y, and `moved` is how many elements are not in channels_last.

    COSTS says what a convolution costs on the instruction set in use.
    """
    n, channels, h, w = shape
    if min(n, h, w, *size) < 1:
        return NO_FORM
    k, stride, transposed = kind
    # Tiles of a transposed convolution begin a pixel before y with every other padding.
    early = int(transposed and padding % 2 != (k == 4))  # PyTorch 2.11 adds no bool to an unknown size
    pixels = n * size[0] * size[1]
    cost_of = costs()  # read by name: PyTorch 2.11 does not unpack a constant
    vectors = cost_of.product * in_vectors(channels, out) / (channels * out)
    best, least = None, float("inf")
    for form in FORMS.get(kind, ()):
        few = pixels < form.pixels if for_weight else channels < form.channels
        if few or padding not in form.paddings or min(size) < form.side:
            continue
        (height, width), down, across = form.tile, size[0] + early, size[1] + early
        down, across = -(-down // height), -(-across // width)
        cost = form.points * n * down * across * (vectors + cost_of.transform / channels + cost_of.transform / out)
        cost += cost_of.weight * form.weights + cost_of.moved * moved / (channels * out)
        if cost < least:
            best, least = form, cost
    if best is None:
        return NO_FORM
    by_pytorch = k**2 * (min(n * h * w, pixels) + cost_of.tap) * (cost_of.strided if stride > 1 else 1)
    many = min(channels, out) >= TABLE["few channels"].number
    return best.number, least / by_pytorch if many and WHY_NOT is None else float("inf")
