#include "../taps.h"

#include <algorithm>

#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// A 3x3 kernel: the compiler then knows how many taps it adds.
constexpr std::int64_t kThreeByThree = 9;
// Sixteen kernels of at most so many taps are added together. A larger kernel, such as 9x9, is added alone.
constexpr std::int64_t kFewTaps = 64;
// So many neighbouring kernels are one piece of work. Their factors stay in the L1 cache.
constexpr std::int64_t kAcross = 1024;

template <class T>
struct Dot {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const T *x, *y;
    S* dots;

    // `count` <= 16 kernels of at most kFewTaps taps from `row` on, where taps are neighbours.
    template <std::int64_t known>
    void few_taps(std::int64_t row, std::int64_t count, std::int64_t taps) const {
        if (known > 0) taps = known;
        const T *a = x + row * taps, *b = y + row * taps;
        S products[kLanes * kFewTaps];
        for (std::int64_t i = 0; i < count * taps; i += kLanes) {
            const std::int64_t n = count * taps - i;
            store(products + i, load_up_to<V>(a + i, n) * load_up_to<V>(b + i, n), false);
        }
        for (std::int64_t r = 0; r < count; ++r) {
            S sum = products[r * taps];
            for (std::int64_t k = 1; k < taps; ++k) sum += products[r * taps + k];
            dots[row + r] = sum;
        }
    }

    void many_taps(std::int64_t row, std::int64_t taps) const {
        const T *a = x + row * taps, *b = y + row * taps;
        V sums{};
        for (std::int64_t k = 0; k < taps; k += kLanes)
            sums += load_up_to<V>(a + k, taps - k) * load_up_to<V>(b + k, taps - k);
        dots[row] = S(sum(sums));
    }

    void rows(std::int64_t row, std::int64_t end, std::int64_t taps) const {
        if (taps > kFewTaps)
            for (; row < end; ++row) many_taps(row, taps);
        for (; row < end; row += kLanes) {
            const std::int64_t count = std::min<std::int64_t>(end - row, kLanes);
            taps == kThreeByThree ? few_taps<kThreeByThree>(row, count, taps) : few_taps<0>(row, count, taps);
        }
    }

    // `count` neighbouring kernels, whose taps are `inner` apart.
    void across(std::int64_t from, std::int64_t to, std::int64_t count, std::int64_t taps, std::int64_t inner) const {
        for (std::int64_t i = 0; i < count; i += kLanes) {
            const T *a = x + from + i, *b = y + from + i;
            V sums{};
            for (std::int64_t k = 0; k < taps; ++k, a += inner, b += inner)
                sums += load_up_to<V>(a, count - i) * load_up_to<V>(b, count - i);
            store_up_to(dots + to + i, count - i, sums);
        }
    }
};

template <class T>
struct Scale {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const T* x;
    const S* factors;
    T* out;

    // A store writes sixteen numbers. Some of them may lie in the next kernels, which this thread writes afterwards.
    void rows(std::int64_t row, std::int64_t end, std::int64_t taps) const {
        for (; row < end; ++row) {
            const V factor = splat<V>(factors[row]);
            for (std::int64_t i = row * taps; i < (row + 1) * taps; i += kLanes)
                store_up_to(out + i, end * taps - i, factor * load_up_to<V>(x + i, end * taps - i));
        }
    }

    void across(std::int64_t from, std::int64_t to, std::int64_t count, std::int64_t taps, std::int64_t inner) const {
        for (std::int64_t k = 0; k < taps; ++k, from += inner)
            for (std::int64_t i = 0; i < count; i += kLanes) {
                const V factor = load_up_to<V>(factors + to + i, count - i);
                store_up_to(out + from + i, count - i, factor * load_up_to<V>(x + from + i, count - i));
            }
    }
};

template <class Params, class Work>
void run(const Params& p, const Work& work, int threads) {
    const int parts = threads_for(p.outer * p.taps * p.inner, threads);
    const std::int64_t blocks = (p.inner + kAcross - 1) / kAcross, items = p.outer * blocks;
    in_parallel(parts, [&](int part) {
        std::int64_t item = items * part / parts;
        const std::int64_t end = items * (part + 1) / parts;
        if (p.inner == 1) return work.rows(item, end, p.taps);
        for (; item < end; ++item) {
            const std::int64_t o = item / blocks, i = item % blocks * kAcross;
            work.across(o * p.taps * p.inner + i, o * p.inner + i, std::min(p.inner - i, kAcross), p.taps, p.inner);
        }
    });
}

}  // namespace

void taps_dot(const TapsDotParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        using S = typename Wide<T>::Scalar;
        run(p, Dot<T>{static_cast<const T*>(p.x), static_cast<const T*>(p.y), static_cast<S*>(p.dots)}, threads);
    });
}

void taps_scale(const TapsScaleParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        using S = typename Wide<T>::Scalar;
        run(p, Scale<T>{static_cast<const T*>(p.x), static_cast<const S*>(p.factors), static_cast<T*>(p.out)}, threads);
    });
}

}  // namespace GE_ISA
}  // namespace gan_engine
