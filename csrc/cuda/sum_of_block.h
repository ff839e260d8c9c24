// The sum over the threads of a block.
#pragma once

#include <cuda_runtime.h>

namespace gan_engine {
namespace cuda {

// The sum of `v` over a block of whole warps, returned to every thread. A kernel calls it once. The sum is in double,
// which costs little here and is as exact as the terms.
__device__ inline double sum_of_block(double v) {
    __shared__ double warps[32];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) v += __shfl_xor_sync(0xffffffffu, v, distance);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
    __syncthreads();
    double sum = 0;
    for (int k = 0; k < int(blockDim.x / 32); ++k) sum += warps[k];
    return sum;
}

}  // namespace cuda
}  // namespace gan_engine
