// Sine and cosine that need no local memory, as CUDA's own do for large arguments.
#pragma once

#include <cuda_runtime.h>

#include <cmath>

namespace gan_engine {
namespace cuda {

// r = t - n pi in [-pi/2, pi/2], for a t of up to kFarthest, where n is still a whole number of double. From there on r
// is 0, or NaN where t is not finite. Neighbouring floats of 32 bits are further apart there than periods are long.
// Neighbouring doubles are 2 apart: they still have a sine, which becomes 0.
constexpr double kFarthest = 1e16;
__device__ inline double reduced(double t) {
    if (!(std::fabs(t) < kFarthest)) return t - t;
    const double n = std::rint(t * 0.31830988618379067);
    return std::fma(n, -1.2246467991473532e-16, std::fma(n, -3.141592653589793, t));
}

// Sine and cosine of r, so that sin^2(t), sin(2t) and cos(2t) follow: all have the period pi.
template <class S>
struct Turns;

// As in csrc/cpu/turns.h.
template <>
struct Turns<float> {
    float sine, cosine;
    __device__ explicit Turns(float t) {
        const float n = std::rint(t * 0.318309886f);
        float r =
            std::fma(n, -1.509957990978376e-7f, std::fma(n, -9.67502593994140625e-4f, std::fma(n, -3.140625f, t)));
        if (!(std::fabs(t) < 32768.f)) r = float(reduced(t));
        const float r2 = r * r;
        sine = (((2.608917697e-6f * r2 - 1.981110652e-4f) * r2 + 8.333088090e-3f) * r2 - 1.666666046e-1f) * r2 * r + r;
        cosine =
            ((((-2.619367386e-7f * r2 + 2.476929745e-5f) * r2 - 1.388856906e-3f) * r2 + 4.166665577e-2f) * r2 - 0.5f) *
                r2 +
            1.f;
    }
};

// By Taylor series: what follows is below 2e-18.
template <>
struct Turns<double> {
    double sine, cosine;
    __device__ explicit Turns(double t) {
        const double r = reduced(t), r2 = r * r;
        double p = 1, q = 1;
#pragma unroll
        for (int k = 22; k >= 2; k -= 2) {
            p = 1 - p * r2 * (1. / double(k * (k + 1)));
            q = 1 - q * r2 * (1. / double(k * (k - 1)));
        }
        sine = p * r, cosine = q;
    }
};

}  // namespace cuda
}  // namespace gan_engine
