// y = FIR filter of x, with a change of resolution; gan_engine/ops/upfirdn2d.py is the definition.
#pragma once

#include "common.h"

namespace gan_engine {

// One axis: y[o] = sum over k of f[k] * u[o * down - pad + k]. u is x with up - 1 zeros behind every element, and zeros
// outside. No sum reads an inserted zero: it takes the taps k = first_tap(o), first_tap(o) + up, ... and the inputs
// first_input(o), first_input(o) + 1, ...
template <class Int>
struct FirAxisOf {
    Int in, out, up, down, pad, taps;

    GE_HOST_DEVICE Int first_tap(Int o) const {
        const Int k = (pad - o * down) % up;
        return k < 0 ? k + up : k;
    }
    GE_HOST_DEVICE Int first_input(Int o) const { return (o * down - pad + first_tap(o)) / up; }
    GE_HOST_DEVICE Int count(Int o) const { return (taps - first_tap(o) + up - 1) / up; }
};
using FirAxis = FirAxisOf<std::int64_t>;

struct Upfirdn2dParams {
    const void* x;   // [n, c, h.in, w.in], or [n, h.in, w.in, c] where channels_last
    const float* f;  // separable: [w.taps], for both axes; else [h.taps, w.taps]
    void* y;
    std::int64_t n, c;
    FirAxis h, w;
    DType dtype;
    bool separable, flip, channels_last;  // flip: tap k is f[k], as above; else f[taps - 1 - k]
    double gain;

    auto fields() { return std::tie(x, f, y, n, c, h, w, dtype, separable, flip, channels_last, gain); }
};

}  // namespace gan_engine
