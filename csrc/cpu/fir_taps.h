// Weighted sums of vectors: the arithmetic of an FIR filter.
#pragma once

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

#include "fir.h"

// For lambdas that hand vectors to each other, behind their parameters; see GE_INLINE.
#define GE_INLINED __attribute__((always_inline))

namespace gan_engine {
namespace GE_ISA {
namespace fir {

inline std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// Memory from the start of a line of the cache on, all 0.
template <class S>
struct Lines {
    static constexpr std::int64_t kLine = 64 / sizeof(S);
    std::vector<S> memory;
    S* data = nullptr;

    void resize(std::int64_t n) {
        memory.resize(n + kLine);
        const std::int64_t past = std::int64_t(reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(S)) % kLine;
        data = memory.data() + (kLine - past) % kLine;
    }
};

// The horizontal axis. Output i * phases + r takes the taps of output r, with inputs i * step further on.
struct Columns {
    FirAxis axis;
    std::int64_t phases, step;
    std::int64_t low;  // the first input of output 0; it may lie outside x

    explicit Columns(const FirAxis& a) : axis(a) {
        const std::int64_t common = std::gcd(a.up, a.down);
        phases = a.up / common, step = a.down / common;
        low = a.first_input(0);
    }
    // Outputs 0, ..., n - 1 need inputs low, ..., low + reach(n) - 1.
    std::int64_t reach(std::int64_t n) const {
        std::int64_t most = 1;
        for (std::int64_t o = std::max<std::int64_t>(n - phases, 0); o < n; ++o)
            most = std::max(most, axis.first_input(o) + axis.count(o) - low);
        return most;
    }
    // The outputs of phase r.
    std::int64_t outputs(std::int64_t r) const { return (axis.out - r + phases - 1) / phases; }
};

// A row of planes, spread. It has the inputs low, low + 1, ... of the horizontal axis, with the zeros around them. It
// consists of `step` parts: part k has the inputs low + k + j * step for all j. A tap is then a plain vector load.
// Inputs inside x begin at a line of the cache in each part.
struct Spread {
    const Columns columns;
    std::int64_t begin, end;     // the inputs inside x that y needs
    std::int64_t span;           // elements of a part
    std::int64_t first, second;  // the places of inputs begin and begin + 1

    explicit Spread(const FirAxis& axis) : columns(axis) {
        const std::int64_t reach = columns.reach(axis.out);
        const std::int64_t left = std::clamp<std::int64_t>(-columns.low, 0, reach);
        begin = columns.low + left;
        end = begin + std::clamp<std::int64_t>(axis.in - begin, 0, reach - left);
        span = round_up((reach + columns.step - 1) / columns.step, kLanes) + 3 * kLanes;
        first = place(begin), second = place(begin + 1);
    }
    std::int64_t size() const { return columns.step * span; }  // elements
    // The element of input i.
    std::int64_t place(std::int64_t i) const {
        const std::int64_t part = (i - columns.low) % columns.step, at = begin - columns.low;
        const std::int64_t before = (at - part + columns.step - 1) / columns.step;
        return part * span + round_up(before, kLanes) - before + (i - columns.low) / columns.step;
    }
};

// A source of taps: sum k has count(k) taps, and its value for vector i is the sum of weight(k, t) * load(at(k, t) + i)
// over these taps t.
//
// The taps on the rows of x that a row of y needs. Row iy of x is at x + (iy & mask) * pitch. Rows outside x are zeros.
template <class S>
struct VerticalTaps {
    const S *x, *zeros;
    std::int64_t pitch, mask, height;
    std::int64_t first, taps;  // the first row, which may lie outside x, and the number of rows
    const S* weights;
    std::int64_t apart;  // from a weight to the next

    GE_INLINE int count(int) const { return int(taps); }
    GE_INLINE const S* at(int, int t) const {
        const std::int64_t iy = first + t;
        return std::uint64_t(iy) < std::uint64_t(height) ? x + (iy & mask) * pitch : zeros;
    }
    GE_INLINE S weight(int, int t) const { return weights[t * apart]; }
};

// The taps on a spread row, or on several; sum k is that of phase k.
template <class S>
struct HorizontalTaps {
    struct Tap {
        const S* at;
        S weight;
    };
    std::vector<std::vector<Tap>> of_phase;

    explicit HorizontalTaps(std::int64_t phases) : of_phase(phases) {}
    void clear() {
        for (auto& taps : of_phase) taps.clear();
    }
    GE_INLINE int count(int k) const { return int(of_phase[k].size()); }
    GE_INLINE const S* at(int k, int t) const { return of_phase[k][t].at; }
    GE_INLINE S weight(int k, int t) const { return of_phase[k][t].weight; }
};

// How many elements are left at a place: a number, or, known when compiled, enough for all vectors.
struct Enough {
    friend GE_INLINE Enough operator-(Enough e, std::int64_t) { return e; }
};

// sum(load) of a vector, where load(p) are the numbers at p: as many as are left, and 0 in the other lanes.
template <class V, class Sum>
GE_INLINE V up_to(Enough, const Sum& sum) {
    return sum([](auto* p) GE_INLINED { return load<V>(p); });
}
template <class V, class Sum>
GE_INLINE V up_to(std::int64_t left, const Sum& sum) {
    if (left >= kLanes) return up_to<V>(Enough(), sum);
    if (left <= 0) return V{};
    return sum([left](auto* p) GE_INLINED { return load_some<V>(p, left); });
}

template <class V, class S>
GE_INLINE void put(S* p, V v, std::int64_t left, bool) {
    if (left > 0) store_up_to(p, left, v);
}
template <class V, class S>
GE_INLINE void put(S* p, V v, Enough, bool stream) {
    store(p, v, stream);
}

// K sums of a source, from sum `first` on. Each has N taps, which the compiler keeps in registers. With N = 0 the
// number of taps is known only at run time; then several vectors share each weight.
template <class Source, int N, int K>
struct Weigh {
    using S = decltype(std::declval<Source>().weight(0, 0));
    static constexpr int kAtOnce = 1;
    const S* at[K][N];
    S weight[K][N];

    GE_INLINE explicit Weigh(const Source& source, int first = 0) {
        for (int k = 0; k < K; ++k)
            for (int t = 0; t < N; ++t) at[k][t] = source.at(first + k, t), weight[k][t] = source.weight(first + k, t);
    }
    // v[0], v[1], ...: sum first + k for vectors i, i + 16, ...
    template <class V, int P, class Left>
    GE_INLINE void operator()(int k, std::int64_t i, Left left, V (&v)[P]) const {
        for (int j = 0; j < P; ++j)
            v[j] = up_to<V>(left - j * kLanes, [&](const auto& get) GE_INLINED {
                const std::int64_t from = i + j * kLanes;
                V sum = splat<V>(weight[k][0]) * get(at[k][0] + from);
                for (int t = 1; t < N; ++t) sum += splat<V>(weight[k][t]) * get(at[k][t] + from);
                return sum;
            });
    }
};

template <class Source, int K>
struct Weigh<Source, 0, K> {
    using S = decltype(std::declval<Source>().weight(0, 0));
    static constexpr int kAtOnce = sizeof(S) * kLanes > kRegisterBytes ? 2 : 4;
    const Source& source;
    const int first;

    GE_INLINE explicit Weigh(const Source& source_, int first_ = 0) : source(source_), first(first_) {}
    template <class V, int P, class Left>
    GE_INLINE void operator()(int k, std::int64_t i, Left left, V (&v)[P]) const {
        for (V& sum : v) sum = V{};
        for (int t = 0; t < source.count(first + k); ++t) {
            const V weight = splat<V>(source.weight(first + k, t));
            const S* at = source.at(first + k, t) + i;
            for (int j = 0; j < P; ++j)
                v[j] += weight *
                        up_to<V>(left - j * kLanes, [&](const auto& get) GE_INLINED { return get(at + j * kLanes); });
        }
    }
};

// body(i, left, blocks) for i = 0, ... below n, in steps of 16 * blocks. `blocks` is a constant: P, and where fewer
// than `whole` elements are left, Q.
template <int P, int Q, class Body>
GE_INLINE void in_blocks(std::int64_t n, std::int64_t whole, const Body& body) {
    std::int64_t i = 0;
    for (; i + P * kLanes <= whole; i += P * kLanes) body(i, Enough(), std::integral_constant<int, P>());
    for (; i < n; i += Q * kLanes) body(i, n - i, std::integral_constant<int, Q>());
}

// n elements of sum k, from place `from` on: to `to`, and zeros behind them up to a whole vector.
template <class Source, int N, int K>
GE_INLINE void add_up(const Weigh<Source, N, K>& weigh, int k, std::int64_t from, std::int64_t n,
                      typename Weigh<Source, N, K>::S* to) {
    using V = typename Wide<typename Weigh<Source, N, K>::S>::Vec;
    in_blocks<Weigh<Source, N, K>::kAtOnce, 1>(n, n, [&](std::int64_t i, auto left, auto blocks) GE_INLINED {
        V v[blocks()];
        weigh(k, from + i, left, v);
        for (int j = 0; j < blocks(); ++j) store(to + i + j * kLanes, v[j], false);
    });
}

// The same from memory that goes on behind the n elements, to memory that does not. `stream` writes whole vectors
// around the caches.
template <class Source, int N, int K>
GE_INLINE void add_up_to_y(const Weigh<Source, N, K>& weigh, int k, std::int64_t from, std::int64_t n,
                           typename Weigh<Source, N, K>::S* y, bool stream) {
    using V = typename Wide<typename Weigh<Source, N, K>::S>::Vec;
    in_blocks<Weigh<Source, N, K>::kAtOnce, 1>(n, n, [&](std::int64_t i, auto left, auto blocks) GE_INLINED {
        V v[blocks()];
        weigh(k, from + i, Enough(), v);
        for (int j = 0; j < blocks(); ++j) put(y + i + j * kLanes, v[j], left - j * kLanes, stream);
    });
}

// Whether rows of y, of `run` elements each, are written around the caches.
template <class S>
inline bool streams(const Upfirdn2dParams& p, const Ends<S>& ends, std::int64_t run) {
    constexpr std::int64_t kStreamBytes = 24 << 20;
    const std::int64_t bytes = p.n * p.c * p.h.out * p.w.out * std::int64_t(sizeof(S));
    const bool aligned = std::uintptr_t(ends.y) % 64 == 0 && run % kLanes == 0;
    return ends.y != nullptr && !ends.finishes && aligned && bytes > kStreamBytes;
}

// Whether rows of x are asked for before a row of y needs them: where a filter skips rows, no CPU foresees the next
// ones.
template <class S>
inline bool foresees(const Upfirdn2dParams& p, const Ends<S>& ends) {
    constexpr std::int64_t kForeseenRow = 256;
    return ends.x != nullptr && p.h.down > 1 && p.w.in * std::int64_t(sizeof(S)) >= kForeseenRow;
}
// Asks for rows of the plane x. `after` is the row behind those that a row of y needs.
template <class S>
GE_INLINE void prefetch(const Upfirdn2dParams& p, const S* x, std::int64_t after) {
    constexpr std::int64_t kRowsAhead = 8;
    const std::uintptr_t at = std::uintptr_t(x) + (after + kRowsAhead) * p.w.in * sizeof(S);
    for (std::uintptr_t i = 0; i < p.h.down * p.w.in * sizeof(S); i += 64)
        __builtin_prefetch(reinterpret_cast<const void*>(at + i));
}

// Calls run with the number of taps as a constant if it is 2 or 4 (the usual filter has 4 taps) and S is float.
// Otherwise the constant is 0. Each constant multiplies the template instantiations.
template <class S, class Run>
GE_INLINE void with_count(int count, const Run& run) {
    if constexpr (sizeof(S) == 4 && kRegisterBytes > 16) {
        if (count == 2) return run(std::integral_constant<int, 2>());
        if (count == 4) return run(std::integral_constant<int, 4>());
    }
    run(std::integral_constant<int, 0>());
}

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
