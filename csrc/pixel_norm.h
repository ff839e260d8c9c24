// y = x / sqrt(mean of x^2 over the channels + eps); gan_engine/ops/pixel_norm.py is the definition.
//
// Dense memory [outer, channels, inner]; inner is 1 where the channels are neighbours.
#pragma once

#include "common.h"

namespace gan_engine {

// With dy null y = r x, else y = r dy - r^3 x mean of x dy over the channels, for r = (mean of x^2 + eps)^(-1/2).
struct PixelNormParams {
    const void* x;
    const void* dy;
    void* y;
    std::int64_t outer, channels, inner;
    DType dtype;
    double eps;
};

}  // namespace gan_engine
