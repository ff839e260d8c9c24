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
    static constexpr std::int64_t kAtOnce = fir::MatrixSums<V, S>::kAtOnce;

  public:
    // The rows of u that `y_` takes. They go to its ring.
    RowsOfU(const FilteredLreluParams& params, const fir::Weights<S>& weights_, const RowsOfY<T>& y_)
        : call(params),
          p(params.first),
          weights(weights_),
          y(y_),
          x(p.n, p.c, p.h.in, p.w.in, p.channels_last),
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
        const std::int64_t behind = across.step * (p.separable ? 1 : kAtOnce);
        const std::int64_t width_x = pitch_of(std::max(across.inputs(end), across.reach) + behind);
        const std::int64_t width_xs = p.separable ? pitch_of(across.periods(end) * across.size) : width_x;
        x_row = pieces.take(width_x), elements_x = width_x * kLanes;
        xs = {nullptr, pieces.take(width_xs), power_of_two(down.reach + 1), width_xs * kLanes, p.h.in};
        xs.data = pieces.take(xs.slots * width_xs);
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
    const std::int64_t begin, end;  // columns
    const fir::Periods<S> across, down;
    const bool passes, pairs, linear;
    std::int64_t block = 0, x_next = 0, next = 0;  // the next rows of x and u
    V bias{};
    Ring<S> xs{};  // rows of x, filtered across where the filter is separable
    S* x_row = nullptr;
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
                activate(line(r));
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
    // The activation of a line, or its derivative.
    void activate(const Line& c) const {
        if (linear || c.to == nullptr) return;
        S* const u = c.to;
        std::uint8_t *const slope = c.slope, *const keep = c.keep;
        const std::int64_t elements = (end - begin) * kLanes;
        const auto change = [=](const auto& f) GE_INLINED {
            for (std::int64_t i = 0; i < elements; i += kLanes) store(u + i, f(load<V>(u + i), slope, keep, i), false);
        };
        call.derives ? change(Derivative<V>(call.alpha, call.gain))
                     : change(Activation<V>(call.alpha, call.gain, call.clamp));
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
                if (lines[k].to != nullptr) store(lines[k].to + i * kLanes, sum, false);
            });
        for (int k = 0; k < group.outputs; ++k) activate(lines[k]);
    }

    void add_phases() {
        for (std::int64_t r = down.origin; r < down.origin + down.size; ++r)
            for (std::int64_t o = across.origin; o < across.origin + across.size; ++o)
                sums.emplace_back(p.h.count(r), p.w.count(o), across.step, fir::TapsOf<S>(p, weights, r, o));
    }
    void add_pairs() {
        const std::int64_t half = p.h.taps / 4, odd = p.h.taps / 2 % 2, last = p.h.taps / 2 - 1;
        for (std::int64_t o = across.origin; o < across.origin + across.size; ++o) {
            const fir::TapsOf<S> tap(p, weights, down.origin, o);
            sums.emplace_back(
                half + odd, p.w.count(o), across.step,
                [&](std::int64_t t, std::int64_t k) { return (tap(t, k) + tap(last - t, k)) / 2; }, half);
            sums.emplace_back(
                half, p.w.count(o), across.step,
                [&](std::int64_t t, std::int64_t k) { return (tap(t, k) - tap(last - t, k)) / 2; }, half, true);
        }
    }

    // done(i, j) for columns i of a line that are of a phase across, after sum(k) made kAtOnce of them, from output k
    // of the phase on: column i is number j of them.
    template <class Sum, class Done>
    GE_INLINE void sum_phase(std::int64_t phase, const Sum& sum, const Done& done) const {
        const std::int64_t o = across.origin + phase, outputs = (end - o + across.size - 1) / across.size;
        for (std::int64_t k = 0; k < outputs; k += kAtOnce) {
            sum(k);
            for (std::int64_t j = 0; j < std::min<std::int64_t>(kAtOnce, outputs - k); ++j) {
                const std::int64_t i = o + (k + j) * across.size - begin;
                if (i >= 0 && i < end - begin) done(i, j * kLanes);
            }
        }
    }
    // The elements of a row of x before those of output 0 of a phase.
    std::int64_t skipped(std::int64_t phase) const {
        return (across.first_input(across.origin + phase) - across.base) * kLanes;
    }

    // Row r by a filter that is no outer product.
    void make_of_matrix(std::int64_t r) {
        const Line c = line(r);
        const std::int64_t first = down.first_input(r), of_row = (r - down.origin) % down.size * across.size;
        S made[kAtOnce * kLanes];
        for (std::int64_t phase = 0; phase < across.size; ++phase) {
            fir::MatrixSums<V, S>& of = sums[of_row + phase];
            const auto row = [&](std::int64_t t) { return xs.at(first + t) + skipped(phase); };
            of.set_inputs(row, row);
            sum_phase(
                phase, [&](std::int64_t k) { of.sum(k, made, kLanes); },
                [&](std::int64_t i, std::int64_t j) GE_INLINED { store(c.to + i * kLanes, load<V>(made + j), false); });
        }
        activate(c);
    }

    // Rows `row` and row + 1 by a mirrored filter, from sums and differences of pairs of rows of x.
    void make_pair(std::int64_t row) {
        const Line lines[] = {line(row), line(row + 1)};
        const std::int64_t first = down.first_input(row), last = p.h.taps / 2 - 1;
        S plus[kAtOnce * kLanes], minus[kAtOnce * kLanes];
        for (std::int64_t phase = 0; phase < across.size; ++phase) {
            fir::MatrixSums<V, S>&of_plus = sums[2 * phase], &of_minus = sums[2 * phase + 1];
            for (fir::MatrixSums<V, S>* of : {&of_plus, &of_minus})
                of->set_inputs([&](std::int64_t t) { return xs.at(first + t) + skipped(phase); },
                               [&](std::int64_t t) { return xs.at(first + last - t) + skipped(phase); });
            sum_phase(
                phase, [&](std::int64_t k) { of_plus.sum(k, plus, kLanes), of_minus.sum(k, minus, kLanes); },
                [&](std::int64_t i, std::int64_t j) GE_INLINED {
                    const V a = load<V>(plus + j), b = load<V>(minus + j);
                    if (lines[0].to != nullptr) store(lines[0].to + i * kLanes, a + b, false);
                    if (lines[1].to != nullptr) store(lines[1].to + i * kLanes, a - b, false);
                });
        }
        for (const Line& c : lines) activate(c);
    }
};

}  // namespace filtered
}  // namespace GE_ISA
}  // namespace gan_engine
