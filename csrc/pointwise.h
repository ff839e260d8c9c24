// Convolutions of one pixel (1x1) between images of few channels, such as colours, and images of many, float32;
// gan_engine/ops/convolution/pointwise.py is the caller.
#pragma once

#include "common.h"

namespace gan_engine {

// A weight [few, many]. Strides are in elements.
struct PointwiseWeight {
    std::int64_t few, many, stride_few, stride_many;
};

// Images [n, pixels, channels], or [n, channels, pixels] where `last` is 0.
struct PointwiseImages {
    std::int64_t n, pixels, last;
};

// y = x weight + bias at each pixel: from few channels to many, or from many to few where `to_many` is 0. bias may be
// null.
struct PointwiseParams {
    const float *x, *weight, *bias;
    float* y;
    PointwiseImages images;
    PointwiseWeight shape;
    std::int64_t to_many;

    auto fields() { return std::tie(x, weight, bias, y, images, shape, to_many); }
};

// dweight [few, many] is the sum of few x many over all pixels: the gradient by the weight.
struct PointwiseWgradParams {
    const float *few, *many;
    float* dweight;
    PointwiseImages images;
    PointwiseWeight shape;

    auto fields() { return std::tie(few, many, dweight, images, shape); }
};

}  // namespace gan_engine
