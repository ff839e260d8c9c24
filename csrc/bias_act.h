// y = clamp(gain * act(x + b)) over dense memory; gan_engine/ops/bias_act.py is the definition.
//
// Element i belongs to channel (i / inner) % channels. A plane of mask bits holds one bit for each element: bit i % 8
// of byte i / 8. It is padded to a multiple of 8 bytes.
#pragma once

#include "common.h"

namespace gan_engine {

// The numbers are the codes of ACTIVATIONS in gan_engine/ops/bias_act_kernels.py.
enum class Act : int { kLinear, kRelu, kLRelu, kTanh, kSigmoid, kElu, kSelu, kSoftplus, kSwish };

inline constexpr double kSeluScale = 1.0507009873554805, kSeluAlpha = 1.6732632423543772;
inline constexpr double kSoftplusThreshold = 20;

struct BiasActParams {
    const void* x;
    const void* b;  // float (double for float64), or null
    void* y;
    std::uint8_t* slope;  // bits x + b > 0, or null
    std::uint8_t* keep;   // bits |gain * act(x + b)| <= clamp, taken before rounding, or null
    std::int64_t n, inner, channels;
    DType dtype;
    Act act;
    double alpha, gain, clamp;  // clamp < 0: none

    auto fields() { return std::tie(x, b, y, slope, keep, n, inner, channels, dtype, act, alpha, gain, clamp); }
};

// dx = m * (dy + d_db), where m is the derivative of y by x. partial[slot, c] is the slot's share of the sum of dx over
// channel c.
struct BiasActGradParams {
    const void* dy;
    const void* d_db;   // as b
    const void* saved;  // x for swish and wherever there is a clamp, else y; not read by piecewise linear activations
    const void* b;      // given where saved is x
    const std::uint8_t* slope;
    const std::uint8_t* keep;
    void* dx;
    void* partial;  // float (double for float64) [slots, channels]; not written where slots is 0
    std::int64_t slots, n, inner, channels;
    DType dtype;
    Act act;
    double alpha, gain, clamp;

    auto fields() {
        return std::tie(dy, d_db, saved, b, slope, keep, dx, partial, slots, n, inner, channels, dtype, act, alpha,
                        gain, clamp);
    }
};

}  // namespace gan_engine
