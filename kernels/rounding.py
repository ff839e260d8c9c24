"""Storing float32 as a narrower number, rounded the same on a GPU and under the interpreter."""

import triton
import triton.language as tl

from gan_engine import backends

INTERPRET = tl.constexpr(backends.INTERPRET)


@triton.jit
def narrow(v, dtype: tl.constexpr):
    if INTERPRET and dtype == tl.bfloat16:  # the interpreter would cut off what a GPU rounds
        bits = v.to(tl.uint32, bitcast=True)
        v = (((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) << 16).to(tl.float32, bitcast=True)
    return v.to(dtype)
