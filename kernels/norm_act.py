"""norm_act in Triton; csrc/norm_act.h says what the kernels read and write.

A program has a tile of one matrix. If the channels are the innermost dimension, its rows are the pixels of a sample, or
of all samples, and its columns are channels. Otherwise the tile belongs to one channel, and its rows are the samples.
Sums over a channel are made of partial sums, one for each tile: a slot. A second kernel adds them in float64.

The mean of a tile is found before its squares are summed, as deviations from this mean. A first pixel far from the
others, or a large mean, then costs no precision.

Triton compiles a kernel for each dtype, layout and tile shape, not for each value of slope and eps.
"""

import torch
import triton
import triton.language as tl

from gan_engine.kernels.activations import divide, inverse_root
from gan_engine.kernels.precision import INTERPRET, divided, index, narrow, wide

# Elements of a tile whose sums are wanted: 32 for each thread of 4 warps, so that sums across threads cost little.
# Other tiles have 16 for each thread (from instruction counts, untested on a GPU).
SUM_TILE, TILE = 4096, 2048
# A tile of partial sums: slots, and channels.
SLOTS, CHANNELS = tl.constexpr(256), tl.constexpr(8)
# Deviations are scaled so that their squares do not overflow in float32, and those around 1e-9 do not vanish.
SMALL, LARGE = tl.constexpr(2.0**-16), tl.constexpr(2.0**32)


# The tile of a program: its slot, its channels of all samples and of the weights and which of them exist, its places
# and which of them exist, and how many these are.
@triton.jit
def _tile(
    outer, channels, inner, features,
    BY_COLUMN: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    outer, channels, inner, features = outer.to(INDEX), channels.to(INDEX), inner.to(INDEX), features.to(INDEX)
    if BY_COLUMN:
        above, block = divided(tl.program_id(0), tl.cdiv(channels, COLS), INDEX)
        sample, slot = divided(above, tl.cdiv(outer, ROWS), INDEX)
        row, feature = slot * ROWS + tl.arange(0, ROWS), block * COLS + tl.arange(0, COLS)
        known = feature < channels
        i = (sample * outer + row)[:, None] * channels + feature[None, :]
        inside = (row < outer)[:, None] & known[None, :]
        c = sample * channels + feature
        count = tl.minimum(outer - slot * ROWS, ROWS)
    else:
        slot, c = divided(tl.program_id(0), channels, INDEX)
        above, block = divided(slot, tl.cdiv(inner, COLS), INDEX)
        row, col = above * ROWS + tl.arange(0, ROWS), block * COLS + tl.arange(0, COLS)
        i = (row * channels + c)[:, None] * inner + col[None, :]
        inside = (row < outer)[:, None] & (col < inner)[None, :]
        known, feature = c >= 0, c % features
        count = tl.minimum(outer - above * ROWS, ROWS) * tl.minimum(inner - block * COLS, COLS)
    return slot, c, feature, known, i, inside, count


# A number of each channel of a tile, beside the tile.
@triton.jit
def _beside(v, BY_COLUMN: tl.constexpr):
    if BY_COLUMN:
        v = v[None, :]
    return v


@triton.jit
def _load(p, at, known, BY_COLUMN: tl.constexpr):
    if BY_COLUMN:
        return tl.load(p + at, mask=known, other=0.0)
    else:
        return tl.load(p + at)


@triton.jit
def _store(p, at, v, known, BY_COLUMN: tl.constexpr):
    if BY_COLUMN:
        tl.store(p + at, v, mask=known)
    else:
        tl.store(p + at, v)


# A tree on a GPU. The interpreter adds one row after the other, which would lose digits in float32.
@triton.jit
def _sum(v, BY_COLUMN: tl.constexpr):
    if BY_COLUMN:
        if INTERPRET:
            return tl.sum(v.to(tl.float64), 0).to(v.dtype)
        return tl.sum(v, 0)
    else:
        return tl.sum(v)


# The mean of a tile in float64, and the sum of its squared deviations, scaled.
@triton.jit
def _stats_kernel(
    x, mean, squares, all_channels: tl.int64, outer: tl.int64, channels: tl.int64, inner: tl.int64,
    BY_COLUMN: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    slot, c, _, known, i, inside, count = _tile(outer, channels, inner, channels, BY_COLUMN, INDEX, ROWS, COLS)
    v = tl.load(x + i, mask=inside, other=0.0).to(WIDE)
    share = divide(tl.full([], 1.0, WIDE), count.to(WIDE))
    about = _sum(v, BY_COLUMN) * share
    v = tl.where(inside, (v - _beside(about, BY_COLUMN)) * SMALL, 0.0)
    off = _sum(v, BY_COLUMN) * share
    total = _sum(v * v, BY_COLUMN) - off * off * count.to(WIDE)
    at = slot.to(tl.int64) * all_channels + c
    _store(mean, at, about.to(tl.float64) + off.to(tl.float64) * (1 / SMALL), known, BY_COLUMN)
    _store(squares, at, tl.where(total < 0, 0.0, total), known, BY_COLUMN)


# The elements of some slots, in float64.
@triton.jit
def _counts(slot, outer, inner, rows, cols):
    blocks = tl.cdiv(inner, cols)
    down, across = tl.minimum(outer - slot // blocks * rows, rows), tl.minimum(inner - slot % blocks * cols, cols)
    return (down * across).to(tl.float64)[:, None]


# Mean and variance of each channel from those of its tiles of [rows, cols].
@triton.jit
def _merge_kernel(
    means, squares, mean, var, all_channels: tl.int64, slots: tl.int64, outer: tl.int64, inner: tl.int64,
    rows: tl.int64, cols: tl.int64, WIDE: tl.constexpr,
):  # fmt: skip
    c = tl.program_id(0).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    known, elements = c < all_channels, (outer.to(tl.int64) * inner).to(tl.float64)
    total = tl.zeros([SLOTS, CHANNELS], tl.float64)
    for first in range(0, slots, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        at, inside = slot[:, None] * all_channels + c[None, :], (slot < slots)[:, None] & known[None, :]
        total += tl.load(means + at, mask=inside, other=0.0) * _counts(slot, outer, inner, rows, cols)
    middle = tl.sum(total, 0) / elements
    total = tl.zeros([SLOTS, CHANNELS], tl.float64)
    for first in range(0, slots, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        at, inside = slot[:, None] * all_channels + c[None, :], (slot < slots)[:, None] & known[None, :]
        off = tl.load(means + at, mask=inside, other=0.0) - middle[None, :]
        total += tl.where(inside, off * off * _counts(slot, outer, inner, rows, cols), 0.0)
        total += tl.load(squares + at, mask=inside, other=0.0).to(tl.float64) * LARGE
    tl.store(mean + c, middle.to(WIDE), mask=known)
    tl.store(var + c, (tl.sum(total, 0) / elements).to(WIDE), mask=known)


# (x - mean) times this is the argument of the activation, less b.
@triton.jit
def _factors(mean, var, w, b, c, feature, known, eps, WIDE: tl.constexpr, BY_COLUMN: tl.constexpr):
    root = inverse_root(_load(var, c, known, BY_COLUMN) + tl.full([], eps, WIDE))
    factor = root * _load(w, feature, known, BY_COLUMN)
    return _load(mean, c, known, BY_COLUMN), root, factor, _load(b, feature, known, BY_COLUMN)


@triton.jit
def _forward_kernel(
    x, mean, var, w, b, y, outer: tl.int64, channels: tl.int64, inner: tl.int64, features: tl.int64,
    slope: tl.float64, eps: tl.float64,
    BY_COLUMN: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    _, c, feature, known, i, inside, _ = _tile(outer, channels, inner, features, BY_COLUMN, INDEX, ROWS, COLS)
    mean, _, factor, b = _factors(mean, var, w, b, c, feature, known, eps, WIDE, BY_COLUMN)
    z = tl.load(x + i, mask=inside, other=0.0).to(WIDE) - _beside(mean, BY_COLUMN)
    z = z * _beside(factor, BY_COLUMN) + _beside(b, BY_COLUMN)
    z = tl.where(z > 0, z, z * tl.full([], slope, WIDE))
    tl.store(y + i, narrow(z, y.dtype.element_ty), mask=inside)


# dz = m dy, and x - mean
@triton.jit
def _dz(dy, x, i, inside, mean, factor, b, slope, WIDE: tl.constexpr, BY_COLUMN: tl.constexpr):
    v = tl.load(x + i, mask=inside, other=0.0).to(WIDE) - _beside(mean, BY_COLUMN)
    z = v * _beside(factor, BY_COLUMN) + _beside(b, BY_COLUMN)
    dz = tl.load(dy + i, mask=inside, other=0.0).to(WIDE)
    return tl.where(z > 0, dz, dz * tl.full([], slope, WIDE)), v


# The sums of dz (x - mean) r, and of dz, over a tile.
@triton.jit
def _sums_kernel(
    dy, x, mean, var, w, b, sums, all_channels: tl.int64, slots: tl.int64,
    outer: tl.int64, channels: tl.int64, inner: tl.int64, features: tl.int64, slope: tl.float64, eps: tl.float64,
    BY_COLUMN: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    slot, c, feature, known, i, inside, _ = _tile(outer, channels, inner, features, BY_COLUMN, INDEX, ROWS, COLS)
    mean, root, factor, b = _factors(mean, var, w, b, c, feature, known, eps, WIDE, BY_COLUMN)
    dz, v = _dz(dy, x, i, inside, mean, factor, b, slope, WIDE, BY_COLUMN)
    at = slot.to(tl.int64) * all_channels + c
    _store(sums, at, _sum(dz * v, BY_COLUMN) * root, known, BY_COLUMN)
    _store(sums, slots * all_channels + at, _sum(dz, BY_COLUMN), known, BY_COLUMN)


@triton.jit
def _add_kernel(sums, dw, db, all_channels: tl.int64, slots: tl.int64, WIDE: tl.constexpr):
    c = tl.program_id(0).to(tl.int64) * CHANNELS + tl.arange(0, CHANNELS)
    known = c < all_channels
    of_w, of_b = tl.zeros([SLOTS, CHANNELS], tl.float64), tl.zeros([SLOTS, CHANNELS], tl.float64)
    for first in range(0, slots, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        inside = (slot < slots)[:, None] & known[None, :]
        at = slot[:, None] * all_channels + c[None, :]
        of_w += tl.load(sums + at, mask=inside, other=0.0).to(tl.float64)
        of_b += tl.load(sums + (slots * all_channels + at), mask=inside, other=0.0).to(tl.float64)
    tl.store(dw + c, tl.sum(of_w, 0).to(WIDE), mask=known)
    tl.store(db + c, tl.sum(of_b, 0).to(WIDE), mask=known)


@triton.jit
def _backward_kernel(
    dy, x, mean, var, w, b, dw, db, dx,
    outer: tl.int64, channels: tl.int64, inner: tl.int64, features: tl.int64, slope: tl.float64, eps: tl.float64,
    CONSTANT: tl.constexpr, BY_COLUMN: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    _, c, feature, known, i, inside, _ = _tile(outer, channels, inner, features, BY_COLUMN, INDEX, ROWS, COLS)
    mean, root, factor, b = _factors(mean, var, w, b, c, feature, known, eps, WIDE, BY_COLUMN)
    dz, v = _dz(dy, x, i, inside, mean, factor, b, slope, WIDE, BY_COLUMN)
    if not CONSTANT:
        share = divide(tl.full([], 1.0, WIDE), (outer.to(tl.int64) * inner).to(WIDE))
        dz -= _beside(_load(db, c, known, BY_COLUMN) * share, BY_COLUMN)
        dz -= v * _beside(_load(dw, c, known, BY_COLUMN) * share * root, BY_COLUMN)
    tl.store(dx + i, narrow(dz * _beside(factor, BY_COLUMN), dx.dtype.element_ty), mask=inside)


class _Plan:
    """How a tensor is split into tiles of about `elements`: Triton compiles each shape, so there are few."""

    def __init__(self, shape, dtype, elements):
        if dtype == torch.float64:
            elements = 1024  # with more, kernels for sm_90 need stack
        samples, outer, channels, inner, _ = shape
        self.by_column, self.all_channels = inner == 1, samples * channels
        cols = 1024 if inner >= 1024 else 64
        rows = 1 if outer == 1 and not self.by_column else elements // cols
        self.tile, self.slots = (rows, cols), triton.cdiv(outer, rows) * triton.cdiv(inner, cols)
        self.programs = self.slots * samples * (triton.cdiv(channels, cols) if self.by_column else channels)
        if self.by_column:
            self.index = index(samples * outer + rows, channels, 1, cols)
        else:
            self.index = index(outer, channels * inner, rows, cols)

    def constants(self, dtype):
        return self.by_column, wide(dtype), self.index, *self.tile


def _sums_grid(all_channels):
    return (triton.cdiv(all_channels, CHANNELS.value),)


def norm_stats(x, mean, var, shape, dtype):
    _, outer, channels, inner, _ = shape
    plan = _Plan(shape, dtype, SUM_TILE)
    means = mean.new_empty((plan.slots, plan.all_channels), dtype=torch.float64)
    squares = mean.new_empty(means.shape)
    _stats_kernel[(plan.programs,)](
        x, means, squares, plan.all_channels, outer, channels, inner, *plan.constants(dtype)
    )
    _merge_kernel[_sums_grid(plan.all_channels)](
        means, squares, mean, var, plan.all_channels, plan.slots, outer, inner, *plan.tile, wide(dtype)
    )


def norm_act(x, mean, var, w, b, y, shape, dtype, slope, eps):
    plan = _Plan(shape, dtype, TILE)
    _forward_kernel[(plan.programs,)](x, mean, var, w, b, y, *shape[1:], slope, eps, *plan.constants(dtype))


def norm_act_grad(dy, x, mean, var, w, b, dx, dw, db, shape, dtype, slope, eps, constant_stats):
    plan, given = _Plan(shape, dtype, SUM_TILE), (dy, x, mean, var, w, b)
    sums = dw.new_empty((2, plan.slots, plan.all_channels))
    _sums_kernel[(plan.programs,)](
        *given, sums, plan.all_channels, plan.slots, *shape[1:], slope, eps, *plan.constants(dtype)
    )
    _add_kernel[_sums_grid(plan.all_channels)](sums, dw, db, plan.all_channels, plan.slots, wide(dtype))
    plan = _Plan(shape, dtype, TILE)
    _backward_kernel[(plan.programs,)](
        *given, dw, db, dx, *shape[1:], slope, eps, constant_stats, *plan.constants(dtype)
    )
