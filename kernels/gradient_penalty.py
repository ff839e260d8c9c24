"""Dot products and weighted sums of each sample; gan_engine/ops/gradient_penalty.py is the definition."""

import triton
import triton.language as tl

from gan_engine.kernels.precision import narrow, wide

# A batch of dot products is split into at most PROGRAMS programs, 8 for each of 128 multiprocessors. A program has at
# least LEAST elements. Both are estimates, untested on a GPU.
PROGRAMS, LEAST = 1024, 8192
# 8 elements for each thread of 4 warps. A kernel for sm_80 needs stack with 16 (as compiled; untested on a GPU).
BLOCK = 1024


@triton.jit
def _dot_kernel(x, y, partial, size, slots, per_slot, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    job = tl.program_id(0)
    begin = (job % slots).to(tl.int64) * per_slot
    end = tl.minimum(begin + per_slot, size)
    first = (job // slots).to(tl.int64) * size
    total = tl.zeros([BLOCK], WIDE)
    for start in range(begin, end, BLOCK):
        i = start + tl.arange(0, BLOCK)
        a = tl.load(x + first + i, mask=i < end, other=0.0).to(WIDE)
        b = tl.load(y + first + i, mask=i < end, other=0.0).to(WIDE)
        total += a * b
    tl.store(partial + job.to(tl.int64), tl.sum(total.to(tl.float64), 0))


@triton.jit
def _mix_kernel(x, y, a, b, out, size, blocks, TWO: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    job = tl.program_id(0)
    sample = (job // blocks).to(tl.int64)
    i = (job % blocks).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = sample * size + i
    v = tl.load(a + sample) * tl.load(x + at, mask=i < size).to(WIDE)
    if TWO:
        v += tl.load(b + sample) * tl.load(y + at, mask=i < size).to(WIDE)
    tl.store(out + at, narrow(v, out.dtype.element_ty), mask=i < size)


def sample_dot_slots(samples: int, size: int) -> int:
    return max(1, min(PROGRAMS // samples, size // LEAST))


def sample_dot(x, y, partial, samples, size, slots, dtype):
    grid = (samples * slots,)
    _dot_kernel[grid](x, y, partial, size, slots, -(-size // slots), WIDE=wide(dtype), BLOCK=BLOCK)


def sample_mix(x, y, a, b, out, samples, size, dtype):
    blocks = -(-size // BLOCK)
    two = y is not None
    _mix_kernel[(samples * blocks,)](
        x, y if two else x, a, b if two else a, out, size, blocks, TWO=two, WIDE=wide(dtype), BLOCK=BLOCK
    )
