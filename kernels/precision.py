"""The types of numbers in computations and in memory."""

import torch
import triton
import triton.language as tl

from gan_engine import backends

INTERPRET = tl.constexpr(backends.INTERPRET)


def wide(dtype: torch.dtype) -> tl.dtype:
    """The type of computations on tensors of a dtype."""
    return tl.float64 if dtype == torch.float64 else tl.float32


# v as dtype, rounded to nearest, on a GPU and under the interpreter alike.
@triton.jit
def narrow(v, dtype: tl.constexpr):
    if INTERPRET and dtype == tl.bfloat16:  # the interpreter truncates where a GPU rounds
        bits = v.to(tl.uint32, bitcast=True)
        v = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).to(tl.float32, bitcast=True)
    return v.to(dtype)
