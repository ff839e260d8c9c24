// Types that every kernel, on the CPU and on the GPU, shares with the Python side.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define GE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GE_HOST_DEVICE inline
#endif

namespace gan_engine {

// gan_engine/system/native.py counts the same way.
enum class DType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

}  // namespace gan_engine
