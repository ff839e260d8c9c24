// The second half of filtered_lrelu: rows of y by the second filter, from a ring of rows of u.
#pragma once

#include <algorithm>
#include <vector>

#include "fir_matrix.h"
#include "fir_periods.h"
#include "fir_weights.h"
#include "rings.h"

namespace gan_engine {
namespace GE_ISA {
namespace filtered {

template <class T>
class RowsOfY {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

  public:
    const Upfirdn2dParams& p;
    const fir::Weights<S>& weights;
    const fir::Periods<S> across, down;
    const std::int64_t top, right;
    const std::int64_t u_begin, u_end, u_top;  // the columns of u that y needs, and the first row
    const std::int64_t u_bottom;               // from here on, the next tile writes the bits

    // Rows [top, bottom) and columns [left, right) of y.
    RowsOfY(const Upfirdn2dParams& p_, const fir::Weights<S>& weights_, std::int64_t top_, std::int64_t bottom,
            std::int64_t left, std::int64_t right_)
        : p(p_),
          weights(weights_),
          across(fir::axis<V>(p.w, left, p.separable, weights.across)),
          down(fir::axis<V>(p.h, top_, p.separable, weights.down)),
          top(top_),
          right(right_),
          u_begin(inside(across.base, p.w.in)),
          u_end(std::max(u_begin, inside(across.base + across.inputs(right), p.w.in))),
          u_top(inside(down.base, p.h.in)),
          u_bottom(bottom == p.h.out ? p.h.in : inside(down.first_input(bottom), p.h.in)),
          passes(fir::is_identity(p, weights)),
          pairs(p.h.up == 1 && fir::is_mirrored(p, weights)) {
        for (std::int64_t phase = 0; phase < (p.separable ? 0 : across.size); ++phase) {
            const std::int64_t o = across.origin + phase;
            sums.emplace_back(p.h.count(top) - half(), p.w.count(o), across.step, fir::TapsOf<S>(p, weights, top, o),
                              half());
        }
    }

    std::int64_t width_u() const {
        const std::int64_t behind = across.step * (p.separable ? 1 : fir::MatrixSums<V, S>::kAtOnce);
        return pitch_of(std::max(across.inputs(right), u_end - across.base) + behind);
    }
    // `made` rows of u are made at once.
    void lay_out(Pieces<S>& pieces, std::int64_t made) {
        us = {nullptr, pieces.take(width_u()), power_of_two(down.reach + made + 1), width_u() * kLanes, p.h.in};
        us.data = pieces.take(us.slots * width_u());
        blended = pieces.take(down.size * width_u());
        out_row = pieces.take(pitch_of((across.periods(right) + fir::MatrixSums<V, S>::kAtOnce) * across.size));
    }

    // Zeros where no row of u reaches.
    void clear() {
        std::fill_n(us.zeros, us.pitch, S(0));
        for (std::int64_t k = 0; k < us.slots; ++k) clear_sides(us.data + k * us.pitch);
        for (std::int64_t k = 0; k < down.size; ++k) clear_sides(blended + k * us.pitch);
    }

    // Column u_begin of row r of u.
    S* u_row(std::int64_t r) const { return us.row(r) + (u_begin - across.base) * kLanes; }

    // The rows of u that the period of row oy takes.
    std::int64_t first_input(std::int64_t oy) const { return down.base + (oy - top) / down.size * down.step; }
    std::int64_t behind_inputs(std::int64_t oy) const { return inside(first_input(oy) + down.reach, p.h.in); }

    // The vertical half of the filter, for the period of row oy.
    void blend(std::int64_t oy) {
        if (passes || !p.separable) return;
        const std::int64_t first = first_input(oy), skipped = (u_begin - across.base) * kLanes;
        for (const fir::Group<S>& group : down.groups) {
            rows.resize(group.inputs);
            for (std::int64_t t = 0; t < group.inputs; ++t) rows[t] = us.at(first + group.input + t) + skipped;
            const S* const* const at = rows.data();
            S* const to = blended + group.output * us.pitch + skipped;
            const std::int64_t pitch = us.pitch;
            fir::sum_group<V>(
                group, kLanes, u_end - u_begin, [=](std::int64_t t) GE_INLINED { return at[t]; },
                [=](int k, std::int64_t i, V sum) GE_INLINED { store(to + k * pitch + i * kLanes, sum, false); });
        }
    }

    // Row oy of y, which is row r of its period.
    const S* make(std::int64_t oy, std::int64_t r) {
        if (passes) return us.row(oy);
        if (!p.separable) return make_of_matrix(oy);
        const S* row = blended + r * us.pitch;
        for (const fir::Group<S>& group : across.groups)
            fir::sum_group<V>(
                group, across.step * kLanes, across.periods(right),
                [&](std::int64_t t) GE_INLINED { return row + (group.input + t) * kLanes; },
                [&](int k, std::int64_t i, V sum)
                    GE_INLINED { store(out_row + (i * across.size + group.output + k) * kLanes, sum, false); });
        return out_row;
    }

  private:
    const bool passes, pairs;
    Ring<S> us{};  // rows of u from column across.base on
    S *blended = nullptr, *out_row = nullptr;
    std::vector<fir::MatrixSums<V, S>> sums;  // for each phase across; without upsampling all rows have the same taps
    std::vector<const S*> rows;               // of u, that a row of y takes

    void clear_sides(S* row) const {
        const std::int64_t before = (u_begin - across.base) * kLanes, behind = (u_end - across.base) * kLanes;
        std::fill_n(row, before, S(0));
        std::fill_n(row + behind, us.pitch - behind, S(0));
    }

    // How many pairs of rows share their taps.
    std::int64_t half() const { return pairs ? p.h.taps / 2 : 0; }

    [[gnu::noinline]] const S* make_of_matrix(std::int64_t oy) {
        const std::int64_t first = down.first_input(oy);
        for (std::int64_t phase = 0; phase < across.size; ++phase) {
            const std::int64_t from = (across.first_input(across.origin + phase) - across.base) * kLanes;
            fir::MatrixSums<V, S>& of = sums[phase];
            of.set_inputs([&](std::int64_t y) { return us.at(first + y) + from; },
                          [&](std::int64_t y) { return us.at(first + p.h.taps - 1 - y) + from; });
            for (std::int64_t i = 0; i < across.periods(right); i += of.kAtOnce)
                of.sum(i, out_row + (phase + i * across.size) * kLanes, across.size * kLanes);
        }
        return out_row;
    }
};

}  // namespace filtered
}  // namespace GE_ISA
}  // namespace gan_engine
