// How an FIR filter makes rows of images [h, w, c].
#pragma once

#include <algorithm>
#include <vector>

#include "fir.h"
#include "fir_many_taps.h"
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
        many = has_more_taps(p, kFewTaps);
        if (many) lay_out_many();
        blended.resize(many ? batch * row_pitch() : columns.reach(strip) * block + kLanes);
        stream = streams(p, ends, p.c);
        if (ends.y == nullptr) made.resize((many ? p.w.out : strip) * block + kLanes);
    }
    std::int64_t planes() const { return p.n * blocks; }
    std::int64_t rows_at_once() const { return batch; }
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

    void add_taps(const S* weight) {
        if (!many) return add_taps(blended.data, weight);
        for (std::int64_t o = 0; o < p.w.out; o += 2) {
            OutputPair<S> pair;
            pair.apart = p.w.up;
            for (int k = 0; k < std::min<std::int64_t>(2, p.w.out - o); ++k)
                pair.set(k, p.w.first_input(o + k), p.w.count(o + k), weight + p.w.first_tap(o + k), inside.low,
                         inside.high);
            if (o + 1 == p.w.out) pair.set_alone();
            pairs.push_back(pair);
        }
    }

    // Rows [from, to) of y by a separable filter. vertical(oy) are the taps on rows of x.
    template <class Vertical>
    GE_INLINE void make(std::int64_t plane, std::int64_t from, std::int64_t to, int, const Vertical& vertical) {
        if (many) return make_many(plane, from, to, vertical);
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
    static constexpr std::int64_t kStripBytes = 8 << 10, kBatchBytes = 128 << 10, kRun = 256, kFewTaps = 4;
    const Upfirdn2dParams& p;
    Ends<S>& ends;
    const Columns columns;
    HorizontalTaps<S> horizontal;
    std::int64_t block, blocks, strip;  // channels of a block, blocks of an image, outputs of a strip
    std::int64_t batch = 1;             // rows at once
    bool stream, many;
    Lines<S> blended;
    std::vector<S> made;
    // For many taps: the inputs inside x that y needs, and the pairs of outputs of a row.
    struct {
        std::int64_t low, high;
    } inside{};
    std::vector<OutputPair<S>> pairs;

    std::int64_t channels(std::int64_t plane) const { return std::min(block, p.c - plane % blocks * block); }

    void lay_out_many() {
        inside.low = std::clamp<std::int64_t>(columns.low, 0, p.w.in);
        inside.high = std::clamp<std::int64_t>(columns.low + columns.reach(p.w.out), inside.low, p.w.in);
        batch = std::clamp<std::int64_t>(kBatchBytes / std::int64_t(row_pitch() * sizeof(S)) / 2 * 2, 2, 8);
    }
    std::int64_t row_pitch() const { return round_up((inside.high - inside.low) * block + 2 * kLanes, kLanes); }

    // `make` for many taps: rows of the inputs inside x, two at once, and then pairs of outputs.
    template <class Vertical>
    void make_many(std::int64_t plane, std::int64_t from, std::int64_t to, const Vertical& vertical) {
        const std::int64_t step = raw_step(), count = channels(plane), pixels = inside.high - inside.low;
        const bool plain = step == count && block == count;  // all pixels of a row are neighbours
        const std::int64_t runs = plain ? (pixels * count + kRun - 1) / kRun : pixels;
        for (std::int64_t run = 0; run < runs; ++run) {
            const std::int64_t n = plain ? std::min(kRun, pixels * count - run * kRun) : count;
            const std::int64_t x = inside.low * step + run * (plain ? kRun : step), at = run * (plain ? kRun : block);
            for (std::int64_t oy = from; oy < to; oy += 2) {
                const VerticalTaps<S> one = vertical(oy), two = vertical(std::min(oy + 1, to - 1));
                OutputPair<S> pair;
                pair.apart = one.apart;
                pair.set(0, one.first, one.taps, one.weights, 0, one.height);
                pair.set(1, two.first, two.taps, two.weights, 0, two.height);
                if (oy + 1 == to) pair.set_alone();
                S* y = blended.data + (oy - from) * row_pitch() + at;
                blend_pair(pair, one.x + x, one.pitch, one.mask, n, y, oy + 1 < to ? y + row_pitch() : nullptr);
            }
        }
        for (std::int64_t oy = from; oy < to; ++oy) emit_pairs(plane, oy, blended.data + (oy - from) * row_pitch());
    }
    void emit_pairs(std::int64_t plane, std::int64_t oy, const S* row) {
        const Row of{plane / blocks, plane % blocks * block, channels(plane), oy, 0, p.w.out};
        const std::int64_t step = ends.y != nullptr ? p.c : block;
        S* y = ends.y != nullptr ? ends.y + Place<true>(of, p.c, p.h.out, p.w.out).element : made.data();
        row -= inside.low * block;
        for (std::int64_t o = 0; o < p.w.out; o += 2) {
            S* first = y + o * step;
            emit_pair(pairs[o / 2], row, of.channels, first, o + 1 < p.w.out ? first + step : nullptr);
        }
        if (ends.finishes) ends.out(of, y, step);
    }
    void emit_pair(const OutputPair<S>& pair, const S* row, std::int64_t n, S* first, S* second) {
        in_registers<S>(n, [&](auto regs, std::int64_t i, auto left) GE_INLINED {
            using R = typename decltype(regs)::R;
            constexpr int P = decltype(regs)::P, kEach = kLanesOf<R>;
            R sums[2][P];
            sum_pair(
                pair, [&](std::int64_t s, int j) GE_INLINED { return load<R>(row + s * block + i + j * kEach); }, sums);
            for (int j = 0; j < P; ++j) put(first + i + j * kEach, sums[0][j], left - j * kEach, stream);
            if (second == nullptr) return;
            for (int j = 0; j < P; ++j) put(second + i + j * kEach, sums[1][j], left - j * kEach, stream);
        });
    }

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
