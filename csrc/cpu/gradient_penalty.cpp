#include "../gradient_penalty.h"

#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// So many elements are added in float, then the sum moves to double. That is 64 additions for each lane, with the
// rounding error of a pairwise sum of 64.
constexpr std::int64_t kBlock = 64 * kLanes;

template <class T>
double dot(const T* x, const T* y, std::int64_t size) {
    using V = typename Wide<T>::Vec;
    double total = 0;
    for (std::int64_t i = 0; i < size; i += kBlock) {
        const std::int64_t end = i + kBlock < size ? i + kBlock : size;
        V sums{};
        std::int64_t k = i;
        for (; k + kLanes <= end; k += kLanes) sums += load(x + k) * load(y + k);
        if (k < end) sums += load_some<V>(x + k, end - k) * load_some<V>(y + k, end - k);
        total += sum(sums);
    }
    return total;
}

template <class T>
void run_dot(const SampleDotParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    const std::int64_t jobs = p.samples * p.slots;
    const int parts = threads_for(p.samples * p.size, threads);
    in_parallel(parts, [&](int part) {
        for (std::int64_t job = jobs * part / parts; job < jobs * (part + 1) / parts; ++job) {
            const std::int64_t k = job % p.slots, begin = p.size * k / p.slots, end = p.size * (k + 1) / p.slots;
            const std::int64_t first = job / p.slots * p.size + begin;
            const T *x = static_cast<const T*>(p.x) + first, *y = static_cast<const T*>(p.y) + first;
            static_cast<S*>(p.partial)[job] = S(dot(x, y, end - begin));
        }
    });
}

template <class T>
void mix(const T* x, const T* y, double a, double b, T* out, std::int64_t size) {
    using V = typename Wide<T>::Vec;
    using S = typename Wide<T>::Scalar;
    const V va = splat<V>(S(a)), vb = splat<V>(S(b));
    std::int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
        V v = va * load(x + i);
        if (y != nullptr) v += vb * load(y + i);
        store(out + i, v, false);
    }
    if (i < size) {
        V v = va * load_some<V>(x + i, size - i);
        if (y != nullptr) v += vb * load_some<V>(y + i, size - i);
        store_some(out + i, v, size - i);
    }
}

template <class T>
void run_mix(const SampleMixParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    const std::int64_t n = p.samples * p.size;
    const int parts = threads_for(n, threads);
    in_parallel(parts, [&](int part) {
        const std::int64_t stop = n * (part + 1) / parts;
        for (std::int64_t i = n * part / parts; i < stop;) {
            const std::int64_t s = i / p.size, next = (s + 1) * p.size, end = next < stop ? next : stop;
            const T* y = p.y == nullptr ? nullptr : static_cast<const T*>(p.y) + i;
            const S b = p.b == nullptr ? S(0) : static_cast<const S*>(p.b)[s];
            mix(static_cast<const T*>(p.x) + i, y, static_cast<const S*>(p.a)[s], b, static_cast<T*>(p.out) + i,
                end - i);
            i = end;
        }
    });
}

}  // namespace

void sample_dot(const SampleDotParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { run_dot<typename decltype(stored)::T>(p, threads); });
}

void sample_mix(const SampleMixParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { run_mix<typename decltype(stored)::T>(p, threads); });
}

// The shares of a sample: enough that every thread has work.
int sample_dot_slots(std::int64_t samples, std::int64_t size, int threads) {
    const int parts = threads_for(samples * size, threads);
    return samples >= 2 * parts ? 1 : parts;
}

}  // namespace GE_ISA
}  // namespace gan_engine
