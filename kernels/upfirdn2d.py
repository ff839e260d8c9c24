"""upfirdn2d in Triton for filters that strips.py leaves; csrc/upfirdn2d.h says which inputs and taps an output takes.

A program makes a tile of y directly from memory. Neighbouring outputs share most of their inputs, and the first-level
cache makes that one read of x. No program reads an inserted zero: an output takes each up-th tap.
Triton compiles a kernel for each dtype, up and down factor, filter size and tile shape, not for each image size.
"""

import triton
import triton.language as tl

from gan_engine.kernels import strips
from gan_engine.kernels.precision import narrow, wide


# The first tap of outputs o that does not meet an inserted zero, and its element of x.
@triton.jit
def _first(o, pad, UP: tl.constexpr, DOWN: tl.constexpr):
    at = o * DOWN - pad
    k = ((-at) % UP + UP) % UP
    return k, (at + k) // UP


# The weights of taps k >= 0 of a correlation; 0 past the last tap.
@triton.jit
def _weight(f, k, TAPS: tl.constexpr, FLIP: tl.constexpr, WIDE: tl.constexpr):
    at = k if FLIP else TAPS - 1 - k
    return tl.load(f + at, mask=k < TAPS, other=0.0).to(WIDE)


# [ROWS, COLS] pixels of one plane of [N, C, H, W].
@triton.jit
def _planar_kernel(
    x, f, y,
    in_h: tl.int64, in_w: tl.int64, out_h: tl.int64, out_w: tl.int64, pad_y: tl.int64, pad_x: tl.int64,
    gain: tl.float64,
    UP_Y: tl.constexpr, UP_X: tl.constexpr, DOWN_Y: tl.constexpr, DOWN_X: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, SEPARABLE: tl.constexpr, FLIP: tl.constexpr, WIDE: tl.constexpr,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    in_h, in_w, out_h, out_w = in_h.to(tl.int64), in_w.to(tl.int64), out_h.to(tl.int64), out_w.to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
    across, along = tl.cdiv(out_w, COLS), tl.cdiv(out_h, ROWS)
    plane = program // (across * along)
    oy = program // across % along * ROWS + tl.arange(0, ROWS)
    ox = program % across * COLS + tl.arange(0, COLS)
    x += plane * in_h * in_w
    ky, iy = _first(oy, pad_y.to(tl.int64), UP_Y, DOWN_Y)
    first_kx, first_ix = _first(ox, pad_x.to(tl.int64), UP_X, DOWN_X)

    total = tl.zeros([ROWS, COLS], WIDE)
    for _ in range((TAPS_Y + UP_Y - 1) // UP_Y):
        inside_y = (ky < TAPS_Y) & (iy >= 0) & (iy < in_h)
        part = tl.zeros([ROWS, COLS], WIDE)
        for t in tl.static_range((TAPS_X + UP_X - 1) // UP_X):
            kx, ix = first_kx + t * UP_X, first_ix + t
            inside = inside_y[:, None] & ((kx < TAPS_X) & (ix >= 0) & (ix < in_w))[None, :]
            v = tl.load(x + iy[:, None] * in_w + ix[None, :], mask=inside, other=0.0).to(WIDE)
            if SEPARABLE:
                part += v * _weight(f, kx, TAPS_X, FLIP, WIDE)[None, :]
            else:
                k = tl.where(inside, ky[:, None] * TAPS_X + kx[None, :], TAPS_Y * TAPS_X)
                part += v * _weight(f, k, TAPS_Y * TAPS_X, FLIP, WIDE)
        if SEPARABLE:
            part *= _weight(f, ky, TAPS_Y, FLIP, WIDE)[:, None]
        total += part
        ky += UP_Y
        iy += 1
    total *= tl.full([], gain, WIDE)
    kept = (oy < out_h)[:, None] & (ox < out_w)[None, :]
    at = plane * out_h * out_w + oy[:, None] * out_w + ox[None, :]
    tl.store(y + at, narrow(total, y.dtype.element_ty), mask=kept)


# BLOCK by BLOCK pixels, COLS channels, of [N, H, W, C].
@triton.jit
def _channels_last_kernel(
    x, f, y,
    in_h: tl.int64, in_w: tl.int64, out_h: tl.int64, out_w: tl.int64, pad_y: tl.int64, pad_x: tl.int64,
    channels: tl.int64, gain: tl.float64,
    UP_Y: tl.constexpr, UP_X: tl.constexpr, DOWN_Y: tl.constexpr, DOWN_X: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, SEPARABLE: tl.constexpr, FLIP: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    in_h, in_w, out_h, out_w = in_h.to(tl.int64), in_w.to(tl.int64), out_h.to(tl.int64), out_w.to(tl.int64)
    channels = channels.to(tl.int64)
    program = tl.program_id(0).to(tl.int64)
    blocks, across, along = tl.cdiv(channels, COLS), tl.cdiv(out_w, BLOCK), tl.cdiv(out_h, BLOCK)
    c = program % blocks * COLS + tl.arange(0, COLS)
    tile = program // blocks
    pixel = tl.arange(0, BLOCK * BLOCK)
    oy = tile // across % along * BLOCK + pixel // BLOCK
    ox = tile % across * BLOCK + pixel % BLOCK
    image = tile // (across * along)
    x += image * in_h * in_w * channels
    ky, iy = _first(oy, pad_y.to(tl.int64), UP_Y, DOWN_Y)
    first_kx, first_ix = _first(ox, pad_x.to(tl.int64), UP_X, DOWN_X)

    total = tl.zeros([BLOCK * BLOCK, COLS], WIDE)
    for _ in range((TAPS_Y + UP_Y - 1) // UP_Y):
        inside_y = (ky < TAPS_Y) & (iy >= 0) & (iy < in_h)
        part = tl.zeros([BLOCK * BLOCK, COLS], WIDE)
        for t in tl.static_range((TAPS_X + UP_X - 1) // UP_X):
            kx, ix = first_kx + t * UP_X, first_ix + t
            inside_x = inside_y & (kx < TAPS_X) & (ix >= 0) & (ix < in_w)
            inside = inside_x[:, None] & (c < channels)[None, :]
            v = tl.load(x + ((iy * in_w + ix) * channels)[:, None] + c[None, :], mask=inside, other=0.0).to(WIDE)
            if SEPARABLE:
                part += v * _weight(f, kx, TAPS_X, FLIP, WIDE)[:, None]
            else:
                k = tl.where(inside_x, ky * TAPS_X + kx, TAPS_Y * TAPS_X)
                part += v * _weight(f, k, TAPS_Y * TAPS_X, FLIP, WIDE)[:, None]
        if SEPARABLE:
            part *= _weight(f, ky, TAPS_Y, FLIP, WIDE)[:, None]
        total += part
        ky += UP_Y
        iy += 1
    total *= tl.full([], gain, WIDE)
    kept = ((oy < out_h) & (ox < out_w))[:, None] & (c < channels)[None, :]
    at = (((image * out_h + oy) * out_w + ox) * channels)[:, None] + c[None, :]
    tl.store(y + at, narrow(total, y.dtype.element_ty), mask=kept)


def upfirdn2d(x, f, y, n, c, h, w, dtype, separable, flip, channels_last, gain):
    if strips.fits(n, c, h, w, separable, channels_last):
        return strips.upfirdn2d(x, f, y, n, c, h, w, dtype, flip, channels_last, gain)
    in_h, out_h, up_y, down_y, pad_y, taps_y = h
    in_w, out_w, up_x, down_x, pad_x, taps_x = w
    sizes = in_h, in_w, out_h, out_w, pad_y, pad_x
    constants = up_y, up_x, down_y, down_x, taps_y, taps_x, separable, flip, wide(dtype)
    # Tiles of 1024 elements, 8 for each thread of 4 warps (an estimate, untested on a GPU).
    if channels_last:
        block, cols = (4, 64) if c > 16 else (8, 16)
        # A loop of more than 12 taps is unrolled too: with all elements it does not fit into 255 registers.
        if -(-taps_x // up_x) > 12:
            block, cols = 4, 16
        grid = n * triton.cdiv(out_h, block) * triton.cdiv(out_w, block) * triton.cdiv(c, cols)
        _channels_last_kernel[(grid,)](x, f, y, *sizes, c, gain, *constants, block, cols)
    else:
        rows, cols = (16, 64) if out_w > 32 else (32, 32)
        grid = n * c * triton.cdiv(out_h, rows) * triton.cdiv(out_w, cols)
        _planar_kernel[(grid,)](x, f, y, *sizes, gain, *constants, rows, cols)
