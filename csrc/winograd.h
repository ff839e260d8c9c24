// Convolutions by Winograd's minimal filtering, channels last, float32; see gan_engine/ops/convolution/winograd.py.
#pragma once

#include "common.h"

namespace gan_engine {

// By kernel: tiles of 2x2, 4x2 and 4x4 pixels of y, then those with a stride of 2, "Up" for transposed ones;
// gan_engine/ops/convolution/winograd.py counts the same way.
enum class Minimal : int { k3 = 0, k3Tall = 1, k3Large = 2, k3Down = 3, k3Up = 4, k4Down = 5, k4Up = 6 };

// A weight [out, in, k, k] of any strides, in elements, that may be negative.
struct WinogradWeight {
    std::int64_t out, in, stride_out, stride_in, stride_y, stride_x;
};

struct WinogradImages {
    std::int64_t n, in_h, in_w, out_h, out_w, padding;  // padding: as the convolution has it, or its transpose
};

// y [n, out_h, out_w, out] of x [n, in_h, in_w, in], + bias [out] or null; weight: its first tap, which where they come
// in reverse order is the last in memory.
struct WinogradParams {
    const float *x, *weight, *bias;
    float* y;
    WinogradImages images;
    WinogradWeight shape;
    Minimal minimal;
};

// The gradient of <y, dy> by the weight; not of the transposes, whose gradient is that of the convolution from dy to x.
struct WinogradWgradParams {
    const float *x, *dy;
    float* dweight;
    WinogradImages images;
    WinogradWeight shape;
    Minimal minimal;
};

}  // namespace gan_engine
