// The first half of filtered_lrelu: rows of u by the first filter, from a ring of rows of x, with their activation.
#pragma once

#include "../filtered_lrelu.h"

#include <algorithm>
#include <vector>

#include "affine.h"
#include "filtered_lrelu_y.h"
#include "fir_matrix.h"
#include "fir_periods.h"
#include "fir_weights.h"
#include "lanes.h"
#include "rings.h"

namespace gan_engine {
namespace GE_ISA {
namespace filtered {

template <class T>
class RowsOfU {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

  public:
    // The rows of u that `y_` takes. They go to its ring.
    RowsOfU(const FilteredLreluParams& params, const fir::Weights<S>& weights_, const RowsOfY<T>& y_)
        : call(params),
          p(params.first),
          weights(weights_),
          y(y_),
          x(p.n, p.c, p.h.in, p.w.in, p.channels_last),
          act(call.alpha, call.gain, call.clamp),
          derivative(call.alpha, call.gain),
          begin(y.u_begin),
          end(y.u_end),
          across(fir::axis<V>(p.w, begin, p.separable, weights.across)),
          down(fir::axis<V>(p.h, y.u_top, p.separable, weights.down)),
          passes(fir::is_identity(p, weights)),
          pairs(p.h.up == 2 && fir::is_mirrored(p, weights)),
          linear(call.alpha == 1 && call.gain == 1 && call.clamp < 0) {
        if (!p.separable) pairs ? add_pairs() : add_phases();
    }

    std::int64_t rows_at_once() const { return down.size; }

    void lay_out(Pieces<S>& pieces) {
        const std::int64_t width_x = pitch_of(std::max(across.inputs(end), across.reach) + across.step);
        const std::int64_t width_xs = p.separable ? pitch_of(across.periods(end) * across.size) : width_x;
        x_row = pieces.take(width_x), elements_x = width_x * kLanes;
        xs = {nullptr, pieces.take(width_xs), power_of_two(down.reach + 1), width_xs * kLanes, p.h.in};
        xs.data = pieces.take(xs.slots * width_xs);
        paired = pieces.take(pairs ? p.h.taps / 2 * width_x + y.width_u() : 0);
        bits = reinterpret_cast<std::uint8_t*>(pieces.take((end - begin) / 16 + 1));
    }

    // To the first row of a block, with zeros where no row of x reaches.
    void start(std::int64_t block_) {
        block = block_;
        bias = call.b == nullptr ? V{} : x.of_planes(static_cast<const S*>(call.b), block);
        std::fill_n(xs.zeros, xs.pitch, S(0));
        std::fill_n(p.separable ? x_row : xs.data, p.separable ? elements_x : xs.slots * xs.pitch, S(0));
        x_next = inside(down.base, p.h.in), next = down.origin;
    }

    // The rows before row `behind` that are not there yet.
    void make(std::int64_t behind) {
        while (next < behind) make_period();
    }

  private:
    const FilteredLreluParams& call;
    const Upfirdn2dParams& p;
    const fir::Weights<S>& weights;
    const RowsOfY<T>& y;
    const Planes<T> x;
    const Activation<V> act;
    const Derivative<V> derivative;
    const std::int64_t begin, end;  // columns
    const fir::Periods<S> across, down;
    const bool passes, pairs, linear;
    std::int64_t block = 0, x_next = 0, next = 0;  // the next rows of x and u
    V bias{};
    Ring<S> xs{};  // rows of x, filtered across where the filter is separable
    S *x_row = nullptr, *paired = nullptr;
    std::int64_t elements_x = 0;
    std::uint8_t* bits = nullptr;  // of a row whose bits the next tile writes
    // For each phase down and across; of pairs, for each phase across, plus and minus.
    std::vector<fir::MatrixSums<V, S>> sums;
    std::vector<const S*> rows;  // of x, that a row of u takes

    // Columns of x that columns [begin, end) of u need, from across.base on.
    void read_x(std::int64_t iy, S* to) {
        const std::int64_t first = inside(across.base, p.w.in);
        const std::int64_t behind = inside(across.base + across.inputs(end), p.w.in);
        if (first < behind)
            x.read(static_cast<const T*>(p.x), block, iy, first, behind - first, bias,
                   to + (first - across.base) * kLanes);
    }

    void make_x(std::int64_t iy) {
        S* to = xs.row(iy);
        if (!p.separable) return read_x(iy, to);
        read_x(iy, x_row);
        for (const fir::Group<S>& group : across.groups)
            fir::sum_group<V>(
                group, across.step * kLanes, across.periods(end),
                [&](std::int64_t t) GE_INLINED { return x_row + (group.input + t) * kLanes; },
                [&](int k, std::int64_t i, V sum)
                    GE_INLINED { store(to + (i * across.size + group.output + k) * kLanes, sum, false); });
    }

    // The next rows of u: a period of the filter.
    void make_period() {
        const std::int64_t row = next, top = std::max(row, y.u_top);
        next += down.size;
        const std::int64_t bottom = std::min(next, p.h.out);
        if (passes) {
            for (std::int64_t r = top; r < bottom; ++r) {
                S* u = y.u_row(r);
                x.read(static_cast<const T*>(p.x), block, r, begin, end - begin, bias, u);
                const Line c = line(r);
                for (std::int64_t i = 0; i < end - begin && !linear; ++i) put(c, i, load<V>(u + i * kLanes));
            }
            return;
        }
        const std::int64_t first = down.base + (row - down.origin) / down.size * down.step;
        for (x_next = std::max(x_next, first); x_next < inside(first + down.reach, p.h.in); ++x_next) make_x(x_next);
        if (p.separable) {
            for (const fir::Group<S>& group : down.groups) make_group(group, row + group.output, first + group.input);
        } else if (pairs) {
            make_pair(row);
        } else {
            for (std::int64_t r = top; r < bottom; ++r) make_of_matrix(r);
        }
    }

    // A row of u from column `begin` on, and its bits; null outside u.
    struct Line {
        S* to = nullptr;
        std::uint8_t *slope = nullptr, *keep = nullptr;
    };
    Line line(std::int64_t r) const {
        if (r < y.u_top || r >= p.h.out) return {};
        const std::int64_t first = ((block * p.h.out + r) * p.w.out + begin) * 2;
        const bool own = call.derives || r < y.u_bottom;
        const auto at = [&](std::uint8_t* plane) { return plane == nullptr ? nullptr : own ? plane + first : bits; };
        return {y.u_row(r), at(call.slope), at(call.keep)};
    }
    // Column i of a line.
    GE_INLINE void put(const Line& c, std::int64_t i, V v) const {
        if (!linear)
            v = call.derives ? derivative(v, c.slope, c.keep, i * kLanes) : act(v, c.slope, c.keep, i * kLanes);
        store(c.to + i * kLanes, v, false);
    }

    void make_group(const fir::Group<S>& group, std::int64_t row, std::int64_t first) {
        Line lines[4];
        for (int k = 0; k < group.outputs; ++k) lines[k] = line(row + k);
        const std::int64_t skipped = (begin - across.origin) * kLanes;
        rows.resize(group.inputs);
        for (std::int64_t t = 0; t < group.inputs; ++t) rows[t] = xs.at(first + t) + skipped;
        const S* const* const at = rows.data();
        fir::sum_group<V>(
            group, kLanes, end - begin, [=](std::int64_t t) GE_INLINED { return at[t]; },
            [&](int k, std::int64_t i, V sum) GE_INLINED {
                if (lines[k].to != nullptr) put(lines[k], i, sum);
            });
    }

    void add_phases() {
        for (std::int64_t r = down.origin; r < down.origin + down.size; ++r)
            for (std::int64_t o = across.origin; o < across.origin + across.size; ++o)
                sums.emplace_back(p.h.count(r), p.w.count(o), fir::TapsOf<S>(p, weights, r, o));
    }
    void add_pairs() {
        const std::int64_t half = p.h.taps / 4, odd = p.h.taps / 2 % 2, last = p.h.taps / 2 - 1;
        for (std::int64_t o = across.origin; o < across.origin + across.size; ++o) {
            const fir::TapsOf<S> tap(p, weights, down.origin, o);
            sums.emplace_back(half + odd, p.w.count(o),
                              [&](std::int64_t t, std::int64_t k) { return (tap(t, k) + tap(last - t, k)) / 2; });
            sums.emplace_back(half, p.w.count(o),
                              [&](std::int64_t t, std::int64_t k) { return (tap(t, k) - tap(last - t, k)) / 2; });
        }
    }

    // done(i, sum) for columns i of a line, by the sums of a phase. Row t of its inputs lies at row(t).
    template <class Row, class Done>
    GE_INLINE void sum_phase(fir::MatrixSums<V, S>& of, std::int64_t phase, const Row& row, const Done& done) const {
        const std::int64_t o = across.origin + phase, from = (across.first_input(o) - across.base) * kLanes;
        of.set_inputs([&](std::int64_t t) { return row(t) + from; });
        of.sum(across.step * kLanes, 0, (end - o + across.size - 1) / across.size,
               [&](std::int64_t k, V sum) GE_INLINED {
                   const std::int64_t i = phase + k * across.size - (begin - across.origin);
                   if (i >= 0 && i < end - begin) done(i, sum);
               });
    }

    // Row r by a filter that is no outer product.
    void make_of_matrix(std::int64_t r) {
        const Line c = line(r);
        const std::int64_t first = down.first_input(r), of_row = (r - down.origin) % down.size * across.size;
        for (std::int64_t phase = 0; phase < across.size; ++phase)
            sum_phase(
                sums[of_row + phase], phase, [&](std::int64_t t) { return xs.at(first + t); },
                [&](std::int64_t i, V sum) GE_INLINED { put(c, i, sum); });
    }

    // Rows `row` and row + 1 by a mirrored filter, from sums and differences of pairs of rows of x.
    void make_pair(std::int64_t row) {
        const Line lines[] = {line(row), line(row + 1)};
        const std::int64_t first = down.first_input(row), half = p.h.taps / 4;
        const std::int64_t columns = across.inputs(end), last = p.h.taps / 2 - 1;
        S* const plus = paired + p.h.taps / 2 * xs.pitch;
        for (std::int64_t t = 0; t < half; ++t) {
            S *const added = paired + 2 * t * xs.pitch, *const differences = added + xs.pitch;
            fir::pair_rows<V, S>(xs.at(first + t), xs.at(first + last - t), columns, added, differences);
        }
        for (std::int64_t phase = 0; phase < across.size; ++phase) {
            sum_phase(
                sums[2 * phase], phase,
                [&](std::int64_t t) { return t < half ? paired + 2 * t * xs.pitch : xs.at(first + t); },
                [&](std::int64_t i, V sum) GE_INLINED { store(plus + i * kLanes, sum, false); });
            sum_phase(
                sums[2 * phase + 1], phase, [&](std::int64_t t) { return paired + (2 * t + 1) * xs.pitch; },
                [&](std::int64_t i, V minus) GE_INLINED {
                    const V sum = load<V>(plus + i * kLanes);
                    if (lines[0].to != nullptr) put(lines[0], i, sum + minus);
                    if (lines[1].to != nullptr) put(lines[1], i, sum - minus);
                });
        }
    }
};

}  // namespace filtered
}  // namespace GE_ISA
}  // namespace gan_engine
