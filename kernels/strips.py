"""upfirdn2d in Triton for separable filters of 4 taps that keep, double or halve the size of an image.

A program makes a strip of y from top to bottom. It reads each row of x once, and keeps the last rows in registers,
filtered along x. A tile is [PIXELS, COLS]: pixels of a row, and the channels of [N, H, W, C] or the planes of
[N, C, H, W].

With UP = 2, outputs come in pairs that read the same two inputs. Pair j holds outputs 2 j - shift and 2 j - shift + 1.
Element q of a pair takes taps 1 - q and 3 - q of its inputs.
"""

import triton
import triton.language as tl

from gan_engine.kernels.precision import narrow, wide

TAPS = 4
# Strips are at most MOST_ROWS rows or pairs of rows long, and shorter where there would be fewer than BUSY programs.
# They are not below LEAST_ROWS: 3 more rows are read above a strip. BUSY is 16 programs of 4 warps on each of 132
# multiprocessors. All are estimates, untested on a GPU.
MOST_ROWS, LEAST_ROWS, BUSY = 32, 8, 132 * 16
# Places in a plane have 32 bits.
LARGEST = 2**29
# Triton compiles a kernel for each dtype, factor, layout and tile shape, and for whole vectors of channels and of rows
# of y. Nothing would be gained by more kernels for other numbers that 16 divides.
ANY_NUMBER = "in_h in_w out_h first_y first_x shift_y shift_x across strips rows flip".split()


@triton.jit
def _within(i, size):
    return i.to(tl.uint32, bitcast=True) < size.to(tl.uint32, bitcast=True)


@triton.jit
def _inputs(x, inside_y, ix, in_w, kept, WIDE: tl.constexpr):
    return tl.load(x, mask=(_within(ix, in_w) & inside_y)[:, None] & kept, other=0.0).to(WIDE)


@triton.jit
def _tap(f, k, flip, WIDE: tl.constexpr):
    return tl.load(f + tl.where(flip != 0, k, 3 - k).to(tl.int64)).to(WIDE)


# A row of x, filtered along x: the columns of a group.
@triton.jit
def _filtered(x, iy, in_h, ix, in_w, step, kept, f0, f1, f2, f3, UP: tl.constexpr, WIDE: tl.constexpr):
    inside = _within(iy, in_h)
    a = _inputs(x, inside, ix, in_w, kept, WIDE)
    b = _inputs(x + step, inside, ix + 1, in_w, kept, WIDE)
    if UP == 2:
        left, right = a * f1 + b * f3, a * f0 + b * f2
    else:
        c = _inputs(x + 2 * step, inside, ix + 2, in_w, kept, WIDE)
        d = _inputs(x + 3 * step, inside, ix + 3, in_w, kept, WIDE)
        left = a * f0 + b * f1 + c * f2 + d * f3
        right = left
    return left, right


@triton.jit(do_not_specialize=ANY_NUMBER)
def _strip_kernel(
    x, f, y,
    in_h: tl.int32, in_w: tl.int32, out_h: tl.int32, out_w: tl.int32, first_y: tl.int32, first_x: tl.int32,
    shift_y: tl.int32, shift_x: tl.int32, channels: tl.int32, across: tl.int32, strips: tl.int32, rows: tl.int32,
    flip: tl.int32, gain: tl.float64,
    UP: tl.constexpr, DOWN: tl.constexpr, LAST: tl.constexpr, WIDE: tl.constexpr,
    PIXELS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    blocks = tl.cdiv(channels, COLS)
    c, program = (program % blocks).to(tl.int64) * COLS, program // blocks
    column, program = (program % across).to(tl.int64) * PIXELS, program // across
    row, image = (program % strips).to(tl.int64) * rows, (program // strips).to(tl.int64)
    iy, ix = row * DOWN + first_y, column * DOWN + first_x
    oy, ox = row * UP - shift_y, column * UP - shift_x
    pixel, col = tl.arange(0, PIXELS), tl.arange(0, COLS)
    kept = (c + col < channels)[None, :]
    if LAST:
        step = channels.to(tl.int64)
        x += ((image * in_h + iy) * in_w + ix) * step + c
        y += ((image * out_h + oy) * out_w + ox) * step + c
        at = (pixel * DOWN)[:, None] * step + col[None, :]
        to = (pixel * UP)[:, None] * step + col[None, :]
    else:
        step = tl.full([], 1, tl.int64)
        in_plane, out_plane = in_h.to(tl.int64) * in_w, out_h.to(tl.int64) * out_w
        x += c * in_plane + iy * in_w + ix
        y += c * out_plane + oy * out_w + ox
        at = (pixel * DOWN)[:, None] + col[None, :] * in_plane
        to = (pixel * UP)[:, None] + col[None, :] * out_plane
    in_line, out_line = in_w * step, out_w * step
    iy, oy = iy.to(tl.int32), oy.to(tl.int32)
    ix, ox = ix.to(tl.int32) + pixel * DOWN, ox.to(tl.int32) + pixel * UP

    f0, f1, f2, f3 = _tap(f, 0, flip, WIDE), _tap(f, 1, flip, WIDE), _tap(f, 2, flip, WIDE), _tap(f, 3, flip, WIDE)
    gain = tl.full([], gain, WIDE)
    g0, g1, g2, g3 = f0 * gain, f1 * gain, f2 * gain, f3 * gain

    # a, b, c and d are rows of x from the top, of which the last is read in each round.
    a, a_right = _filtered(x + at, iy, in_h, ix, in_w, step, kept, f0, f1, f2, f3, UP, WIDE)
    if UP == 1:
        x += in_line
        iy += 1
        b, _ = _filtered(x + at, iy, in_h, ix, in_w, step, kept, f0, f1, f2, f3, UP, WIDE)
        if DOWN == 1:
            x += in_line
            iy += 1
            c, _ = _filtered(x + at, iy, in_h, ix, in_w, step, kept, f0, f1, f2, f3, UP, WIDE)
    left, right = _within(ox, out_w)[:, None] & kept, _within(ox + 1, out_w)[:, None] & kept
    for _ in range(tl.minimum(rows, tl.cdiv(out_h + shift_y, UP) - row.to(tl.int32))):
        x += in_line
        iy += 1
        d, d_right = _filtered(x + at, iy, in_h, ix, in_w, step, kept, f0, f1, f2, f3, UP, WIDE)
        if UP == 2:
            for q in tl.static_range(2):
                upper, lower = (g1, g3) if q == 0 else (g0, g2)
                inside = _within(oy + q, out_h)
                tl.store(y + to, narrow(a * upper + d * lower, y.dtype.element_ty), mask=left & inside)
                v = narrow(a_right * upper + d_right * lower, y.dtype.element_ty)
                tl.store(y + step + to, v, mask=right & inside)
                y += out_line
            a, a_right = d, d_right
            oy += 2
        else:
            if DOWN == 2:
                x += in_line
                iy += 1
                e, _ = _filtered(x + at, iy, in_h, ix, in_w, step, kept, f0, f1, f2, f3, UP, WIDE)
                total = a * g0 + b * g1 + d * g2 + e * g3
                a, b = d, e
            else:
                total = a * g0 + b * g1 + c * g2 + d * g3
                a, b, c = b, c, d
            tl.store(y + to, narrow(total, y.dtype.element_ty), mask=left)
            y += out_line


def upfirdn2d(x, f, y, n, c, h, w, dtype, flip, channels_last, gain):
    across, first_x, shift_x = _groups(w)
    down, first_y, shift_y = _groups(h)
    channels, images = (c, n) if channels_last else (n * c, 1)
    pixels, cols = _tile(dtype.itemsize, across, channels, channels_last)
    across = triton.cdiv(across, pixels)
    programs, rows = images * across * triton.cdiv(channels, cols), MOST_ROWS
    while rows > LEAST_ROWS and programs * triton.cdiv(down, rows) < BUSY:
        rows //= 2
    strips = triton.cdiv(down, rows)
    (in_h, out_h, up, down, *_), (in_w, out_w, *_) = h, w
    _strip_kernel[(programs * strips,)](
        x, f, y, in_h, in_w, out_h, out_w, first_y, first_x, shift_y, shift_x, channels, across, strips, rows,
        int(flip), gain, up, down, channels_last, wide(dtype), pixels, cols,
    )  # fmt: skip


def fits(n, c, h, w, separable, channels_last):
    """Whether strips can do it, with 32 bits for all places in a plane."""
    step = c if channels_last else 1
    (in_h, out_h, up, down, pad_y, taps), (in_w, out_w, *factors, pad_x, taps_x) = h, w
    sizes = in_h * in_w * step, out_h * out_w * step, in_h, in_w, out_h, out_w, abs(pad_y), abs(pad_x), n * c
    return separable and taps == taps_x == TAPS and factors == [up, down] and up * down <= 2 and max(sizes) < LARGEST


def _groups(axis):
    """How many groups of outputs there are along an axis, the first input of the first group, and shift."""
    _, out, up, _, pad, _ = axis
    shift = int(up == 2 and pad % 2 == 0)
    return triton.cdiv(out + shift, up), (1 - pad) // 2 if up == 2 else -pad, shift


def _tile(itemsize, across, channels, channels_last):
    """(PIXELS, COLS) of a tile: 16 bytes for each thread of 4 warps, or 4 numbers of planes, whose loads are narrow

    Triton compiles each shape, so there are few.
    """
    if channels_last:
        cols = 32 if channels >= 32 else 4
        return 128 * 16 // itemsize // cols, cols
    pixels = 128 if across >= 128 else 32
    return pixels, min(512, 128 * 16 // itemsize) // pixels
