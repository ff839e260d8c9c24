// gain * act and the clamp behind it, of eight neighbours, with their mask bits.
#pragma once

#include "activations.h"

namespace gan_engine {
namespace cuda {

template <class S>
struct Activation {
    S gain, gain_below, clamp;  // gain_below: of numbers below 0
    bool clamps;

    Activation(double alpha, double gain_, double clamp_)
        : gain(S(gain_)), gain_below(S(gain_ * alpha)), clamp(S(clamp_)), clamps(clamp_ >= 0) {}

    // z becomes y. The bits are those of z > 0, and of |gain * act(z)| <= clamp.
    __device__ __forceinline__ void run(S (&z)[8], unsigned& slope, unsigned& keep) const {
        slope = keep = 0;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            slope |= unsigned(z[k] > 0) << k;
            z[k] *= z[k] > 0 ? gain : gain_below;
        }
        if (!clamps) return;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            keep |= unsigned(z[k] <= clamp && z[k] >= -clamp) << k;
            z[k] = limited(z[k], clamp);
        }
    }
};

}  // namespace cuda
}  // namespace gan_engine
