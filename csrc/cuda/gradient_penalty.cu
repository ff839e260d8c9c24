#include "../gradient_penalty.h"

#include "eight.h"
#include "launch.h"
#include "sum_of_block.h"

namespace gan_engine {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kStride = kThreads * 8;  // elements that a block handles at a time

template <class T>
__global__ void dot_kernel(SampleDotParams p, bool aligned) {
    using S = Wide<T>;
    const std::int64_t job = blockIdx.x, k = job % p.slots, first = job / p.slots * p.size;
    // Shares begin at whole groups of eight.
    const std::int64_t share = divide_up(divide_up(p.size, 8), p.slots) * 8;
    const std::int64_t end = (k + 1) * share < p.size ? (k + 1) * share : p.size;
    const T *x = static_cast<const T*>(p.x) + first, *y = static_cast<const T*>(p.y) + first;
    S sum = 0;
    for (std::int64_t i = k * share + threadIdx.x * 8; i < end; i += kStride) {
        Eight<T> a, b;
        a.load(x, i, end, aligned);
        b.load(y, i, end, aligned);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += widen(a.v[j]) * widen(b.v[j]);
    }
    const double total = sum_of_block(sum);
    if (threadIdx.x == 0) static_cast<S*>(p.partial)[job] = S(total);
}

// A block works on one stretch of one sample.
template <class T, bool two>
__global__ void mix_kernel(SampleMixParams p, std::int64_t stretches, bool aligned) {
    using S = Wide<T>;
    const std::int64_t sample = blockIdx.x / stretches, first = sample * p.size;
    const std::int64_t i = blockIdx.x % stretches * kStride + threadIdx.x * 8;
    if (i >= p.size) return;
    const S a = static_cast<const S*>(p.a)[sample], b = two ? static_cast<const S*>(p.b)[sample] : S(0);
    Eight<T> x, y;
    x.load(static_cast<const T*>(p.x) + first, i, p.size, aligned);
    if constexpr (two) y.load(static_cast<const T*>(p.y) + first, i, p.size, aligned);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
        S v = a * widen(x.v[j]);
        if constexpr (two) v += b * widen(y.v[j]);
        x.v[j] = narrow<T>(v);
    }
    x.store(static_cast<T*>(p.out) + first, i, 0, p.size, aligned);
}

template <class T>
void dot(const SampleDotParams& p, std::uintptr_t stream) {
    const bool aligned = is_aligned(p.x) && is_aligned(p.y) && p.size * sizeof(T) % 16 == 0;
    launch("sum_of_squares", dot_kernel<T>, p.samples * p.slots, kThreads, stream, p, aligned);
}

template <class T>
void mix(const SampleMixParams& p, std::uintptr_t stream) {
    const std::int64_t stretches = divide_up(p.size, kStride), blocks = p.samples * stretches;
    const bool aligned =
        is_aligned(p.x) && (p.y == nullptr || is_aligned(p.y)) && is_aligned(p.out) && p.size * sizeof(T) % 16 == 0;
    const auto kernel = p.y != nullptr ? mix_kernel<T, true> : mix_kernel<T, false>;
    launch("mix", kernel, blocks, kThreads, stream, p, stretches, aligned);
}

}  // namespace

void sample_dot(const SampleDotParams& p, std::uintptr_t stream) {
    with_dtype(p.dtype, [&](auto stored) { dot<typename decltype(stored)::T>(p, stream); });
}

void sample_mix(const SampleMixParams& p, std::uintptr_t stream) {
    with_dtype(p.dtype, [&](auto stored) { mix<typename decltype(stored)::T>(p, stream); });
}

// About 1024 shares for all samples, 8 blocks for each of 128 multiprocessors, with at least 8192 elements each
// (estimates, untested on a GPU).
int sample_dot_slots(std::int64_t samples, std::int64_t size, std::uintptr_t) {
    const std::int64_t wanted = 1024 / samples, most = size / 8192;
    const std::int64_t slots = wanted < most ? wanted : most;
    return slots < 1 ? 1 : int(slots);
}

}  // namespace cuda
}  // namespace gan_engine
