// Per-sample dot products and weighted sums; gan_engine/ops/gradient_penalty.py is the definition.
//
// Each of `samples` samples is `size` elements in a row.
#pragma once

#include "common.h"

namespace gan_engine {

// partial[s, k] = the k-th share of the sum of x[s, i] * y[s, i] over i.
struct SampleDotParams {
    const void* x;
    const void* y;
    void* partial;  // float (double for float64) [samples, slots]
    std::int64_t samples, size, slots;
    DType dtype;
};

// out[s, i] = a[s] * x[s, i] + b[s] * y[s, i]
struct SampleMixParams {
    const void* x;
    const void* y;  // null: a[s] * x[s, i] alone
    const void* a;  // float (double for float64) [samples]
    const void* b;  // as a; null where y is
    void* out;
    std::int64_t samples, size;
    DType dtype;
};

}  // namespace gan_engine
