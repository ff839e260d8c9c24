// Eight neighbouring numbers: 16 bytes of half precision, and one byte of a plane of mask bits.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../common.h"

namespace gan_engine {
namespace cuda {

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(__nv_bfloat16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float widen(__half v) { return __half2float(v); }

// The type of computations on numbers that memory holds as T.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// with_dtype calls run(Stored<T>()), where memory holds the numbers of `dtype` as T.
template <class Number>
struct Stored {
    using T = Number;
};
template <class Run>
void with_dtype(DType dtype, const Run& run) {
    switch (dtype) {
        case DType::kFloat32: return run(Stored<float>());
        case DType::kFloat64: return run(Stored<double>());
        case DType::kBFloat16: return run(Stored<__nv_bfloat16>());
        case DType::kFloat16: return run(Stored<__half>());
    }
}

template <class T>
__device__ __forceinline__ T narrow(Wide<T> v) {
    return v;
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float v) {
    return __float2bfloat16_rn(v);
}
template <>
__device__ __forceinline__ __half narrow<__half>(float v) {
    return __float2half_rn(v);
}

template <class T>
struct Eight {
    static constexpr int kWords = sizeof(T) / 2;  // of 16 bytes
    T v[8];

    // Loads elements i to i + 7 of the n elements at p; those past the end are 0. `aligned`: p is aligned to 16 bytes,
    // and i is a multiple of 8.
    __device__ __forceinline__ void load(const T* p, std::int64_t i, std::int64_t n, bool aligned) {
        if (aligned && i + 8 <= n) {
            uint4 words[kWords];
#pragma unroll
            for (int k = 0; k < kWords; ++k) words[k] = reinterpret_cast<const uint4*>(p + i)[k];
            memcpy(v, words, sizeof v);
        } else {
#pragma unroll
            for (int k = 0; k < 8; ++k) v[k] = i + k < n ? p[i + k] : T(0.f);
        }
    }

    // Writes elements i to i + 7, except those outside [begin, end).
    __device__ __forceinline__ void store(T* p, std::int64_t i, std::int64_t begin, std::int64_t end,
                                          bool aligned) const {
        if (aligned && begin <= i && i + 8 <= end) {
            uint4 words[kWords];
            memcpy(words, v, sizeof v);
#pragma unroll
            for (int k = 0; k < kWords; ++k) reinterpret_cast<uint4*>(p + i)[k] = words[k];
        } else {
            // The compiler must not see that `load` made the same comparisons: it would generate the code between the
            // two for each of the 2^8 results.
            asm volatile("" : "+l"(begin), "+l"(end));
#pragma unroll
            for (int k = 0; k < 8; ++k)
                if (begin <= i + k && i + k < end) p[i + k] = v[k];
        }
    }
};

inline bool is_aligned(const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 16 == 0; }

}  // namespace cuda
}  // namespace gan_engine
