// y = clamp(gain * act(scale * u + b + noise)), where u is the FIR filter of x. gan_engine/ops/upfirdn2d_act.py is the
// definition.
//
// Masks are those of scale_bias_act.h, with one difference: a plane [h, w] has h rows of bits, not one row.
#pragma once

#include "scale_bias_act.h"
#include "upfirdn2d.h"

namespace gan_engine {

struct Upfirdn2dActParams {
    Upfirdn2dParams fir;
    const void* scale;    // wide [n, c], or null
    const void* b;        // wide [c], or null
    const void* noise;    // wide [n or 1, h.out, w.out], or null
    std::uint8_t* slope;  // bits scale * u + b + noise > 0, or null
    std::uint8_t* keep;   // bits |gain * act(..)| <= clamp, taken before rounding, or null
    std::int64_t noise_n;
    double alpha, gain, clamp;  // alpha is the slope below 0: 1 is linear, 0 is relu; clamp < 0: none

    auto fields() {
        return std::tuple_cat(fir.fields(), std::tie(scale, b, noise, slope, keep, noise_n, alpha, gain, clamp));
    }
};

// dz = m * dy, where the mask bits give the derivative m. g is the transposed FIR filter of dz: `fir` takes dy as its x
// and dx as its y. dx = scale * g. d_scale, db and d_noise are the sums of g * x, dz and dz. They are added to what the
// memory holds.
struct Upfirdn2dActGradParams {
    Upfirdn2dParams fir;  // fir.y may be null
    const void* x;        // as dx, or null
    const void* scale;    // wide [n, c], or null
    const std::uint8_t* slope;
    const std::uint8_t* keep;
    double* d_scale;  // [slots, n, c], or null
    double* db;       // [slots, n, c], or null
    double* d_noise;  // [slots, n, h.in, w.in], or null
    double alpha, gain;

    auto fields() {
        return std::tuple_cat(fir.fields(), std::tie(x, scale, slope, keep, d_scale, db, d_noise, alpha, gain));
    }
};

// Backend "cuda": dx = scale * g, where g is the FIR filter of dz = m * dy. `fir` takes dz as its x, and dx as its y.
// d_scale is the sum of g * x, for each slot.
struct Upfirdn2dScaledParams {
    Upfirdn2dParams fir;  // fir.y may be null
    const void* x;        // as dx, or null
    const void* scale;    // wide [n, c], or null
    void* d_scale;        // wide [slots, n, c], or null with x

    auto fields() { return std::tuple_cat(fir.fields(), std::tie(x, scale, d_scale)); }
};

}  // namespace gan_engine
