// Launches kernels, and throws errors as exceptions.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace gan_engine {
namespace cuda {

__host__ __device__ inline std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Runs `blocks` blocks of `threads` threads on a stream. `op` is the name in an error.
template <class... Parameters, class... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), std::int64_t blocks, int threads, std::uintptr_t stream,
            Arguments&&... arguments) {
    if (blocks > 0x7fffffff)
        throw std::runtime_error(std::string(op) + ": a CUDA grid has at most 2^31 - 1 blocks, this call needs " +
                                 std::to_string(blocks));
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(unsigned(blocks));
    config.blockDim = dim3(unsigned(threads));
    config.stream = reinterpret_cast<cudaStream_t>(stream);
    const cudaError_t error = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
    if (error != cudaSuccess) {
        cudaGetLastError();  // clears the error, which the next call would report again
        throw std::runtime_error(std::string(op) + ": the CUDA kernel did not start: " + cudaGetErrorString(error));
    }
}

}  // namespace cuda
}  // namespace gan_engine
