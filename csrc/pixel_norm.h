// y = x / sqrt(mean of x^2 over the channels + eps); gan_engine/ops/pixel_norm.py is the definition.
//
// Memory is dense, [outer, channels, inner]; inner is 1 where the channels are neighbours.
#pragma once

#include "common.h"

namespace gan_engine {

// With r = (mean of x^2 + eps)^(-1/2): y = r x where dy is null, else y = r dy - r^3 x mean of x dy. Both means are
// over the channels.
struct PixelNormParams {
    const void* x;
    const void* dy;
    void* y;
    std::int64_t outer, channels, inner;
    DType dtype;
    double eps;

    auto fields() { return std::tie(x, dy, y, outer, channels, inner, dtype, eps); }
};

}  // namespace gan_engine
