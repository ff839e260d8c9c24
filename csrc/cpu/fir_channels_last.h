// How an FIR filter makes rows of images [h, w, c].
#pragma once

#include <algorithm>
#include <vector>

#include "fir.h"
#include "fir_taps.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// A plane is a block of channels of an image. A separable filter goes through a row in strips, whose blended pixels fit
// into the first-level cache. A spread row has the inputs low, low + 1, ... of the horizontal axis, with the zeros
// around them, and `block` elements for each pixel.
template <class Number>
class ChannelsLast {
  public:
    using S = Number;

    ChannelsLast(const Upfirdn2dParams& p_, Ends<S>& ends_)
        : p(p_), ends(ends_), columns(p_.w), horizontal(columns.phases) {
        blocks = (p.c + kMostChannels - 1) / kMostChannels;
        block = blocks == 1 ? p.c : round_up((p.c + blocks - 1) / blocks, kLanes);
        const std::int64_t periods = kStripBytes / std::int64_t(block * sizeof(S)) / columns.step;
        strip = p.separable ? std::clamp(periods * columns.phases, columns.phases, p.w.out) : p.w.out;
        blended.resize(columns.reach(strip) * block + kLanes);
        stream = streams(p, ends, p.c);
        if (ends.y == nullptr) made.resize(strip * block + kLanes);
    }
    std::int64_t planes() const { return p.n * blocks; }
    std::int64_t rows_at_once() const { return 1; }
    std::int64_t spread() const { return columns.reach(p.w.out) * block + kLanes; }  // elements of a spread row
    std::int64_t raw() const { return (p.w.in - 1) * raw_step() + block + kLanes; }  // elements of a row of x
    std::int64_t raw_step() const { return ends.x != nullptr ? p.c : block; }
    std::int64_t row_step() const { return p.w.in * p.c; }  // from a row of x to the next, in place
    const S* in_place(std::int64_t plane) const {
        return ends.x + plane / blocks * p.h.in * p.w.in * p.c + plane % blocks * block;
    }
    Row in_row(std::int64_t plane, std::int64_t iy) const {
        return {plane / blocks, plane % blocks * block, channels(plane), iy, 0, p.w.in};
    }

    void clear_taps() { horizontal.clear(); }
    // The taps of a spread row, or of the row that `make` blends. `weight` are those of a row of the filter.
    void add_taps(const S* row, const S* weight) {
        for (std::int64_t r = 0; r < columns.phases; ++r)
            for (std::int64_t t = 0; t < p.w.count(r); ++t)
                horizontal.of_phase[r].push_back(
                    {row + (p.w.first_input(r) + t - columns.low) * block, weight[p.w.first_tap(r) + t * p.w.up]});
    }

    void add_taps(const S* weight) { add_taps(blended.data, weight); }

    // Rows [from, to) of y by a separable filter. vertical(oy) are the taps on rows of x.
    template <class Vertical>
    GE_INLINE void make(std::int64_t plane, std::int64_t from, std::int64_t to, int, const Vertical& vertical) {
        for (std::int64_t oy = from; oy < to; ++oy) {
            const VerticalTaps<S> rows = vertical(oy);
            for (std::int64_t o = 0; o < p.w.out; o += strip) {
                const std::int64_t n = std::min(strip, p.w.out - o);
                blend(rows, columns.low + o / columns.phases * columns.step, columns.reach(n), channels(plane),
                      blended.data);
                emit(plane, oy, o, n);
            }
        }
    }
    // A row of y from the taps that add_taps was given.
    void emit_row(std::int64_t plane, std::int64_t oy) { emit(plane, oy, 0, p.w.out); }

    void spread_row(const VerticalTaps<S>& row, std::int64_t plane, S* to) {
        blend(row, columns.low, columns.reach(p.w.out), channels(plane), to);
    }

  private:
    static constexpr std::int64_t kStripBytes = 8 << 10;
    const Upfirdn2dParams& p;
    Ends<S>& ends;
    const Columns columns;
    HorizontalTaps<S> horizontal;
    std::int64_t block, blocks, strip;  // channels of a block, blocks of an image, outputs of a strip
    bool stream;
    Lines<S> blended;
    std::vector<S> made;

    std::int64_t channels(std::int64_t plane) const { return std::min(block, p.c - plane % blocks * block); }

    // A weighted sum of rows of x with n channels: inputs low, ..., low + reach - 1 as a spread row.
    void blend(const VerticalTaps<S>& rows, std::int64_t low, std::int64_t reach, std::int64_t n, S* to) {
        const std::int64_t left = std::clamp<std::int64_t>(-low, 0, reach), begin = low + left, step = raw_step();
        const std::int64_t pixels = std::clamp<std::int64_t>(p.w.in - begin, 0, reach - left);
        S* inside = to + left * block;
        with_count<S>(rows.taps, [&](auto count) GE_INLINED {
            const Weigh<VerticalTaps<S>, count(), 1> weigh(rows);
            if (step == n && block == n) return add_up(weigh, 0, begin * step, pixels * n, inside);
            for (std::int64_t i = 0; i < pixels; ++i) add_up(weigh, 0, (begin + i) * step, n, inside + i * block);
        });
        std::fill(to, inside, S(0));
        std::fill(inside + pixels * block, to + reach * block, S(0));
    }

    // Outputs o, ..., o + n - 1 of row oy of y.
    void emit(std::int64_t plane, std::int64_t oy, std::int64_t o, std::int64_t n) {
        const Row row{plane / blocks, plane % blocks * block, channels(plane), oy, o, n};
        const std::int64_t step = ends.y != nullptr ? p.c : block;
        S* y = ends.y != nullptr ? ends.y + Place<true>(row, p.c, p.h.out, p.w.out).element : made.data();
        for (int r = 0; r < int(columns.phases); ++r)
            with_count<S>(horizontal.count(r), [&](auto count) GE_INLINED {
                const Weigh<HorizontalTaps<S>, count(), 1> weigh(horizontal, r);
                // All pixels are one run, or each is a run.
                const bool one = columns.phases == 1 && columns.step == 1 && step == row.channels && block == step;
                const std::int64_t length = one ? n * step : row.channels, runs = one ? 1 : n;
                std::int64_t from = 0;
                for (std::int64_t i = r; i < runs; i += columns.phases, from += columns.step * block)
                    add_up_to_y(weigh, 0, from, length, y + i * step, stream);
            });
        if (ends.finishes) ends.out(row, y, step);
    }
};

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
