// Sums of many taps: two outputs at once, on several registers of neighbours.
#pragma once

#include <algorithm>
#include <utility>

#include "fir_taps.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// Whether an output takes more than `few` inputs of an axis.
inline bool has_more_taps(const Upfirdn2dParams& p, std::int64_t few) {
    const auto inputs = [](const FirAxis& axis) { return (axis.taps + axis.up - 1) / axis.up; };
    return p.separable && std::max(inputs(p.h), inputs(p.w)) > few;
}

// Two outputs that share inputs: output k takes inputs begin[k], ..., end[k] - 1, and neither grows smaller with k.
// Both have the weights of their inputs `apart` elements apart. No weight is 0 for want of a tap: an infinite input
// must not reach an output that does not take it.
template <class S>
struct OutputPair {
    std::int64_t begin[2], end[2];
    const S* weights[2];
    std::int64_t apart;

    // Output k takes `count` inputs from `first` on. Inputs outside [low, high) are zeros, and are left out.
    void set(int k, std::int64_t first, std::int64_t count, const S* f, std::int64_t low, std::int64_t high) {
        begin[k] = std::clamp(first, low, high), end[k] = std::clamp(first + count, low, high);
        weights[k] = begin[k] < end[k] ? f + (begin[k] - first) * apart : f;
    }
    // There is no second output.
    void set_alone() { begin[1] = end[1] = end[0], weights[1] = weights[0]; }
};

// body(0), ..., body(n - 1) with constants. In a loop, GCC may keep the sums in memory.
template <class Body, int... k>
GE_INLINE void each_of(std::integer_sequence<int, k...>, const Body& body) {
    (body(std::integral_constant<int, k>()), ...);
}
template <int n, class Body>
GE_INLINE void each_of(const Body& body) {
    each_of(std::make_integer_sequence<int, n>(), body);
}

// sums[k] of outputs k = from, ..., to - 1 of the pair grow by their products with inputs low, ..., high - 1.
template <int from, int to, class R, int P, class S, class Get>
GE_INLINE void add_products(const OutputPair<S>& pair, std::int64_t low, std::int64_t high, const Get& get,
                            R (&sums)[2][P]) {
    if (low >= high) return;
    const S* weights[2];
    for (int k = from; k < to; ++k) weights[k] = pair.weights[k] + (low - pair.begin[k]) * pair.apart;
    for (std::int64_t s = low; s < high; ++s) {
        R x[P];
        each_of<P>([&](auto j) GE_INLINED {
            x[j()] = get(s, j());
            if constexpr (to - from > 1) read_once(x[j()]);
        });
        each_of<to - from>([&](auto i) GE_INLINED {
            constexpr int k = from + i();
            const R weight = splat<R>(*weights[k]);
            each_of<P>([&](auto j) GE_INLINED { sums[k][j()] += weight * x[j()]; });
            weights[k] += pair.apart;
        });
    }
}

// The sums of a pair over its inputs: get(s, j) is register j of input s.
template <class R, int P, class S, class Get>
GE_INLINE void sum_pair(const OutputPair<S>& pair, const Get& get, R (&sums)[2][P]) {
    each_of<P>([&](auto j) GE_INLINED { sums[0][j()] = sums[1][j()] = R{}; });
    add_products<0, 1>(pair, pair.begin[0], std::min(pair.begin[1], pair.end[0]), get, sums);
    add_products<0, 2>(pair, pair.begin[1], pair.end[0], get, sums);
    add_products<1, 2>(pair, std::max(pair.begin[1], pair.end[0]), pair.end[1], get, sums);
}

// P registers R of neighbours.
template <class Register, int count>
struct Block {
    using R = Register;
    static constexpr int P = count;
};

template <class S>
struct RegisterOf {
    using R = RegF;
};
template <>
struct RegisterOf<double> {
    using R = RegD;
};

// body(block, i, left) for n neighbours, block by block from place i on. `left` are the elements from there on: Enough,
// or for the last block, whose last register may be a part, a number. Sums in one register would wait for each other.
template <class S, class Body>
GE_INLINE void in_registers(std::int64_t n, const Body& body) {
    using R = typename RegisterOf<S>::R;
    constexpr std::int64_t kWide = kLanesOf<R>;
    std::int64_t i = 0;
    for (; i + 5 * kWide <= n || i + 4 * kWide == n; i += 4 * kWide) body(Block<R, 4>(), i, Enough());
    switch ((n - i + kWide - 1) / kWide) {
        case 1: return body(Block<R, 1>(), i, n - i);
        case 2: return body(Block<R, 2>(), i, n - i);
        case 3: return body(Block<R, 3>(), i, n - i);
        case 4: return body(Block<R, 4>(), i, n - i);
        case 5: body(Block<R, 3>(), i, Enough()); return body(Block<R, 2>(), i + 3 * kWide, n - i - 3 * kWide);
    }
}

// Register j of a block of P, of which `left` elements are there.
template <class R, int P, class S>
GE_INLINE R load_of(const S* p, int j, Enough) {
    return load<R>(p + j * kLanesOf<R>);
}
template <class R, int P, class S>
GE_INLINE R load_of(const S* p, int j, std::int64_t left) {
    const S* at = p + j * kLanesOf<R>;
    return j < P - 1 ? load<R>(at) : load_some<R>(at, left - j * kLanesOf<R>);
}
// Sums over rows of x, for n neighbours from place `from` on: to `first` and, unless it is null, to `second`. `rows`
// are the rows of the pair; row s lies at x + (s & mask) * pitch.
template <class S>
void blend_pair(const OutputPair<S>& rows, const S* x, std::int64_t pitch, std::int64_t mask, std::int64_t n, S* first,
                S* second) {
    in_registers<S>(n, [&](auto block, std::int64_t i, auto left) GE_INLINED {
        using R = typename decltype(block)::R;
        constexpr int P = decltype(block)::P;
        R sums[2][P];
        sum_pair(
            rows, [&](std::int64_t s, int j) GE_INLINED { return load_of<R, P>(x + (s & mask) * pitch + i, j, left); },
            sums);
        each_of<P>([&](auto j) GE_INLINED { store(first + i + j() * kLanesOf<R>, sums[0][j()], false); });
        if (second == nullptr) return;
        each_of<P>([&](auto j) GE_INLINED { store(second + i + j() * kLanesOf<R>, sums[1][j()], false); });
    });
}

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
