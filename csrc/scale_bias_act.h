// y = clamp(gain * act(x * scale + b + noise)) over images; gan_engine/ops/scale_bias_act.py is the definition.
//
// An image is a matrix. Its rows are channels and its columns are pixels; with `channels_last` rows are pixels and
// columns are channels. A plane of mask bits has mask_bytes(cols) bytes for each row: column i is bit i % 8 of byte
// i / 8. "Wide" numbers are float, or double for float64.
#pragma once

#include "common.h"

namespace gan_engine {

GE_HOST_DEVICE std::int64_t mask_bytes(std::int64_t cols) { return (cols + 15) / 16 * 2; }

struct ScaleBiasActParams {
    const void* x;        // [n, rows, cols]
    const void* scale;    // wide [n, channels], or null
    const void* b;        // wide [channels], or null
    const void* noise;    // wide [n or 1, pixels], or null
    void* y;              // as x
    std::uint8_t* slope;  // bits x * scale + b + noise > 0, or null
    std::uint8_t* keep;   // bits |gain * act(..)| <= clamp, taken before rounding, or null
    std::int64_t n, rows, cols, noise_n;
    DType dtype;
    bool channels_last;
    double alpha, gain, clamp;  // alpha is the slope below 0: 1 is linear, 0 is relu; clamp < 0: none

    auto fields() {
        return std::tie(x, scale, b, noise, y, slope, keep, n, rows, cols, noise_n, dtype, channels_last, alpha, gain,
                        clamp);
    }
};

// dz = m * dy, where the mask bits give the derivative m. dx = scale * dz. The other results are sums of dz and of
// dz * x. A sum along a row is complete. A sum along a column covers the rows of one slot; each image has `slots`
// slots.
struct ScaleBiasActGradParams {
    const void* dy;
    const void* x;      // null: no sums of dz * x
    const void* scale;  // wide [n, channels], or null
    const std::uint8_t* slope;
    const std::uint8_t* keep;
    void* dx;       // or null
    void* d_scale;  // wide, sums of dz * x over pixels: [n, channels], channels_last [slots, n, channels]; or null
    void* db;       // wide, sums of dz over pixels: as d_scale
    void* d_noise;  // wide, sums of dz over channels: [slots, n, pixels], channels_last [n, pixels]; or null
    std::int64_t slots, n, rows, cols;
    DType dtype;
    bool channels_last;
    double alpha, gain;

    auto fields() {
        return std::tie(dy, x, scale, slope, keep, dx, d_scale, db, d_noise, slots, n, rows, cols, dtype, channels_last,
                        alpha, gain);
    }
};

// The gradients of the gradient. v_x, v_scale, v_b and v_noise are the gradients by dx, d_scale, db and d_noise, or
// null for 0:
//
//   d_dy = m * (scale * v_x + v_scale * x + v_b + v_noise), d_x = v_scale * dz, and d_scale is the sum of dz * v_x
struct ScaleBiasActSecondParams {
    const void* dy;       // null: no d_x and no d_scale
    const void* x;        // or null, where v_scale is null
    const void* scale;    // wide [n, channels], or null for 1
    const void* v_x;      // as x, or null
    const void* v_scale;  // wide [n, channels], or null
    const void* v_b;      // wide [channels], or null
    const void* v_noise;  // wide [n or 1, pixels], or null
    const std::uint8_t* slope;
    const std::uint8_t* keep;
    void* d_dy;     // as dy, or null
    void* d_x;      // as x, or null; it takes v_scale
    void* d_scale;  // as in ScaleBiasActGradParams; it takes v_x
    std::int64_t slots, n, rows, cols, noise_n;
    DType dtype;
    bool channels_last;
    double alpha, gain;

    auto fields() {
        return std::tie(dy, x, scale, v_x, v_scale, v_b, v_noise, slope, keep, d_dy, d_x, d_scale, slots, n, rows, cols,
                        noise_n, dtype, channels_last, alpha, gain);
    }
};

}  // namespace gan_engine
