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
    if (!separable) return {a, start, std::vector<S>(a.taps), 1};
    return {a, start, weights, kMostOutputs<V>};
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

// Sums over the taps, for the outputs of a phase, which all have the same taps. The first rows of taps may be pairs:
// the two rows of inputs of a pair are added, or the second is subtracted.
//
// Output i takes tap x from column i * step + x. A register of inputs is read once for all outputs that take it, so
// taps `step` columns apart are a group, and a group of more than kMostTaps is cut. The sums of kAtOnce outputs and the
// taps of a group fill the sixteen registers of AVX2.
template <class V, class S>
class MatrixSums {
  public:
    static constexpr int kAtOnce = 8;

    // tap(y, x) for `rows` rows, of which the first `pairs` are pairs, and `columns` columns of inputs.
    template <class Tap>
    MatrixSums(std::int64_t rows, std::int64_t columns, std::int64_t step_, const Tap& tap, std::int64_t pairs_ = 0,
               bool subtracts_ = false)
        : step(step_ * kLanes), pairs(pairs_), subtracts(subtracts_), inputs(rows) {
        for (std::int64_t first = 0; first < std::min(step_, columns); ++first)
            for (std::int64_t x = first; x < columns;) {
                const std::int64_t left = (columns - x + step_ - 1) / step_;
                const int count = left >= kMostTaps ? kMostTaps : left >= 4 ? 4 : left >= 2 ? 2 : 1;
                groups.push_back({x * kLanes, count});
                for (std::int64_t y = 0; y < rows; ++y)
                    for (int k = 0; k < count; ++k) taps.push_back(tap(y, x + k * step_));
                x += count * step_;
            }
    }
    // Row y of the inputs of output 0 lies at row(y), and the other row of a pair at other(y).
    template <class Row, class Other>
    void set_inputs(const Row& row, const Other& other) {
        for (std::int64_t y = 0; y < std::int64_t(inputs.size()); ++y)
            inputs[y] = {row(y), y < pairs ? other(y) - row(y) : 0};
    }
    // Outputs i, ..., i + kAtOnce - 1 go to `to`, `apart` elements apart. Their inputs must lie in memory.
    [[gnu::noinline]] void sum(std::int64_t i, S* to, std::int64_t apart) const {
        for (int lane = 0; lane < kLanes; lane += kLanesOf<R>) {
            R sums[kAtOnce] = {};
            const S* weights = taps.data();
            for (const Group& group : groups) {
                const std::int64_t at = i * step + group.column + lane;
                weights = subtracts ? add_group<true>(group.taps, weights, at, sums)
                                    : add_group<false>(group.taps, weights, at, sums);
            }
            GE_UNROLLED
            for (int j = 0; j < kAtOnce; ++j) store(to + j * apart + lane, sums[j], false);
        }
    }

  private:
    using R = std::conditional_t<sizeof(S) == 4, RegF, RegD>;
    static constexpr int kMostTaps = 6;
    struct Group {
        std::int64_t column;  // an element of a row
        int taps;
    };
    struct Inputs {
        const S* row;
        std::int64_t other;  // from the row to the other row of the pair
    };
    const std::int64_t step, pairs;
    const bool subtracts;
    std::vector<Group> groups;
    std::vector<S> taps;  // of each group, for all rows
    std::vector<Inputs> inputs;

    // Adds a group of taps of all rows. Returns the taps of the next group.
    template <bool minus>
    const S* add_group(int count, const S* weights, std::int64_t at, R (&sums)[kAtOnce]) const {
        switch (count) {
            case kMostTaps: return add<kMostTaps, minus>(weights, at, sums);
            case 4: return add<4, minus>(weights, at, sums);
            case 2: return add<2, minus>(weights, at, sums);
            default: return add<1, minus>(weights, at, sums);
        }
    }
    template <int K, bool minus>
    const S* add(const S* weights, std::int64_t at, R (&to)[kAtOnce]) const {
        R sums[kAtOnce];
        GE_UNROLLED
        for (int j = 0; j < kAtOnce; ++j) sums[j] = to[j];
        std::int64_t y = 0;
        for (; y < pairs; ++y, weights += K) {
            const std::int64_t other = inputs[y].other;
            add_row<K>(
                weights, inputs[y].row + at,
                [=](const S* p) GE_INLINED {
                    const R one = load<R>(p), two = load<R>(p + other);
                    return minus ? one - two : one + two;
                },
                sums);
        }
        for (; y < std::int64_t(inputs.size()); ++y, weights += K)
            add_row<K>(weights, inputs[y].row + at, [](const S* p) GE_INLINED { return load<R>(p); }, sums);
        GE_UNROLLED
        for (int j = 0; j < kAtOnce; ++j) to[j] = sums[j];
        return weights;
    }
    template <int K, class Get>
    GE_INLINE void add_row(const S* weights, const S* p, const Get& get, R (&sums)[kAtOnce]) const {
        R weight[K];
        GE_UNROLLED
        for (int k = 0; k < K; ++k) weight[k] = splat<R>(weights[k]);
        GE_UNROLLED
        for (int column = 0; column < kAtOnce + K - 1; ++column, p += step) {
            R v = get(p);
            read_once(v);
            GE_UNROLLED
            for (int k = 0; k < K; ++k)
                if (column >= k && column - k < kAtOnce) sums[column - k] += weight[k] * v;
        }
    }
};

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
