"""scale_bias_act in Triton; csrc/scale_bias_act.h says what the kernels read and write.

An image is a matrix, with channels as rows and pixels as columns, or the other way round. The scale, the bias and the
noise are then one number for each row or column of a tile. A program of the backward pass takes a band of rows and runs
over all columns. The sums along rows are therefore complete, and a band is a slot of sums along columns.

Triton compiles a kernel for each dtype, mode and tile shape, not for each value of alpha, gain or clamp.
"""

import triton
import triton.language as tl

from gan_engine.kernels.precision import narrow, wide

# Elements of a tile of the forward pass: 16 for each thread of 4 warps (from register counts, untested on a GPU).
TILE = 2048
# Rows of a band, and elements of its tiles. Sums along columns are 1 / 16 of the elements read. sm_80 runs out of
# registers with 32 rows (untested on a GPU).
BAND, BAND_TILE = 16, 1024


# Eight neighbouring columns are one byte.
@triton.jit
def _store_bits(plane, bits, row, inside, first, line, ROWS: tl.constexpr, COLS: tl.constexpr):
    bits = tl.reshape(bits.to(tl.int32), [ROWS, COLS // 8, 8])
    bytes = tl.sum(bits << tl.arange(0, 8)[None, None, :], 2)
    col = first // 8 + tl.arange(0, COLS // 8)
    tl.store(
        plane + row[:, None] * line + col[None, :], bytes.to(tl.uint8), mask=inside[:, None] & (col < line)[None, :]
    )


@triton.jit
def _bit(plane, row, col, line, inside):
    byte = tl.load(plane + row[:, None] * line + (col // 8)[None, :], mask=inside, other=0).to(tl.int32)
    return ((byte >> (col % 8).to(tl.int32)[None, :]) & 1) != 0


@triton.jit
def _forward_kernel(
    x, scale, b, noise, y, slope, keep,
    rows: tl.int64, cols: tl.int64, line: tl.int64, noise_step: tl.int64,
    alpha: tl.float64, gain: tl.float64, clamp: tl.float64,
    CLAMP: tl.constexpr, CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain, clamp = tl.full([], alpha, WIDE), tl.full([], gain, WIDE), tl.full([], clamp, WIDE)
    rows, cols, line = rows.to(tl.int64), cols.to(tl.int64), line.to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
    across, down = tl.cdiv(cols, COLS), tl.cdiv(rows, ROWS)
    n = program // (across * down)
    r = program // across % down * ROWS + tl.arange(0, ROWS)
    first = program % across * COLS
    col = first + tl.arange(0, COLS)
    row_inside, col_inside = r < rows, col < cols
    row = n * rows + r
    i = row[:, None] * cols + col[None, :]
    inside = row_inside[:, None] & col_inside[None, :]

    z = tl.load(x + i, mask=inside, other=0.0).to(WIDE)
    if CHANNELS_LAST:
        if scale is not None:
            z *= tl.load(scale + n * cols + col, mask=col_inside, other=0.0)[None, :]
        if b is not None:
            z += tl.load(b + col, mask=col_inside, other=0.0)[None, :]
        if noise is not None:
            z += tl.load(noise + n * noise_step + r, mask=row_inside, other=0.0)[:, None]
    else:
        if scale is not None:
            z *= tl.load(scale + row, mask=row_inside, other=0.0)[:, None]
        if b is not None:
            z += tl.load(b + r, mask=row_inside, other=0.0)[:, None]
        if noise is not None:
            z += tl.load(noise + n * noise_step + col, mask=col_inside, other=0.0)[None, :]
    v = tl.where(z > 0, z * gain, z * (gain * alpha))
    if slope is not None:
        _store_bits(slope, z > 0, row, row_inside, first, line, ROWS, COLS)
    if keep is not None:
        _store_bits(keep, (v <= clamp) & (v >= -clamp), row, row_inside, first, line, ROWS, COLS)
    if CLAMP:
        v = tl.where(v > clamp, clamp, v)  # not tl.clamp: NaN stays NaN
        v = tl.where(v < -clamp, -clamp, v)
    tl.store(y + i, narrow(v, y.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    dy, x, scale, slope, keep, dx, d_scale, db, d_noise,
    images: tl.int64, rows: tl.int64, cols: tl.int64, line: tl.int64, alpha: tl.float64, gain: tl.float64,
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain = tl.full([], alpha, WIDE), tl.full([], gain, WIDE)
    images, rows, cols, line = images.to(tl.int64), rows.to(tl.int64), cols.to(tl.int64), line.to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
    slots = tl.cdiv(rows, ROWS)
    n, slot = program // slots, program % slots
    r = slot * ROWS + tl.arange(0, ROWS)
    row_inside = r < rows
    row = n * rows + r
    row_sum = tl.zeros([ROWS], tl.float64)
    row_product = tl.zeros([ROWS], tl.float64)
    for tile in range(0, tl.cdiv(cols, COLS)):
        col = tile * COLS + tl.arange(0, COLS)
        col_inside = col < cols
        i = row[:, None] * cols + col[None, :]
        inside = row_inside[:, None] & col_inside[None, :]
        v = tl.load(dy + i, mask=inside, other=0.0).to(WIDE) * gain
        if slope is not None:
            v = tl.where(_bit(slope, row, col, line, inside), v, v * alpha)
        if keep is not None:
            v = tl.where(_bit(keep, row, col, line, inside), v, 0.0)
        if dx is not None:
            out = v
            if scale is not None:
                if CHANNELS_LAST:
                    out = v * tl.load(scale + n * cols + col, mask=col_inside, other=0.0)[None, :]
                else:
                    out = v * tl.load(scale + row, mask=row_inside, other=0.0)[:, None]
            tl.store(dx + i, narrow(out, dx.dtype.element_ty), mask=inside)
        # Sums across a tile are in float64, which costs little beside the loads and is as exact as the terms.
        v = v.to(tl.float64)
        at = (slot * images + n) * cols + col
        if CHANNELS_LAST:
            if db is not None:
                tl.store(db + at, tl.sum(v, 0).to(WIDE), mask=col_inside)
            if d_noise is not None:
                row_sum += tl.sum(v, 1)
        else:
            if db is not None:
                row_sum += tl.sum(v, 1)
            if d_noise is not None:
                tl.store(d_noise + at, tl.sum(v, 0).to(WIDE), mask=col_inside)
        if d_scale is not None:
            v *= tl.load(x + i, mask=inside, other=0.0).to(WIDE).to(tl.float64)
            if CHANNELS_LAST:
                tl.store(d_scale + at, tl.sum(v, 0).to(WIDE), mask=col_inside)
            else:
                row_product += tl.sum(v, 1)
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
    CHANNELS_LAST: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    alpha, gain = tl.full([], alpha, WIDE), tl.full([], gain, WIDE)
    images, rows, cols, line = images.to(tl.int64), rows.to(tl.int64), cols.to(tl.int64), line.to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
    slots = tl.cdiv(rows, ROWS)
    n, slot = program // slots, program % slots
    r = slot * ROWS + tl.arange(0, ROWS)
    row_inside = r < rows
    row = n * rows + r
    row_product = tl.zeros([ROWS], tl.float64)
    for tile in range(0, tl.cdiv(cols, COLS)):
        col = tile * COLS + tl.arange(0, COLS)
        col_inside = col < cols
        i = row[:, None] * cols + col[None, :]
        inside = row_inside[:, None] & col_inside[None, :]
        m = tl.zeros([ROWS, COLS], WIDE) + gain
        if slope is not None:
            m = tl.where(_bit(slope, row, col, line, inside), m, m * alpha)
        if keep is not None:
            kept = _bit(keep, row, col, line, inside)
        v = tl.zeros([ROWS, COLS], WIDE)
        if v_x is not None:
            v = tl.load(v_x + i, mask=inside, other=0.0).to(WIDE)
        if v_scale is not None:
            if CHANNELS_LAST:
                v_factor = tl.load(v_scale + n * cols + col, mask=col_inside, other=0.0)[None, :]
            else:
                v_factor = tl.load(v_scale + row, mask=row_inside, other=0.0)[:, None]
        if d_dy is not None:
            z = v
            if scale is not None:
                if CHANNELS_LAST:
                    z *= tl.load(scale + n * cols + col, mask=col_inside, other=0.0)[None, :]
                else:
                    z *= tl.load(scale + row, mask=row_inside, other=0.0)[:, None]
            if v_scale is not None:
                z += v_factor * tl.load(x + i, mask=inside, other=0.0).to(WIDE)
            if CHANNELS_LAST:
                if v_b is not None:
                    z += tl.load(v_b + col, mask=col_inside, other=0.0)[None, :]
                if v_noise is not None:
                    z += tl.load(v_noise + n * noise_step + r, mask=row_inside, other=0.0)[:, None]
            else:
                if v_b is not None:
                    z += tl.load(v_b + r, mask=row_inside, other=0.0)[:, None]
                if v_noise is not None:
                    z += tl.load(v_noise + n * noise_step + col, mask=col_inside, other=0.0)[None, :]
            z *= m
            if keep is not None:
                z = tl.where(kept, z, 0.0)
            tl.store(d_dy + i, narrow(z, d_dy.dtype.element_ty), mask=inside)
        if dy is not None:
            dz = tl.load(dy + i, mask=inside, other=0.0).to(WIDE) * m
            if keep is not None:
                dz = tl.where(kept, dz, 0.0)
            if d_x is not None:
                tl.store(d_x + i, narrow(dz * v_factor, d_x.dtype.element_ty), mask=inside)
            if d_scale is not None:
                product = dz.to(tl.float64) * v.to(tl.float64)
                if CHANNELS_LAST:
                    tl.store(d_scale + (slot * images + n) * cols + col, tl.sum(product, 0).to(WIDE), mask=col_inside)
                else:
                    row_product += tl.sum(product, 1)
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
        alpha, gain, clamp, clamp >= 0, channels_last, wide(dtype), tile_rows, tile_cols,
    )  # fmt: skip


def scale_bias_act_grad_slots(n, rows, cols):
    return triton.cdiv(rows, BAND)


def scale_bias_act_grad(
    dy, x, scale, slope, keep, dx, d_scale, db, d_noise, slots, n, rows, cols, dtype, channels_last, alpha, gain
):
    _backward_kernel[(n * slots,)](
        dy, x, scale, slope, keep, dx, d_scale, db, d_noise, n, rows, cols, _mask_bytes(cols), alpha, gain,
        channels_last, wide(dtype), BAND, _columns(cols, BAND_TILE // BAND),
    )  # fmt: skip


def scale_bias_act_second(
    dy, x, scale, v_x, v_scale, v_b, v_noise, slope, keep, d_dy, d_x, d_scale,
    slots, n, rows, cols, noise_n, dtype, channels_last, alpha, gain,
):  # fmt: skip
    pixels = rows if channels_last else cols
    _second_kernel[(n * slots,)](
        dy, x, scale, v_x, v_scale, v_b, v_noise, slope, keep, d_dy, d_x, d_scale, n, rows, cols, _mask_bytes(cols),
        pixels if noise_n > 1 else 0, alpha, gain,
        channels_last, wide(dtype), BAND, _columns(cols, BAND_TILE // BAND),
    )  # fmt: skip


def _columns(cols, most):
    """Columns of a tile. Triton compiles each shape, so there are few; none is much wider than the matrix."""
    return next((c for c in (512, 64) if c <= min(cols, most)), 16)


def _mask_bytes(cols):
    return triton.cdiv(cols, 16) * 2
