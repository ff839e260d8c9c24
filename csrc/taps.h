// Dot products over the taps of a weight, and a weight with a factor for each kernel of taps;
// gan_engine/ops/weight_squares.py is the definition.
//
// Memory is dense, [outer, taps, inner]; inner is 1 where the taps are neighbours.
#pragma once

#include "common.h"

namespace gan_engine {

// dots[o, i] is the sum of x[o, k, i] * y[o, k, i] over the taps k.
struct TapsDotParams {
    const void* x;
    const void* y;
    void* dots;  // float (double for float64) [outer, inner]
    std::int64_t outer, taps, inner;
    DType dtype;

    auto fields() { return std::tie(x, y, dots, outer, taps, inner, dtype); }
};

// out[o, k, i] = factors[o, i] * x[o, k, i]
struct TapsScaleParams {
    const void* x;
    const void* factors;  // float (double for float64) [outer, inner]
    void* out;
    std::int64_t outer, taps, inner;
    DType dtype;

    auto fields() { return std::tie(x, factors, out, outer, taps, inner, dtype); }
};

}  // namespace gan_engine
