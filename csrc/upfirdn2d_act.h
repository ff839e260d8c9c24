// y = clamp(gain * act(scale * u + b + noise)), u = the FIR filter of x; gan_engine/ops/upfirdn2d_act.py is the
// definition.
//
// Masks are those of scale_bias_act.h; a plane [h, w] has a row of bits for each of its own rows, and not one for all.
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
    double alpha, gain, clamp;  // slope below 0: 1 is linear, 0 is relu; clamp < 0: none
};

// With dz = m * dy, m the derivative that the bits give, and g the FIR filter of dz, transposed: dx = scale * g, and
// the sums of g * x, dz and dz. To that filter, dy is x and dx is y. Sums are added to those that are there.
struct Upfirdn2dActGradParams {
    Upfirdn2dParams fir;  // y may be null
    const void* x;        // as dx, or null
    const void* scale;    // wide [n, c], or null
    const std::uint8_t* slope;
    const std::uint8_t* keep;
    double* d_scale;  // [slots, n, c], or null
    double* db;       // [slots, n, c], or null
    double* d_noise;  // [slots, n, h.in, w.in], or null
    double alpha, gain;
};

}  // namespace gan_engine
