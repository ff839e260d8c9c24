// The activations of bias_act and their derivatives, for one number.
#pragma once

#include "../bias_act.h"

#include <cuda_runtime.h>

namespace gan_engine {
namespace cuda {

// Activations that are not piecewise linear.
template <Act act>
constexpr bool kIsSmooth = act >= Act::kTanh;

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }
__device__ __forceinline__ float expm1_of(float x) { return expm1f(x); }
__device__ __forceinline__ double expm1_of(double x) { return expm1(x); }
__device__ __forceinline__ float log1p_of(float x) { return log1pf(x); }
__device__ __forceinline__ double log1p_of(double x) { return log1p(x); }
__device__ __forceinline__ float tanh_of(float x) { return tanhf(x); }
__device__ __forceinline__ double tanh_of(double x) { return tanh(x); }

template <class S>
__device__ __forceinline__ S absolute(S v) {
    return v < 0 ? -v : v;
}

template <class T>
__device__ __forceinline__ T limited(T v, T most) {  // NaN stays NaN
    v = v > most ? most : v;
    return v < -most ? -most : v;
}
#if defined(__CUDA_ARCH__)
template <>
__device__ __forceinline__ float limited(float v, float most) {
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(v), "f"(most));
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(v) : "f"(v), "f"(-most));
    return v;
}
#endif

template <class S>
__device__ __forceinline__ S sigmoid(S z) {
    const S e = exp_of(-absolute(z));
    return (z < 0 ? e : S(1)) / (1 + e);
}

template <Act act, class S>
__device__ __forceinline__ S activate(S z, S alpha) {
    if constexpr (act == Act::kRelu) return z < 0 ? S(0) : z;
    if constexpr (act == Act::kLRelu) return z > 0 ? z : alpha * z;
    if constexpr (act == Act::kTanh) return tanh_of(z);
    if constexpr (act == Act::kSigmoid) return sigmoid(z);
    if constexpr (act == Act::kElu) return z > 0 ? z : expm1_of(z);
    if constexpr (act == Act::kSelu) return z > 0 ? z * S(kSeluScale) : expm1_of(z) * S(kSeluScale * kSeluAlpha);
    if constexpr (act == Act::kSoftplus)
        return z > S(kSoftplusThreshold) ? z : (z > 0 ? z : S(0)) + log1p_of(exp_of(-absolute(z)));
    if constexpr (act == Act::kSwish) return z * sigmoid(z);
    return z;
}

// act'(z) from t = act(z).
template <Act act, class S>
__device__ __forceinline__ S slope_of(S t) {
    if constexpr (act == Act::kTanh) return 1 - t * t;
    if constexpr (act == Act::kSigmoid) return t * (1 - t);
    if constexpr (act == Act::kElu) return t > 0 ? S(1) : t + 1;
    if constexpr (act == Act::kSelu) return t > 0 ? S(kSeluScale) : t + S(kSeluScale * kSeluAlpha);
    return -expm1_of(-t);  // softplus
}

}  // namespace cuda
}  // namespace gan_engine
