"""pixel_norm in Triton; csrc/pixel_norm.h says what the kernel reads and writes.

A program has some pixels with all of their channels, which it reads twice: for the sums, and for y. The channels are
the columns of its tiles if they are neighbours in memory, and the rows if they are not.

Triton compiles a kernel for each dtype and layout, with and without dy.
"""

import triton
import triton.language as tl

from gan_engine.kernels.activations import divide, inverse_root
from gan_engine.kernels.precision import divided, index, narrow, wide

# A tile: 16 numbers for each thread of 4 warps (from register counts, untested on a GPU).
PIXELS, CHANNELS = {True: 8, False: 64}, {True: 256, False: 32}


@triton.jit
def _kernel(
    x, dy, y, outer: tl.int64, channels: tl.int64, inner: tl.int64, eps: tl.float64,
    LAST: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    outer, channels, inner = outer.to(INDEX), channels.to(INDEX), inner.to(INDEX)
    AXIS: tl.constexpr = 1 if LAST else 0  # of the channels
    if LAST:
        pixel = tl.program_id(0).to(INDEX) * PIXELS + tl.arange(0, PIXELS)
        exists, place = (pixel < outer)[:, None], (pixel * channels)[:, None]
        squares = tl.zeros([PIXELS, CHANNELS], WIDE)
    else:
        image, block = divided(tl.program_id(0), tl.cdiv(inner, PIXELS), INDEX)
        pixel = block * PIXELS + tl.arange(0, PIXELS)
        exists, place = (pixel < inner)[None, :], (image * channels * inner + pixel)[None, :]
        squares = tl.zeros([CHANNELS, PIXELS], WIDE)
    dots = squares
    for first in range(0, channels, CHANNELS):
        c = tl.expand_dims(first + tl.arange(0, CHANNELS), 1 - AXIS)
        i, inside = place + (c if LAST else c * inner), exists & (c < channels)
        v = tl.load(x + i, mask=inside, other=0.0).to(WIDE)
        squares += v * v
        if dy is not None:
            dots += v * tl.load(dy + i, mask=inside, other=0.0).to(WIDE)
    count = channels.to(WIDE)
    r = inverse_root(divide(tl.sum(squares, AXIS), count) + tl.full([], eps, WIDE))
    of_x = tl.expand_dims(r * r * divide(tl.sum(dots, AXIS), count), AXIS)
    r = tl.expand_dims(r, AXIS)
    for first in range(0, channels, CHANNELS):
        c = tl.expand_dims(first + tl.arange(0, CHANNELS), 1 - AXIS)
        i, inside = place + (c if LAST else c * inner), exists & (c < channels)
        v = tl.load(x + i, mask=inside, other=0.0).to(WIDE)
        if dy is not None:
            v = tl.load(dy + i, mask=inside, other=0.0).to(WIDE) - v * of_x
        tl.store(y + i, narrow(v * r, y.dtype.element_ty), mask=inside)


def pixel_norm(x, dy, y, outer, channels, inner, dtype, eps):
    last = inner == 1
    pixels, tile = PIXELS[last], CHANNELS[last]
    if last:
        programs, of_places = triton.cdiv(outer, pixels), index(outer, channels, pixels, tile)
    else:
        programs, of_places = outer * triton.cdiv(inner, pixels), index(outer * channels + tile, inner, 1, pixels)
    _kernel[(programs,)](x, dy, y, outer, channels, inner, eps, last, wide(dtype), of_places, pixels, tile)
