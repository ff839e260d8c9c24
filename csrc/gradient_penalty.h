// Dot products and weighted sums of each sample; gan_engine/ops/gradient_penalty.py is the definition.
//
// A sample is `size` neighbouring elements, and there are `samples` of them.
#pragma once

#include "common.h"

namespace gan_engine {

// partial[s, k] is the k-th share of the sum of x[s, i] * y[s, i] over i.
struct SampleDotParams {
    const void* x;
    const void* y;
    void* partial;  // float (double for float64) [samples, slots]
    std::int64_t samples, size, slots;
    DType dtype;

    auto fields() { return std::tie(x, y, partial, samples, size, slots, dtype); }
};

// out[s, i] = a[s] * x[s, i] + b[s] * y[s, i]
struct SampleMixParams {
    const void* x;
    const void* y;  // null: out[s, i] = a[s] * x[s, i]
    const void* a;  // float (double for float64) [samples]
    const void* b;  // as a; null where y is null
    void* out;
    std::int64_t samples, size;
    DType dtype;

    auto fields() { return std::tie(x, y, a, b, out, samples, size, dtype); }
};

}  // namespace gan_engine
