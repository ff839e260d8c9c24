"""bias_act in Triton: csrc/bias_act.h says what the passes read and write.

Memory is seen as a matrix, so that a tile needs the channels of its rows or of its columns alone, never a division per
element: rows of `inner` neighbours that share a channel, or, where the channels are the innermost dimension, rows of
`width` elements, a multiple of the channels and of 16 (a byte of mask bits, 16 bytes of half precision), the last of
which may be cut short. The bias gradient is summed in the pass that computes dx, in a fixed order: a program sums its
share of the tiles of one channel (or of one block of columns) and writes one row, a slot, of partial sums.

A kernel is compiled anew per dtype, activation, mode and tile shape, never per value of alpha, gain or clamp.
"""

import math

import torch
import triton
import triton.language as tl

from gan_engine.kernels.rounding import narrow

# Elements per tile: 8 for each thread of 4 warps, 16 bytes of half precision. Twice as many take 60 to 120 registers a
# thread instead of 28 to 48, which leaves fewer threads to wait for memory (as compiled; untested on a GPU).
TILE = 1024
# Programs that the bias gradient is split over, and the fewest tiles worth one: 16 programs for each of 128
# multiprocessors, and a partial sum for no fewer than 64 elements (estimates, untested on a GPU).
PROGRAMS = 2048
TILES_PER_PROGRAM = 8
# Columns of a tile where a tile needs the channel of its columns.
COLUMNS = 128

LINEAR, RELU, LRELU = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
TANH, SIGMOID, ELU = tl.constexpr(3), tl.constexpr(4), tl.constexpr(5)
SELU, SOFTPLUS, SWISH = tl.constexpr(6), tl.constexpr(7), tl.constexpr(8)
SELU_SCALE, SELU_ALPHA = tl.constexpr(1.0507009873554805), tl.constexpr(1.6732632423543772)
SOFTPLUS_THRESHOLD = tl.constexpr(20.0)


# e^x for x <= 0 to about an ulp, where tl.exp on float32 multiplies by log2(e) and loses |x| of them: x = k ln 2 + r,
# and e^r - 1 by its Taylor series in |r| <= ln(2) / 2. Returns e^r - 1 and two factors of 2^k, either of which can be
# represented where 2^k cannot.
@triton.jit
def _exp_parts(x):
    if x.dtype == tl.float64:
        x = tl.where(x > -746.0, x, -746.0)  # e^-746 rounds to 0; NaN becomes a number here, and the callers restore it
        k = tl.floor(x * 1.4426950408889634 + 0.5)
        r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10
        q = r * (1.0 / 14.0) + 1.0
        for term in tl.static_range(13, 1, -1):
            q = q * r * (1.0 / term) + 1.0
        k = k.to(tl.int64)
        half = k >> 1
        first = ((half + 1023) << 52).to(tl.float64, bitcast=True)
        second = ((k - half + 1023) << 52).to(tl.float64, bitcast=True)
    else:
        x = tl.where(x > -104.0, x, -104.0)
        k = tl.floor(x * 1.44269504 + 0.5)
        r = (x - k * 0.693145752) - k * 1.42860677e-6
        q = r * (1.0 / 8.0) + 1.0
        for term in tl.static_range(7, 1, -1):
            q = q * r * (1.0 / term) + 1.0
        k = k.to(tl.int32)
        half = k >> 1
        first = ((half + 127) << 23).to(tl.float32, bitcast=True)
        second = ((k - half + 127) << 23).to(tl.float32, bitcast=True)
    return q * r, first, second


@triton.jit
def _exp(x):
    q, first, second = _exp_parts(x)
    return tl.where(x == x, (q * first + first) * second, x)


@triton.jit
def _expm1(x):
    q, first, second = _exp_parts(x)
    scale = first * second
    return tl.where(x == x, q * scale + (scale - 1.0), x)


# log(1 + u) for u in [0, 1]: log(1 + f), or ln 2 + log(1 + f) with 1 + f = (1 + u) / 2, so that |f| < sqrt(2) - 1. With
# s = f / (2 + f) it is 2 atanh(s) = 2 s + s r, where r is a series in s^2; 2 s = f - s f keeps the digits of f.
@triton.jit
def _log1p(u):
    halve = u > 0.4142135623730951
    f = tl.where(halve, (u - 1.0) * 0.5, u)
    s = _divide(f, f + 2.0)
    r = tl.zeros_like(s)
    if u.dtype == tl.float64:
        for k in tl.static_range(23, 1, -2):
            r = (r + 2.0 / k) * (s * s)
    else:
        for k in tl.static_range(11, 1, -2):
            r = (r + 2.0 / k) * (s * s)
    square = 0.5 * f * f
    log = f - (square - s * (square + r))
    return tl.where(halve, log + 0.6931471805599453, log)


@triton.jit
def _divide(a, b):
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)  # the / of float32 is an approximation


@triton.jit
def _sigmoid(z):
    e = _exp(-tl.abs(z))
    return _divide(tl.where(z < 0, e, 1.0), e + 1.0)


# By e^-2|z| - 1 where the result is below 1/2, by e^-2|z| where it is above.
@triton.jit
def _tanh(z):
    q, first, second = _exp_parts(-2.0 * tl.abs(z))
    scale = first * second
    e = q * scale + (scale - 1.0)
    below = _divide(-e, e + 2.0)
    positive = q * scale + scale
    above = 1.0 - _divide(2.0 * positive, positive + 1.0)
    t = tl.where(e > -0.6666667, below, above)
    return tl.where(z == z, tl.where(z < 0, -t, t), z)


@triton.jit
def _activate(z, alpha, ACT: tl.constexpr):
    if ACT == RELU:
        t = tl.where(z < 0, 0.0, z)
    elif ACT == LRELU:
        t = tl.where(z > 0, z, alpha * z)
    elif ACT == TANH:
        t = _tanh(z)
    elif ACT == SIGMOID:
        t = _sigmoid(z)
    elif ACT == ELU:
        t = tl.where(z > 0, z, _expm1(tl.where(z > 0, 0.0, z)))
    elif ACT == SELU:
        t = tl.where(z > 0, z * SELU_SCALE, _expm1(tl.where(z > 0, 0.0, z)) * (SELU_SCALE * SELU_ALPHA))
    elif ACT == SOFTPLUS:
        t = tl.where(z > SOFTPLUS_THRESHOLD, z, tl.where(z > 0, z, 0.0) + _log1p(_exp(-tl.abs(z))))
    elif ACT == SWISH:
        t = z * _sigmoid(z)
    else:
        t = z
    return t


# act'(z) from t = act(z).
@triton.jit
def _slope_from_output(t, ACT: tl.constexpr):
    if ACT == TANH:
        m = 1.0 - t * t
    elif ACT == SIGMOID:
        m = t * (1.0 - t)
    elif ACT == ELU:
        m = tl.where(t > 0, 1.0, t + 1.0)
    elif ACT == SELU:
        m = tl.where(t > 0, SELU_SCALE, t + SELU_SCALE * SELU_ALPHA)
    else:
        m = -_expm1(-t)
    return m


# Eight neighbouring columns are one byte.
@triton.jit
def _store_bits(plane, bits, row, first, n, width, ROWS: tl.constexpr, COLS: tl.constexpr):
    bits = tl.reshape(bits.to(tl.int32), [ROWS, COLS // 8, 8])
    bytes = tl.sum(bits << tl.arange(0, 8)[None, None, :], 2)
    col = first + tl.arange(0, COLS // 8) * 8
    i = row[:, None] * width + col[None, :]
    tl.store(plane + i // 8, bytes.to(tl.uint8), mask=(col < width)[None, :] & (i < n))


@triton.jit
def _bit(plane, i, inside):
    return ((tl.load(plane + i // 8, mask=inside, other=0).to(tl.int32) >> (i % 8).to(tl.int32)) & 1) != 0


# CHANNEL says what the channel of an element depends on: "row", "column", "element" (both) or "none".
@triton.jit
def _forward_kernel(
    x, b, y, slope, keep,
    n: tl.int64, width: tl.int64, inner: tl.int64, channels: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ACT: tl.constexpr, CLAMP: tl.constexpr, CHANNEL: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain, clamp = tl.full([], alpha, WIDE), tl.full([], gain, WIDE), tl.full([], clamp, WIDE)
    n, width = n.to(tl.int64), width.to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
    blocks = tl.cdiv(width, COLS)
    row = program // blocks * ROWS + tl.arange(0, ROWS)
    first = program % blocks * COLS
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
    v = _activate(z, alpha, ACT) * gain
    if slope is not None:
        if ACT == RELU:
            _store_bits(slope, (z <= 0) == 0, row, first, n, width, ROWS, COLS)  # a NaN passes, as in PyTorch
        else:
            _store_bits(slope, z > 0, row, first, n, width, ROWS, COLS)
    if keep is not None:
        _store_bits(keep, (v <= clamp) & (v >= -clamp), row, first, n, width, ROWS, COLS)
    if CLAMP:
        v = tl.where(v > clamp, clamp, v)  # not tl.clamp: NaN stays NaN
        v = tl.where(v < -clamp, -clamp, v)
    tl.store(y + i, narrow(v, y.dtype.element_ty), mask=inside)


# A program runs over `share` tiles of one channel, or of one block of columns: BY_COLUMN.
@triton.jit
def _backward_kernel(
    dy, d_db, saved, b, slope, keep, dx, partial,
    n: tl.int64, rows: tl.int64, width: tl.int64, channels: tl.int64, share: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    ACT: tl.constexpr, CLAMP: tl.constexpr, BY_COLUMN: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain, clamp = tl.full([], alpha, WIDE), tl.full([], gain, WIDE), tl.full([], clamp, WIDE)
    inverse_gain = _divide(tl.full([], 1.0, WIDE), tl.where(gain == 0, float("inf"), gain))
    n, rows, width, share = n.to(tl.int64), rows.to(tl.int64), width.to(tl.int64), share.to(tl.int64)
    channels = channels.to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
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
        v *= gain
        if ACT == RELU:
            v = tl.where(_bit(slope, i, inside), v, 0.0)
        elif ACT == LRELU:
            v = tl.where(_bit(slope, i, inside), v, alpha * v)
        elif ACT == SWISH:
            z = tl.load(saved + i, mask=inside, other=0.0).to(WIDE)
            if b is not None:
                z += bias
            s = _sigmoid(z)
            v *= s * (1.0 + z * (1.0 - s))
            if CLAMP:
                v = tl.where(tl.abs(z * s * gain) <= clamp, v, 0.0)
        elif ACT != LINEAR:
            t = tl.load(saved + i, mask=inside, other=0.0).to(WIDE)
            if CLAMP:
                if b is not None:
                    t += bias
                t = _activate(t, alpha, ACT)
                v = tl.where(tl.abs(t * gain) <= clamp, v, 0.0)
            else:
                t *= inverse_gain
            v *= _slope_from_output(t, ACT)
        if keep is not None:
            v = tl.where(_bit(keep, i, inside), v, 0.0)
        tl.store(dx + i, narrow(v, dx.dtype.element_ty), mask=inside)
        total += tl.where(inside, v, 0.0)
    if partial is not None:  # across the tile in float64: it costs little there, and the sum is as good as its terms
        total = total.to(tl.float64)
        if BY_COLUMN:
            tl.store(partial + slot * width + col, tl.sum(total, 0).to(WIDE), mask=col < width)
        else:
            tl.store(partial + slot * channels + c, tl.sum(total).to(WIDE))


def bias_act(x, b, y, slope, keep, n, inner, channels, dtype, act_code, alpha, gain, clamp):
    if b is None:
        channel, width = "none", n
    elif inner == 1:
        channel, width = "column", _width(n, channels)
    elif inner % 8 == 0:
        channel, width = "row", inner
    else:
        channel, width = "element", n
    rows, cols = _tile(width, channel == "column")
    grid = triton.cdiv(triton.cdiv(n, width), rows) * triton.cdiv(width, cols)
    _forward_kernel[(grid,)](
        x, b, y, slope, keep, n, width, inner, channels, alpha, gain, clamp,
        act_code, clamp >= 0, channel, _wide(dtype), rows, cols,
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
    _backward_kernel[(triton.cdiv(tiles, share) * programs,)](
        dy, d_db, saved, b, slope, keep, dx, partial if slots > 0 else None, n, rows, width, channels, share,
        alpha, gain, clamp, act_code, clamp >= 0, inner == 1, _wide(dtype), tile_rows, tile_cols,
    )  # fmt: skip


def _plan(n, inner, channels):
    """How the gradient is split: the matrix, its tiles, the programs of one slot, and the tiles of one program."""
    width = _width(n, channels) if inner == 1 else inner
    rows = triton.cdiv(n, width) if inner == 1 else n // (inner * channels)
    tile_rows, tile_cols = _tile(width, inner == 1)
    blocks = triton.cdiv(width, tile_cols)
    tiles = triton.cdiv(rows, tile_rows) * (1 if inner == 1 else blocks)
    programs = blocks if inner == 1 else channels
    slots = max(1, min(PROGRAMS // programs, tiles // TILES_PER_PROGRAM))
    return rows, width, tile_rows, tile_cols, programs, triton.cdiv(tiles, slots), tiles


def _width(n, channels):
    """The least multiple of the channels and of 16 that fills the columns of a tile; all of n, if that is less."""
    period = math.lcm(channels, 16)
    return min(period * triton.cdiv(COLUMNS, period), n)


def _tile(width, by_column):
    """(rows, columns) of a tile: few shapes, as each is compiled on its own, none much wider than the matrix."""
    cols = COLUMNS if by_column else next((c for c in (1024, 256, 64) if c <= width), 16)
    return TILE // cols, cols


def _wide(dtype):
    return tl.float64 if dtype == torch.float64 else tl.float32
