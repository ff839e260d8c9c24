// Filters that are no outer product: they take all their taps at once, from rows of vectors.
#pragma once

#include <algorithm>
#include <vector>

#include "fir_periods.h"
#include "fir_weights.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// Whether a filter that is no outer product is the same upside down, as radial filters are, and pairs of its rows share
// their products. Downsampling adds the two rows of x that have equal taps. Upsampling by 2 makes two rows of y from
// the same rows of x, with the taps of one upside down in the other: they are P + M and P - M, where P has the sums of
// two rows of x, and M their differences.
template <class S>
bool is_mirrored(const Upfirdn2dParams& p, const Weights<S>& weights) {
    if (weights.separable || !(p.h.up == 1 || (p.h.up == 2 && p.h.down == 1 && p.h.taps % 2 == 0))) return false;
    for (std::int64_t y = 0; y < p.h.taps / 2; ++y) {
        const S* const row = &weights.both[y * p.w.taps];
        if (!std::equal(row, row + p.w.taps, &weights.both[(p.h.taps - 1 - y) * p.w.taps])) return false;
    }
    return true;
}

// An axis of a filter. A filter that is no outer product uses its places alone, so any weights will do.
template <class V, class S>
Periods<S> axis(const FirAxis& a, std::int64_t start, bool separable, const std::vector<S>& weights) {
    return {a, start, separable ? weights : std::vector<S>(a.taps), kMostOutputs<V>};
}

// Sums and, where wanted, differences of two rows.
template <class V, class S>
void pair_rows(const S* a, const S* b, std::int64_t columns, S* sums, S* differences) {
    for (std::int64_t i = 0; i < columns * kLanes; i += kLanes) {
        const V one = load<V>(a + i), other = load<V>(b + i);
        store(sums + i, one + other, false);
        if (differences != nullptr) store(differences + i, one - other, false);
    }
}

// The taps that row r and column o of the output take.
template <class S>
struct TapsOf {
    const S* first;
    std::int64_t down, across;

    TapsOf(const Upfirdn2dParams& p, const Weights<S>& w, std::int64_t r, std::int64_t o)
        : first(&w.both[p.h.first_tap(r) * p.w.taps + p.w.first_tap(o)]), down(p.h.up * p.w.taps), across(p.w.up) {}
    S operator()(std::int64_t y, std::int64_t x) const { return first[y * down + x * across]; }
};

// Sums over the taps that are not 0, for the outputs of a phase, which all have the same taps.
template <class V, class S>
class MatrixSums {
  public:
    // tap(y, x) for `rows` rows and `columns` columns of inputs.
    template <class Tap>
    MatrixSums(std::int64_t rows, std::int64_t columns, const Tap& tap) {
        for (std::int64_t y = 0; y < rows; ++y)
            for (std::int64_t x = 0; x < columns; ++x)
                if (const S weight = tap(y, x); weight != 0) places.push_back({y, x * kLanes}), taps.push_back(weight);
        inputs.resize(taps.size());
    }
    // Row y of the inputs of output 0 lies at row(y).
    template <class Row>
    void set_inputs(const Row& row) {
        for (std::size_t t = 0; t < inputs.size(); ++t) inputs[t] = row(places[t].y) + places[t].x;
    }
    // done(i, sum) for outputs first, ..., behind - 1. The inputs of an output lie `step` elements behind those of the
    // output before it.
    template <class Done>
    GE_INLINE void sum(std::int64_t step, std::int64_t first, std::int64_t behind, const Done& done) const {
        const S* const* const at = inputs.data();
        sum_positions<V, 1>(
            taps.data(), std::int64_t(taps.size()), step, behind - first,
            [=](std::int64_t t) GE_INLINED { return at[t] + first * step; },
            [&](int, std::int64_t i, V sum) GE_INLINED { done(first + i, sum); });
    }

  private:
    struct Place {
        std::int64_t y, x;  // a row, and an element of it
    };
    std::vector<Place> places;
    std::vector<S> taps;
    std::vector<const S*> inputs;
};

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
