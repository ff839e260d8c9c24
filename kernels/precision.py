"""The types of numbers in computations, in memory and of places in memory."""

import torch
import triton
import triton.language as tl

from gan_engine import backends

INTERPRET = tl.constexpr(backends.INTERPRET)


def wide(dtype: torch.dtype) -> tl.dtype:
    """The type of computations on tensors of a dtype."""
    return tl.float64 if dtype == torch.float64 else tl.float32


# The largest place in memory that a kernel may compute in 32 bits.
MOST_OF_32_BITS = 2**31 - 1


def index(rows: int, width: int, tile_rows: int, tile_cols: int) -> tl.dtype:
    """The type of places in a matrix whose rows are `width` apart, for tiles that may end beyond it.

    32 bits save a third of the instructions of bias_act (as counted for sm_90).
    """
    end = triton.cdiv(rows, tile_rows) * tile_rows * width + tile_cols
    return tl.int32 if end <= MOST_OF_32_BITS else tl.int64


# Quotient and remainder of two numbers from 0 on that have 32 bits, such as of programs; signed division takes longer.
@triton.jit
def divided(a, b, INDEX: tl.constexpr):
    a, b = a.to(tl.uint32), b.to(tl.uint32)
    return (a // b).to(INDEX), (a % b).to(INDEX)


# v as dtype, rounded to nearest, on a GPU and under the interpreter alike.
@triton.jit
def narrow(v, dtype: tl.constexpr):
    if INTERPRET and dtype == tl.bfloat16:  # the interpreter truncates where a GPU rounds
        bits = v.to(tl.uint32, bitcast=True)
        v = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).to(tl.float32, bitcast=True)
    return v.to(dtype)
