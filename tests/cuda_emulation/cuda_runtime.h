// The part of CUDA that csrc/cuda uses, for a host compiler. Blocks run one after another. The threads of a block take
// turns: each runs until it waits for the others. A machine without a GPU can therefore test the logic of the kernels:
// indices, masks, tails, reductions. It cannot test their memory model: a missing barrier may pass here.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct uint2 {
    unsigned x, y;
};
struct uint4 {
    unsigned x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

inline thread_local dim3 gridDim, blockDim, blockIdx, threadIdx;

template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}

namespace emulation {

// A thread keeps its stack for the blocks that follow. Turns are taken by _setjmp and _longjmp, which make no system
// call: a reduction over a block has thousands of turns.
class Block {
  public:
    explicit Block(const std::function<void()>& kernel) : kernel_(kernel) {
        if (blockDim.x > kThreads) fail("a block has more than 1024 threads");
        current_ = this;
        for (unsigned k = 0; k < blockDim.x; ++k) threads()[k].done = false;
        for (bool running = true; running;) {
            running = false;
            const char* waits_at = nullptr;
            for (now_ = 0; now_ < blockDim.x; ++now_) {
                Thread& thread = threads()[now_];
                if (thread.done) continue;
                threadIdx = dim3(now_, 0, 0);
                give_turn(thread);
                if (thread.done) continue;
                running = true;
                if (waits_at == nullptr) waits_at = thread.waits_at;
                if (waits_at != thread.waits_at) fail("threads of a block wait in different places");
            }
        }
    }

    static void wait(const char* place) {
        Thread& thread = threads()[current_->now_];
        thread.waits_at = place;
        if (_setjmp(thread.place) == 0) _longjmp(scheduler_, 1);
    }

    template <class T>
    static T shuffle_xor(T v, int distance) {
        static T values[1024];
        const unsigned me = threadIdx.x;
        if (((me ^ distance) & ~31u) != (me & ~31u) || (me ^ distance) >= blockDim.x) fail("a shuffle leaves the warp");
        values[me] = v;
        wait("shuffle");
        v = values[me ^ distance];
        wait("after a shuffle");
        return v;
    }

  private:
    static constexpr std::size_t kThreads = 1024, kStack = 64 << 10;

    struct Thread {
        std::unique_ptr<char[]> stack;  // none before its first turn
        jmp_buf place;
        const char* waits_at;
        bool done;
    };

    static Thread* threads() {
        static const std::unique_ptr<Thread[]> all(new Thread[kThreads]());
        return all.get();
    }

    static void give_turn(Thread& thread) {
        if (_setjmp(scheduler_) != 0) return;
        if (thread.stack != nullptr) _longjmp(thread.place, 1);
        thread.stack.reset(new char[kStack]);
        ucontext_t context;
        getcontext(&context);
        context.uc_stack.ss_sp = thread.stack.get();
        context.uc_stack.ss_size = kStack;
        makecontext(&context, live, 0);
        setcontext(&context);
    }

    static void live() {
        for (;;) {
            current_->kernel_();
            threads()[current_->now_].done = true;
            wait("the next block");
        }
    }

    [[noreturn]] static void fail(const char* what) {
        std::fprintf(stderr, "CUDA emulation: %s\n", what);
        std::abort();
    }

    static inline Block* current_ = nullptr;
    static inline jmp_buf scheduler_;
    const std::function<void()>& kernel_;
    unsigned now_ = 0;
};

}  // namespace emulation

inline void __syncthreads() { emulation::Block::wait("__syncthreads"); }

template <class T>
T __shfl_xor_sync(unsigned, T v, int distance) {
    return emulation::Block::shuffle_xor(v, distance);
}

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess };
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes;
    cudaStream_t stream;
};

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const std::function<void()> body = [&] { kernel(arguments...); };
    gridDim = config->gridDim, blockDim = config->blockDim;
    for (unsigned k = 0; k < gridDim.x; ++k) {
        blockIdx = dim3(k, 0, 0);
        emulation::Block block(body);
    }
    return cudaSuccess;
}
