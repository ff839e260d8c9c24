// Weighted sums of vectors: the arithmetic of an FIR filter.
#pragma once

#include <type_traits>
#include <vector>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// A weighted sum: its value for vector i is the sum of weight[t] * load(at[t] + i) over all taps t.
template <class S>
struct Taps {
    std::vector<const S*> at;
    std::vector<S> weight;
    int count = 0;

    explicit Taps(std::int64_t most) : at(most), weight(most) {}
    void add(const S* address, S w) { at[count] = address, weight[count++] = w; }
};

// Calls sink(i, sums) for i = 0, 16, ... below n, where sums[k] is the sum of taps[k] for vector shift + i. N is the
// number of taps, or 0: known only at run time.
template <class V, class S, int N, int K>
struct Weigh {
    const S* at[K][N];
    V weight[K][N];

    explicit Weigh(const Taps<S>* taps) {
        for (int k = 0; k < K; ++k)
            for (int t = 0; t < N; ++t) at[k][t] = taps[k].at[t], weight[k][t] = splat<V>(taps[k].weight[t]);
    }
    template <class Sink>
    void operator()(std::int64_t shift, std::int64_t n, const Sink& sink) const {
        for (std::int64_t i = 0; i < n; i += kLanes) {
            V sums[K];
            for (int k = 0; k < K; ++k) {
                sums[k] = weight[k][0] * load(at[k][0] + shift + i);
                for (int t = 1; t < N; ++t) sums[k] += weight[k][t] * load(at[k][t] + shift + i);
            }
            sink(i, sums);
        }
    }
};

template <class V, class S, int K>
struct Weigh<V, S, 0, K> {
    const Taps<S>* taps;

    explicit Weigh(const Taps<S>* taps_) : taps(taps_) {}
    template <class Sink>
    void operator()(std::int64_t shift, std::int64_t n, const Sink& sink) const {
        // Four vectors at once share each weight.
        constexpr int kAtOnce = 4;
        std::int64_t i = 0;
        for (; i + kAtOnce * kLanes <= n; i += kAtOnce * kLanes) {
            V sums[kAtOnce][K] = {};
            for (int k = 0; k < K; ++k)
                for (int t = 0; t < taps[k].count; ++t) {
                    const V weight = splat<V>(taps[k].weight[t]);
                    const S* at = taps[k].at[t] + shift + i;
                    for (int j = 0; j < kAtOnce; ++j) sums[j][k] += weight * load(at + j * kLanes);
                }
            for (int j = 0; j < kAtOnce; ++j) sink(i + j * kLanes, sums[j]);
        }
        for (; i < n; i += kLanes) {
            V sums[K] = {};
            for (int k = 0; k < K; ++k)
                for (int t = 0; t < taps[k].count; ++t)
                    sums[k] += splat<V>(taps[k].weight[t]) * load(taps[k].at[t] + shift + i);
            sink(i, sums);
        }
    }
};

// Calls run with the number of taps as a constant if it is 2 or 4 (the usual filter has 4 taps) and S is float.
// Otherwise the constant is 0. Each constant multiplies the template instantiations.
template <class S, class Run>
void with_count(int count, const Run& run) {
#if defined(__AVX2__) || defined(__ARM_NEON)
    if constexpr (sizeof(S) == 4) {
        if (count == 2) return run(std::integral_constant<int, 2>());
        if (count == 4) return run(std::integral_constant<int, 4>());
    }
#endif
    run(std::integral_constant<int, 0>());
}

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
