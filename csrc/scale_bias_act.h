// y = clamp(gain * act(x * scale + b + noise)) over images; gan_engine/ops/scale_bias_act.py is the definition.
//
// An image is rows of columns: a row for each channel and a column for each pixel, or, where `channels_last`, a row for
// each pixel and a column for each channel. A plane of mask bits holds bit i % 8 of byte i / 8 of its row for column i;
// a row has mask_bytes(cols) bytes.
#pragma once

#include "common.h"

namespace gan_engine {

inline std::int64_t mask_bytes(std::int64_t cols) { return (cols + 15) / 16 * 2; }

// What "wide" numbers are: float, or double for float64.
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
    double alpha, gain, clamp;  // slope below 0: 1 is linear, 0 is relu; clamp < 0: none
};

// With dz = m * dy, m the derivative that the bits give: dx = scale * dz, and the sums of dz and dz * x. Sums along a
// row are complete; those along a column are of the rows in a slot, of which each image has `slots`.
struct ScaleBiasActGradParams {
    const void* dy;
    const void* x;      // or null: no sums of dz * x
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
};

}  // namespace gan_engine
