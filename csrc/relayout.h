// y [n, cols, rows] = x [n, rows, cols], transposed image by image, and the columns in reverse order within groups of
// `reversed` (1: as they are); see gan_engine/ops/convolution.py.
#pragma once

#include "common.h"

namespace gan_engine {

struct RelayoutParams {
    const float* x;
    float* y;
    std::int64_t n, rows, cols, reversed;
};

}  // namespace gan_engine
