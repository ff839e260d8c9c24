// y [n, cols, rows] is x [n, rows, cols], every image transposed. Columns change order too: each group of `reversed`
// columns is reversed (1: no change). gan_engine/ops/convolution/relayout.py is the caller.
#pragma once

#include "common.h"

namespace gan_engine {

struct RelayoutParams {
    const float* x;
    float* y;
    std::int64_t n, rows, cols, reversed;

    auto fields() { return std::tie(x, y, n, rows, cols, reversed); }
};

}  // namespace gan_engine
