// Convolutions by Winograd's minimal filtering, float32; gan_engine/ops/convolution/winograd.py is the caller.
#pragma once

#include "common.h"

namespace gan_engine {

// The algorithms: for 3x3 kernels with tiles of 2x2, 4x2 and 4x4 pixels of y, those with a stride of 2, and for 4x4
// kernels with tiles of 2x2, 3x2 and 3x3. "Down" is a convolution, "Up" a transposed convolution, and "Large" has
// larger tiles. The numbers are those of FORMS in gan_engine/ops/convolution/forms.py.
enum class Minimal : int {
    k3 = 0,
    k3Tall = 1,
    k3Large = 2,
    k3Down = 3,
    k3Up = 4,
    k4Down = 5,
    k4Up = 6,
    k3DownLarge = 7,
    k4DownLarge = 8,
    k4UpLarge = 9,
    k4 = 10,
    k4Tall = 11,
    k4Large = 12,
};

// A weight [out, in, k, k]. Strides are in elements, of any order and sign.
struct WinogradWeight {
    std::int64_t out, in, stride_out, stride_in, stride_y, stride_x;
};

// `padding` is that of the convolution, or of the transposed convolution. x is [n, in_h, in_w, in] where x_last is not
// 0, else [n, in, in_h, in_w], and so is y.
struct WinogradImages {
    std::int64_t n, in_h, in_w, out_h, out_w, padding, x_last, y_last;
};

// y is the convolution of x, plus bias [out] unless bias is null. The first tap of the weight lies `begin` elements
// behind `weight`: with taps in reverse order it is the last in memory.
struct WinogradParams {
    const float *x, *weight;
    std::int64_t begin;
    const float* bias;
    float* y;
    WinogradImages images;
    WinogradWeight shape;
    Minimal minimal;

    auto fields() { return std::tie(x, weight, begin, bias, y, images, shape, minimal); }
};

// The gradient of <y, dy> by the weight. dy lies in memory as y above. The transposed algorithms have none: the caller
// swaps x and dy and asks for the gradient of the convolution.
struct WinogradWgradParams {
    const float *x, *dy;
    float* dweight;
    WinogradImages images;
    WinogradWeight shape;
    Minimal minimal;

    auto fields() { return std::tie(x, dy, dweight, images, shape, minimal); }
};

}  // namespace gan_engine
