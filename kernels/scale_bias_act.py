"""scale_bias_act in Triton; csrc/scale_bias_act.h says what the kernels read and write.

An image is a matrix, with channels as rows and pixels as columns, or the other way round. The scale, the bias and the
noise are then one number for each row or column of a tile. A program of the backward pass takes a band of rows and runs
over all columns. The sums along rows are therefore complete, and a band is a slot of sums along columns.

Triton compiles a kernel for each dtype, mode and tile shape, not for each value of alpha, gain or clamp.
"""

import triton
import triton.language as tl

from gan_engine.kernels.activations import limited, packed
from gan_engine.kernels.precision import divided, index, narrow, wide

# Elements of a tile of the forward pass: 16 for each thread of 4 warps (from register counts, untested on a GPU).
TILE = 2048
# Rows of a band, and elements of its tiles. Sums along columns are 1 / 16 of the elements read. sm_80 runs out of
# registers with 32 rows (untested on a GPU).
BAND, BAND_TILE = 16, 1024


# Eight neighbouring columns are one byte.
@triton.jit
def _store_bits(plane, bits, row, inside, first, line, ROWS: tl.constexpr, COLS: tl.constexpr):
    bytes = packed(bits, ROWS, COLS)
    col = first // 8 + tl.arange(0, COLS // 8)
    tl.store(plane + row[:, None] * line + col[None, :], bytes, mask=inside[:, None] & (col < line)[None, :])


@triton.jit
def _bit(plane, row, col, line, inside):
    byte = tl.load(plane + row[:, None] * line + (col // 8)[None, :], mask=inside, other=0).to(tl.int32)
    return ((byte >> (col % 8).to(tl.int32)[None, :]) & 1) != 0


# The band of a program: its image and slot, and its rows in the image and in memory.
@triton.jit
def _band(program, rows, ROWS: tl.constexpr):
    slots = tl.cdiv(rows, ROWS)
    n, slot = program // slots, program % slots
    r = slot * ROWS + tl.arange(0, ROWS)
    return n, slot, r, n * rows + r


# Columns first, first + 1, ... of these rows: the columns, the places of the tile, and which columns and places exist.
@triton.jit
def _tile(first, cols, row, row_inside, COLS: tl.constexpr):
    col = first + tl.arange(0, COLS)
    col_inside = col < cols
    return col, row[:, None] * cols + col[None, :], col_inside, row_inside[:, None] & col_inside[None, :]


# What belongs to the columns of a tile (BY_COLUMN), or to its rows; that of row or column 0 is at `first`.
@triton.jit
def _spread(t, first, r, row_inside, col, col_inside, BY_COLUMN: tl.constexpr):
    if BY_COLUMN:
        return tl.load(t + (first + col), mask=col_inside, other=0.0)[None, :]
    else:
        return tl.load(t + (first + r), mask=row_inside, other=0.0)[:, None]


@triton.jit
def _forward_kernel(
    x, scale, b, noise, y, slope, keep,
    rows: tl.int64, cols: tl.int64, line: tl.int64, noise_step: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    CLAMP: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain, clamp = tl.full([], alpha, WIDE), tl.full([], gain, WIDE), tl.full([], clamp, WIDE)
    rows, cols, line, noise_step = rows.to(INDEX), cols.to(INDEX), line.to(INDEX), noise_step.to(INDEX)
    program, block = divided(tl.program_id(0), tl.cdiv(cols, COLS), INDEX)
    n, band = divided(program, tl.cdiv(rows, ROWS), INDEX)
    r, first = band * ROWS + tl.arange(0, ROWS), block * COLS
    row, row_inside = n * rows + r, r < rows
    col, i, col_inside, inside = _tile(first, cols, row, row_inside, COLS)

    z = tl.load(x + i, mask=inside, other=0.0).to(WIDE)
    if scale is not None:
        z *= _spread(scale, n * (cols if CHANNELS_LAST else rows), r, row_inside, col, col_inside, CHANNELS_LAST)
    if b is not None:
        z += _spread(b, 0, r, row_inside, col, col_inside, CHANNELS_LAST)
    if noise is not None:
        z += _spread(noise, n * noise_step, r, row_inside, col, col_inside, not CHANNELS_LAST)
    v = z * tl.where(z > 0, gain, gain * alpha)
    if slope is not None:
        _store_bits(slope, z > 0, row, row_inside, first, line, ROWS, COLS)
    if keep is not None:
        _store_bits(keep, tl.abs(v) <= clamp, row, row_inside, first, line, ROWS, COLS)
    if CLAMP:
        v = limited(v, clamp)
    tl.store(y + i, narrow(v, y.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    dy, x, scale, slope, keep, dx, d_scale, db, d_noise,
    images: tl.int64, rows: tl.int64, cols: tl.int64, line: tl.int64, alpha: tl.float64, gain: tl.float64,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain = tl.full([], alpha, WIDE), tl.full([], gain, WIDE)
    images, rows, cols, line = images.to(INDEX), rows.to(INDEX), cols.to(INDEX), line.to(INDEX)
    n, slot, r, row = _band(tl.program_id(0).to(INDEX), rows, ROWS)
    row_inside, of_slot = r < rows, (slot * images + n) * cols
    row_sum = tl.zeros([ROWS], tl.float64)
    row_product = tl.zeros([ROWS], tl.float64)
    for tile in range(0, tl.cdiv(cols, COLS)):
        col, i, col_inside, inside = _tile(tile * COLS, cols, row, row_inside, COLS)
        v = tl.load(dy + i, mask=inside, other=0.0).to(WIDE) * gain
        if slope is not None:
            v = tl.where(_bit(slope, row, col, line, inside), v, v * alpha)
        if keep is not None:
            v = tl.where(_bit(keep, row, col, line, inside), v, 0.0)
        if dx is not None:
            out = v
            if scale is not None:
                of_image = n * (cols if CHANNELS_LAST else rows)
                out = v * _spread(scale, of_image, r, row_inside, col, col_inside, CHANNELS_LAST)
            tl.store(dx + i, narrow(out, dx.dtype.element_ty), mask=inside)
        # Sums across a tile are trees of at most 64 numbers; sums of tiles are in float64.
        at = of_slot + col
        if CHANNELS_LAST:
            if db is not None:
                tl.store(db + at, tl.sum(v, 0), mask=col_inside)
            if d_noise is not None:
                row_sum += tl.sum(v, 1).to(tl.float64)
        else:
            if db is not None:
                row_sum += tl.sum(v, 1).to(tl.float64)
            if d_noise is not None:
                tl.store(d_noise + at, tl.sum(v, 0), mask=col_inside)
        if d_scale is not None:
            v *= tl.load(x + i, mask=inside, other=0.0).to(WIDE)
            if CHANNELS_LAST:
                tl.store(d_scale + at, tl.sum(v, 0), mask=col_inside)
            else:
                row_product += tl.sum(v, 1).to(tl.float64)
    if CHANNELS_LAST:
        if d_noise is not None:
            tl.store(d_noise + row, row_sum.to(WIDE), mask=row_inside)
    else:
        if db is not None:
            tl.store(db + row, row_sum.to(WIDE), mask=row_inside)
        if d_scale is not None:
            tl.store(d_scale + row, row_product.to(WIDE), mask=row_inside)


@triton.jit
def _second_kernel(
    dy, x, scale, v_x, v_scale, v_b, v_noise, slope, keep, d_dy, d_x, d_scale,
    images: tl.int64, rows: tl.int64, cols: tl.int64, line: tl.int64, noise_step: tl.int64,
    alpha: tl.float64, gain: tl.float64,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, INDEX: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain = tl.full([], alpha, WIDE), tl.full([], gain, WIDE)
    images, rows, cols, line = images.to(INDEX), rows.to(INDEX), cols.to(INDEX), line.to(INDEX)
    n, slot, r, row = _band(tl.program_id(0).to(INDEX), rows, ROWS)
    row_inside, of_slot = r < rows, (slot * images + n) * cols
    channels = cols if CHANNELS_LAST else rows
    row_product = tl.zeros([ROWS], tl.float64)
    for tile in range(0, tl.cdiv(cols, COLS)):
        col, i, col_inside, inside = _tile(tile * COLS, cols, row, row_inside, COLS)
        m = tl.zeros([ROWS, COLS], WIDE) + gain
        if slope is not None:
            m = tl.where(_bit(slope, row, col, line, inside), gain, gain * alpha)
        if keep is not None:
            kept = _bit(keep, row, col, line, inside)
        v = tl.zeros([ROWS, COLS], WIDE)
        if v_x is not None:
            v = tl.load(v_x + i, mask=inside, other=0.0).to(WIDE)
        if v_scale is not None:
            v_factor = _spread(v_scale, n * channels, r, row_inside, col, col_inside, CHANNELS_LAST)
        if dy is not None:
            dz = tl.load(dy + i, mask=inside, other=0.0).to(WIDE) * m
            if keep is not None:
                dz = tl.where(kept, dz, 0.0)
            if d_x is not None:
                tl.store(d_x + i, narrow(dz * v_factor, d_x.dtype.element_ty), mask=inside)
            if d_scale is not None:
                product = dz * v
                if CHANNELS_LAST:
                    tl.store(d_scale + (of_slot + col), tl.sum(product, 0), mask=col_inside)
                else:
                    row_product += tl.sum(product, 1).to(tl.float64)
        if d_dy is not None:
            z = v
            if scale is not None:
                z *= _spread(scale, n * channels, r, row_inside, col, col_inside, CHANNELS_LAST)
            if v_scale is not None:
                z += v_factor * tl.load(x + i, mask=inside, other=0.0).to(WIDE)
            if v_b is not None:
                z += _spread(v_b, 0, r, row_inside, col, col_inside, CHANNELS_LAST)
            if v_noise is not None:
                of_image = n * noise_step.to(INDEX)
                z += _spread(v_noise, of_image, r, row_inside, col, col_inside, not CHANNELS_LAST)
            z *= m
            if keep is not None:
                z = tl.where(kept, z, 0.0)
            tl.store(d_dy + i, narrow(z, d_dy.dtype.element_ty), mask=inside)
    if d_scale is not None:
        if not CHANNELS_LAST:
            tl.store(d_scale + row, row_product.to(WIDE), mask=row_inside)


def scale_bias_act(
    x, scale, b, noise, y, slope, keep, n, rows, cols, noise_n, dtype, channels_last, alpha, gain, clamp
):
    tile_cols = _columns(cols, TILE)
    tile_rows = TILE // tile_cols
    pixels = rows if channels_last else cols
    grid = n * triton.cdiv(rows, tile_rows) * triton.cdiv(cols, tile_cols)
    _forward_kernel[(grid,)](
        x, scale, b, noise, y, slope, keep, rows, cols, _mask_bytes(cols), pixels if noise_n > 1 else 0,
        alpha, gain, clamp, clamp >= 0, channels_last, wide(dtype), _index(n, rows, cols, tile_rows, tile_cols),
        tile_rows, tile_cols,
    )  # fmt: skip


def scale_bias_act_grad_slots(n, rows, cols):
    return triton.cdiv(rows, BAND)


def scale_bias_act_grad(
    dy, x, scale, slope, keep, dx, d_scale, db, d_noise, slots, n, rows, cols, dtype, channels_last, alpha, gain
):
    tile_cols = _columns(cols, BAND_TILE // BAND)
    _backward_kernel[(n * slots,)](
        dy, x, scale, slope, keep, dx, d_scale, db, d_noise, n, rows, cols, _mask_bytes(cols), alpha, gain,
        channels_last, wide(dtype), _index(n, rows, cols, BAND, tile_cols), BAND, tile_cols,
    )  # fmt: skip


def scale_bias_act_second(
    dy, x, scale, v_x, v_scale, v_b, v_noise, slope, keep, d_dy, d_x, d_scale,
    slots, n, rows, cols, noise_n, dtype, channels_last, alpha, gain,
):  # fmt: skip
    pixels, tile_cols = rows if channels_last else cols, _columns(cols, BAND_TILE // BAND)
    _second_kernel[(n * slots,)](
        dy, x, scale, v_x, v_scale, v_b, v_noise, slope, keep, d_dy, d_x, d_scale, n, rows, cols, _mask_bytes(cols),
        pixels if noise_n > 1 else 0, alpha, gain,
        channels_last, wide(dtype), _index(n, rows, cols, BAND, tile_cols), BAND, tile_cols,
    )  # fmt: skip


def _columns(cols, most):
    """Columns of a tile. Triton compiles each shape, so there are few; none is much wider than the matrix."""
    return next((c for c in (512, 64) if c <= min(cols, most)), 16)


def _index(n, rows, cols, tile_rows, tile_cols):
    """The type of places in x, and in a plane of its mask bits, which is larger for few columns."""
    return index(n * rows + tile_rows, max(cols, _mask_bytes(cols)), 1, tile_cols)


def _mask_bytes(cols):
    return triton.cdiv(cols, 16) * 2
