// Types that every kernel shares with the Python side, on the CPU and on the GPU.
//
// The arguments of a kernel are one struct, <Op>Params. Its `fields()` lists the members in order: bindings.cpp makes
// one Python argument of each.
#pragma once

#include <cstdint>
#include <tuple>

#if defined(__CUDACC__)
#define GE_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define GE_HOST_DEVICE inline
#endif

namespace gan_engine {

// The numbers are those of DTYPES in gan_engine/system/native.py.
enum class DType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };

}  // namespace gan_engine
