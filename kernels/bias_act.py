"""bias_act in Triton; csrc/bias_act.h says what the kernels read and write.

Memory is a matrix, so that a tile needs the channels of its rows or of its columns, and no division for each element.
A row is `inner` neighbours that share a channel. If the channels are the innermost dimension, a row has `width`
elements; the last row may be shorter. `width` is a multiple of the number of channels and of 16 (a byte of mask bits,
16 bytes of half precision). The kernel that computes dx also sums the bias gradient, in a fixed order. A program sums
its share of the tiles of one channel, or of one block of columns. It writes one row of partial sums: a slot.

Triton compiles a kernel for each dtype, activation, mode and tile shape, not for each value of alpha, gain or clamp.
"""

import math

import triton
import triton.language as tl

from gan_engine.kernels.activations import (
    LINEAR,
    LRELU,
    RELU,
    SWISH,
    activate,
    divide,
    limited,
    packed,
    sigmoid,
    slope_from_output,
)
from gan_engine.kernels.precision import divided, index, narrow, wide

# Elements of a tile: 8 for each thread of 4 warps, 16 bytes of half precision. The forward pass takes twice as many for
# piecewise linear activations, which spreads its prologue: 20 instructions an element instead of 25 to 28. Others would
# take too many registers (as counted; untested on a GPU).
TILE = 1024
# The bias gradient is split over at most PROGRAMS programs: 16 for each of 128 multiprocessors. A program has at least
# TILES_PER_PROGRAM tiles: a partial sum for at least 64 elements. Both are estimates, untested on a GPU.
PROGRAMS = 2048
TILES_PER_PROGRAM = 8
# Columns of a tile, where the channel depends on the column.
COLUMNS = 128


# Eight neighbouring columns are one byte.
@triton.jit
def _store_bits(plane, bits, row, first, n, width, ROWS: tl.constexpr, COLS: tl.constexpr):
    bytes = packed(bits, ROWS, COLS)
    col = first + tl.arange(0, COLS // 8) * 8
    i = row[:, None] * width + col[None, :]
    tl.store(plane + i // 8, bytes, mask=(col < width)[None, :] & (i < n))


@triton.jit
def _bit(plane, i, inside):
    return ((tl.load(plane + i // 8, mask=inside, other=0).to(tl.int32) >> (i % 8).to(tl.int32)) & 1) != 0


# CHANNEL: the channel of an element depends on its "row", its "column", both ("element"), or is not needed ("none").
@triton.jit
def _forward_kernel(
    x, b, y, slope, keep,
    n: tl.int64, width: tl.int64, inner: tl.int64, channels: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ACT: tl.constexpr, CLAMP: tl.constexpr, CHANNEL: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain, clamp = tl.full([], alpha, WIDE), tl.full([], gain, WIDE), tl.full([], clamp, WIDE)
    n, width, inner, channels = n.to(INDEX), width.to(INDEX), inner.to(INDEX), channels.to(INDEX)
    above, block = divided(tl.program_id(0), tl.cdiv(width, COLS), INDEX)
    row, first = above * ROWS + tl.arange(0, ROWS), block * COLS
    col = first + tl.arange(0, COLS)
    i = row[:, None] * width + col[None, :]
    inside = (col < width)[None, :] & (i < n)

    z = tl.load(x + i, mask=inside, other=0.0).to(WIDE)
    if CHANNEL == "row":
        z += tl.load(b + row % channels)[:, None]
    elif CHANNEL == "column":
        z += tl.load(b + col % channels)[None, :]
    elif CHANNEL == "element":
        z += tl.load(b + i // inner % channels)
    if ACT == LRELU:
        v = z * tl.where(z > 0, gain, gain * alpha)
    else:
        v = activate(z, alpha, ACT) * gain
    if slope is not None:
        if ACT == RELU:
            _store_bits(slope, (z <= 0) == 0, row, first, n, width, ROWS, COLS)  # the slope at NaN is 1, as in PyTorch
        else:
            _store_bits(slope, z > 0, row, first, n, width, ROWS, COLS)
    if keep is not None:
        _store_bits(keep, tl.abs(v) <= clamp, row, first, n, width, ROWS, COLS)
    if CLAMP:
        v = limited(v, clamp)
    tl.store(y + i, narrow(v, y.dtype.element_ty), mask=inside)


# m * v, where m is the derivative by the input of an element. bias is None, or that of b.
@triton.jit
def _times_derivative(
    v, saved, bias, slope, keep, i, inside, alpha, gain, inverse_gain, clamp,
    ACT: tl.constexpr, CLAMP: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    v *= gain
    if ACT == RELU:
        v = tl.where(_bit(slope, i, inside), v, 0.0)
    elif ACT == LRELU:
        v = tl.where(_bit(slope, i, inside), v, alpha * v)
    elif ACT == SWISH:
        z = tl.load(saved + i, mask=inside, other=0.0).to(WIDE)
        if bias is not None:
            z += bias
        s = sigmoid(z)
        v *= s * (1.0 + z * (1.0 - s))
        if CLAMP:
            v = tl.where(tl.abs(z * s * gain) <= clamp, v, 0.0)
    elif ACT != LINEAR:
        t = tl.load(saved + i, mask=inside, other=0.0).to(WIDE)
        if CLAMP:
            if bias is not None:
                t += bias
            t = activate(t, alpha, ACT)
            v = tl.where(tl.abs(t * gain) <= clamp, v, 0.0)
        else:
            t *= inverse_gain
        v *= slope_from_output(t, ACT)
    if keep is not None:
        v = tl.where(_bit(keep, i, inside), v, 0.0)
    return v


# A program runs over `share` tiles of one channel, or with BY_COLUMN of one block of columns.
@triton.jit
def _backward_kernel(
    dy, d_db, saved, b, slope, keep, dx, partial,
    n: tl.int64, rows: tl.int64, width: tl.int64, channels: tl.int64, share: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ACT: tl.constexpr, CLAMP: tl.constexpr, BY_COLUMN: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain, clamp = tl.full([], alpha, WIDE), tl.full([], gain, WIDE), tl.full([], clamp, WIDE)
    inverse_gain = divide(tl.full([], 1.0, WIDE), tl.where(gain == 0, float("inf"), gain))
    n, rows, width, share = n.to(INDEX), rows.to(INDEX), width.to(INDEX), share.to(INDEX)
    channels = channels.to(INDEX)
    program = tl.program_id(0).to(INDEX)
    blocks = tl.cdiv(width, COLS)
    if BY_COLUMN:
        slot = program // blocks
        col = program % blocks * COLS + tl.arange(0, COLS)
        tiles = tl.cdiv(rows, ROWS)
        c = col % channels
    else:
        slot = program // channels
        tiles = tl.cdiv(rows, ROWS) * blocks
        c = program % channels
    bias = None
    if d_db is not None:
        spread = tl.load(d_db + c)
    if b is not None:
        bias = tl.load(b + c)

    total = tl.zeros([ROWS, COLS], WIDE)
    for tile in range(slot * share, tl.minimum((slot + 1) * share, tiles)):
        if BY_COLUMN:
            row = tile * ROWS + tl.arange(0, ROWS)
            i = row[:, None] * width + col[None, :]
            inside = (col < width)[None, :] & (i < n)
        else:
            row = tile // blocks * ROWS + tl.arange(0, ROWS)
            col = tile % blocks * COLS + tl.arange(0, COLS)
            i = ((row * channels + c) * width)[:, None] + col[None, :]
            inside = (row < rows)[:, None] & (col < width)[None, :]
        v = tl.load(dy + i, mask=inside, other=0.0).to(WIDE)
        if d_db is not None:
            v += spread
        v = _times_derivative(
            v, saved, bias, slope, keep, i, inside, alpha, gain, inverse_gain, clamp, ACT, CLAMP, WIDE
        )
        tl.store(dx + i, narrow(v, dx.dtype.element_ty), mask=inside)
        total += tl.where(inside, v, 0.0)
    if partial is not None:  # in float64 across the tile, which costs little and is as exact as the terms
        total = total.to(tl.float64)
        if BY_COLUMN:
            tl.store(partial + slot * width + col, tl.sum(total, 0).to(WIDE), mask=col < width)
        else:
            tl.store(partial + slot * channels + c, tl.sum(total).to(WIDE))


def bias_act(x, b, y, slope, keep, n, inner, channels, dtype, act_code, alpha, gain, clamp):
    if b is None:
        channel, width = "none", min(n, TILE)
    elif inner == 1:
        channel, width = "column", _width(n, channels)
    elif inner % 8 == 0:
        channel, width = "row", inner
    else:
        channel, width = "element", min(n, TILE)
    rows, cols = _tile(width, channel == "column")
    if act_code <= LRELU.value and channel != "element":
        rows *= 2
    of_x = triton.cdiv(n, width)
    grid = triton.cdiv(of_x, rows) * triton.cdiv(width, cols)
    _forward_kernel[(grid,)](
        x, b, y, slope, keep, n, width, inner, channels, alpha, gain, clamp,
        act_code, clamp >= 0, channel, wide(dtype), index(of_x, width, rows, cols), rows, cols,
    )  # fmt: skip


def bias_act_grad_slots(n, inner, channels):
    _, width, *_, share, tiles = _plan(n, inner, channels)
    return triton.cdiv(tiles, share) * (width // channels if inner == 1 else 1)


def bias_act_grad(
    dy, d_db, saved, b, slope, keep, dx, partial, slots, n, inner, channels, dtype, act_code, alpha, gain, clamp
):
    if slots == 0 and d_db is None and b is None:
        inner, channels = n, 1
    rows, width, tile_rows, tile_cols, programs, share, tiles = _plan(n, inner, channels)
    of_places = index(rows, width if inner == 1 else width * channels, tile_rows, tile_cols)
    _backward_kernel[(triton.cdiv(tiles, share) * programs,)](
        dy, d_db, saved, b, slope, keep, dx, partial if slots > 0 else None, n, rows, width, channels, share,
        alpha, gain, clamp, act_code, clamp >= 0, inner == 1, wide(dtype), of_places, tile_rows, tile_cols,
    )  # fmt: skip


def _plan(n, inner, channels):
    """How the gradient is split: the matrix, a tile, the programs of a slot, the tiles of a program, and all tiles."""
    width = _width(n, channels) if inner == 1 else inner
    rows = triton.cdiv(n, width) if inner == 1 else n // (inner * channels)
    tile_rows, tile_cols = _tile(width, inner == 1)
    blocks = triton.cdiv(width, tile_cols)
    tiles = triton.cdiv(rows, tile_rows) * (1 if inner == 1 else blocks)
    programs = blocks if inner == 1 else channels
    slots = max(1, min(PROGRAMS // programs, tiles // TILES_PER_PROGRAM))
    return rows, width, tile_rows, tile_cols, programs, triton.cdiv(tiles, slots), tiles


def _width(n, channels):
    """The least multiple of the channels and of 16 that fills the columns of a tile; at most n."""
    period = math.lcm(channels, 16)
    return min(period * triton.cdiv(COLUMNS, period), n)


def _tile(width, by_column):
    """(rows, columns) of a tile. Triton compiles each shape, so there are few; none is much wider than the matrix."""
    cols = COLUMNS if by_column else next((c for c in (1024, 256, 64) if c <= width), 16)
    return TILE // cols, cols
