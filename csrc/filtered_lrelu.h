// y = FIR filter of clamp(gain * act(u)), where u is the FIR filter of x + b; gan_engine/ops/filtered_lrelu.py is the
// definition. The gradient is the same with the derivative of act in its place, and both filters transposed.
#pragma once

#include "upfirdn2d.h"

namespace gan_engine {

// Mask bits are those of u: [blocks, h, w] of sixteen bits each, for the size h, w of u. A block holds sixteen planes
// of the n * c planes, or sixteen channels of an image where channels_last; the last block may hold fewer.
struct FilteredLreluParams {
    Upfirdn2dParams first;      // from x to u; its y is null
    Upfirdn2dParams second;     // from act(u) to y; its x is null
    const void* b;              // wide [c], or null; it is not added where x is padded
    std::uint8_t* slope;        // bits u > 0, or null
    std::uint8_t* keep;         // bits |gain * act(u)| <= clamp, or null
    bool derives;               // false: writes the bits; true: reads them, and multiplies u by the derivative of act
    double alpha, gain, clamp;  // alpha is the slope below 0; clamp < 0: none

    auto fields() {
        return std::tuple_cat(first.fields(), second.fields(), std::tie(b, slope, keep, derives, alpha, gain, clamp));
    }
};

}  // namespace gan_engine
