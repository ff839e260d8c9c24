// One axis of an FIR filter, as sums over neighbouring inputs that several outputs share.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "fir_taps.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// Registers of a vector, and registers for sums: the others hold inputs and a weight.
template <class V>
inline constexpr int kRegistersOf = int(sizeof(V)) / kRegisterBytes;
inline constexpr int kSums = kRegisterBytes == 64 ? 16 : 8;
// Outputs that are summed together share the loads of their inputs.
template <class V>
inline constexpr int kMostOutputs = std::clamp(kSums / kRegistersOf<V>, 1, 4);

// Outputs `output`, ..., output + outputs - 1 of a period, from inputs input, ..., input + inputs - 1.
template <class S>
struct Group {
    std::int64_t output, input, inputs;
    int outputs;
    std::vector<S> weights;  // [inputs, outputs]
};

// Outputs origin + k * size + (0, ..., size - 1) are period k. Its inputs begin at base + k * step.
template <class S>
struct Periods {
    FirAxis axis;
    std::int64_t size, step, reach = 0;  // a period takes `reach` inputs
    std::int64_t origin, base;
    std::vector<Group<S>> groups;

    // `start` is the first output wanted. The origin lies up to up - 1 before it, where the phases of an upsampling
    // filter read the same inputs.
    Periods(const FirAxis& a, std::int64_t start, const std::vector<S>& f, int most) : axis(a) {
        const std::int64_t common = std::gcd(a.up, a.down), phases = a.up / common;
        size = phases == 1 ? std::min(most, 2) : phases, step = size * a.down / a.up;
        const std::int64_t past = (start - a.pad - 1) % a.up;
        origin = a.down == 1 ? start - (past < 0 ? past + a.up : past) : start;
        base = first_input(origin);
        for (std::int64_t r = 0; r < size;) {
            int outputs = 1;
            while (outputs * 2 <= most && r + outputs * 2 <= size) outputs *= 2;
            add_group(r, outputs, f);
            r += outputs;
        }
    }
    std::int64_t periods(std::int64_t end) const { return (end - origin + size - 1) / size; }  // before output `end`
    std::int64_t inputs(std::int64_t end) const { return (periods(end) - 1) * step + reach; }  // of these periods
    std::int64_t first_input(std::int64_t o) const { return ceil_div(o * axis.down - axis.pad, axis.up); }

  private:
    static std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }

    void add_group(std::int64_t r, int outputs, const std::vector<S>& f) {
        const std::int64_t low = first_input(origin + r) - base;
        std::int64_t high = low + 1;
        for (std::int64_t o = origin + r; o < origin + r + outputs; ++o)
            high = std::max(high, first_input(o) - base + axis.count(o));
        Group<S> group{r, low, high - low, outputs, std::vector<S>((high - low) * outputs)};
        for (int k = 0; k < outputs; ++k) {
            const std::int64_t o = origin + r + k, tap = axis.first_tap(o);
            for (std::int64_t t = 0; t < axis.count(o); ++t)
                group.weights[(first_input(o) - base - low + t) * outputs + k] = f[tap + t * axis.up];
        }
        reach = std::max(reach, high);
        groups.push_back(std::move(group));
    }
};

// done(k, i, sum) for outputs k and positions i = 0, ..., n - 1: the sum of weights[t * outputs + k] * at(t)[i * step].
template <class V, int outputs, int positions, class S, class At, class Done>
GE_INLINE void sum_block(const S* weights, std::int64_t inputs, std::int64_t step, std::int64_t i, const At& at,
                         const Done& done) {
    V sums[outputs][positions];
    GE_UNROLLED
    for (int k = 0; k < outputs; ++k) {
        GE_UNROLLED
        for (int j = 0; j < positions; ++j) sums[k][j] = V{};
    }
    for (std::int64_t t = 0; t < inputs; ++t) {
        const S* p = at(t) + i * step;
        V v[positions];
        GE_UNROLLED
        for (int j = 0; j < positions; ++j) {
            v[j] = load<V>(p + j * step);
            if constexpr (outputs > 1) read_once(v[j]);
        }
        GE_UNROLLED
        for (int k = 0; k < outputs; ++k) {
            const V weight = splat<V>(weights[t * outputs + k]);
            GE_UNROLLED
            for (int j = 0; j < positions; ++j) sums[k][j] += weight * v[j];
        }
    }
    GE_UNROLLED
    for (int k = 0; k < outputs; ++k) {
        GE_UNROLLED
        for (int j = 0; j < positions; ++j) done(k, i + j, sums[k][j]);
    }
}
template <class V, int outputs, class S, class At, class Done>
GE_INLINE void sum_positions(const S* weights, std::int64_t inputs, std::int64_t step, std::int64_t n, const At& at,
                             const Done& done) {
    constexpr int positions = std::clamp(kSums / (outputs * kRegistersOf<V>), 1, 8);
    std::int64_t i = 0;
    for (; i + positions <= n; i += positions) sum_block<V, outputs, positions>(weights, inputs, step, i, at, done);
    for (; i < n; ++i) sum_block<V, outputs, 1>(weights, inputs, step, i, at, done);
}
template <class V, class S, class At, class Done>
GE_INLINE void sum_group(const Group<S>& g, std::int64_t step, std::int64_t n, const At& at, const Done& done) {
    const S* w = g.weights.data();
    if constexpr (kMostOutputs<V> >= 4)
        if (g.outputs == 4) return sum_positions<V, 4>(w, g.inputs, step, n, at, done);
    if constexpr (kMostOutputs<V> >= 2)
        if (g.outputs == 2) return sum_positions<V, 2>(w, g.inputs, step, n, at, done);
    sum_positions<V, 1>(w, g.inputs, step, n, at, done);
}

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
