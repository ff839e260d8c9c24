// How an FIR filter makes rows of planes [h, w].
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "fir.h"
#include "fir_many_taps.h"
#include "fir_taps.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// Planes by any filter; see Spread for their rows.
template <class Number>
class Planar {
  public:
    using S = Number;

    Planar(const Upfirdn2dParams& p_, Ends<S>& ends_)
        : p(p_), ends(ends_), along(p_.w), columns(along.columns), horizontal(columns.phases) {
        batch = std::clamp<std::int64_t>(kBatchBytes / (spread() * sizeof(S)), 1, kMostRows);
        many = has_more_taps(p, kFewTaps) && (columns.phases == 1 || paired());
        if (many) batch = std::max<std::int64_t>(batch / 2 * 2, 2);
        blended.resize(batch * spread());
        plain.resize(2 * (std::max(p.w.out, p.w.in) + 2 * kLanes));
        stream = streams(p, ends, p.w.out);
        if (many && columns.step > 1) together.resize(2 * together_pitch());
        foresee = foresees(p, ends);
    }
    std::int64_t planes() const { return p.n * p.c; }
    std::int64_t rows_at_once() const { return batch; }
    std::int64_t spread() const { return along.size(); }           // elements of a spread row
    std::int64_t raw() const { return round_up(p.w.in, kLanes); }  // elements of a row of x
    std::int64_t raw_step() const { return 1; }
    std::int64_t row_step() const { return p.w.in; }  // from a row of x to the next, in place
    const S* in_place(std::int64_t plane) const { return ends.x + plane * p.h.in * p.w.in; }
    Row in_row(std::int64_t plane, std::int64_t iy) const { return {plane / p.c, plane % p.c, 1, iy, 0, p.w.in}; }

    void clear_taps() { horizontal.clear(); }
    // The taps of a spread row, or of the row that `make` blends. `weight` are those of a row of the filter.
    void add_taps(const S* row, const S* weight) {
        for (std::int64_t r = 0; r < columns.phases; ++r)
            for (std::int64_t t = 0; t < p.w.count(r); ++t)
                horizontal.of_phase[r].push_back(
                    {row + along.place(p.w.first_input(r) + t), weight[p.w.first_tap(r) + t * p.w.up]});
    }

    void add_taps(const S* weight) {
        add_taps(blended.data, weight);
        phases.apart = p.w.up;
        for (int k = 0; k < 2 && many && paired(); ++k)
            phases.set(k, p.w.first_input(k) - columns.low, p.w.count(k), weight + p.w.first_tap(k), 0, kEverywhere);
    }

    // Rows [from, to) of y by a separable filter. vertical(oy) are the `count` taps on rows of x; 0 is any number.
    template <class Vertical>
    GE_INLINE void make(std::int64_t plane, std::int64_t from, std::int64_t to, int count, const Vertical& vertical) {
        if (many) return make_many(plane, from, to, vertical);
        // A batch of rows passes through one step after the other, so that no load waits for the stores just before it.
        with_count<S>(count, [&](auto taps) GE_INLINED {
            S* row = blended.data;
            for (std::int64_t oy = from; oy < to; ++oy, row += spread()) {
                const VerticalTaps<S> rows = vertical(oy);
                if (foresee) prefetch(p, rows.x, rows.first + rows.taps);
                blend<taps()>(rows, row);
            }
        });
        emit(plane, from, to - from);
    }
    // A row of y from the taps that add_taps was given.
    void emit_row(std::int64_t plane, std::int64_t oy) { emit(plane, oy, 1); }

    void spread_row(const VerticalTaps<S>& row, std::int64_t, S* to) { blend<0>(row, to); }

  private:
    using V = typename Wide<S>::Vec;
    using R = typename RegisterOf<S>::R;
    static constexpr int kWide = kLanesOf<R>;
    static constexpr std::int64_t kEverywhere = std::numeric_limits<std::int64_t>::max() / 2;
    static constexpr std::int64_t kBatchBytes = 12 << 10, kMostRows = 16, kFewTaps = 6;
    const Upfirdn2dParams& p;
    Ends<S>& ends;
    const Spread along;
    const Columns& columns;
    HorizontalTaps<S> horizontal;
    std::int64_t batch;
    bool stream, foresee, many;
    OutputPair<S> phases;        // outputs 0 and 1 of each period, where they share the inputs of a plain row
    Lines<S> blended, together;  // spread rows; two rows of many taps before they are spread
    std::vector<S> plain;

    std::int64_t together_pitch() const { return round_up(along.end - along.begin, 2 * kLanes); }
    bool paired() const { return columns.phases == 2 && columns.step == 1; }

    // `make` for many taps, two rows at once.
    template <class Vertical>
    void make_many(std::int64_t plane, std::int64_t from, std::int64_t to, const Vertical& vertical) {
        const std::int64_t n = along.end - along.begin;
        OutputPair<S> pair;
        S* row = blended.data;
        for (std::int64_t oy = from; oy < to; oy += 2, row += 2 * spread()) {
            const VerticalTaps<S> first = vertical(oy), second = vertical(std::min(oy + 1, to - 1));
            const bool both = oy + 1 < to;
            pair.apart = first.apart;
            pair.set(0, first.first, first.taps, first.weights, 0, first.height);
            pair.set(1, second.first, second.taps, second.weights, 0, second.height);
            if (!both) pair.set_alone();
            if (foresee) prefetch(p, first.x, second.first + second.taps);
            S* to_first = columns.step == 1 ? row + along.first : together.data;
            S* to_second = columns.step == 1 ? to_first + spread() : together.data + together_pitch();
            blend_pair(pair, first.x + along.begin, first.pitch, first.mask, n, to_first, both ? to_second : nullptr);
            if (columns.step == 1) continue;
            separate(to_first, n, row);
            if (both) separate(to_second, n, row + spread());
        }
        emit_many(plane, from, to - from);
    }
    // A plain row, as a spread row of several parts.
    void separate(const S* from, std::int64_t n, S* to) {
        if (columns.step > 2) {
            for (std::int64_t i = 0; i < n; ++i) to[along.place(along.begin + i)] = from[i];
            return;
        }
        S *even = to + along.first, *odd = to + along.second;
        for (std::int64_t i = 0; i < n; i += 2 * kWide, even += kWide, odd += kWide) {
            const R a = load<R>(from + i), b = load<R>(from + i + kWide);
            store(even, evens(a, b), false), store(odd, odds(a, b), false);
        }
    }
    void emit_many(std::int64_t plane, std::int64_t oy, std::int64_t rows) {
        if (paired())
            return emit_rows(plane, oy, rows, [&](std::int64_t shift, S* y) { emit_pair(blended.data + shift, y); });
        for (std::int64_t row = 0; row < rows; row += 2) {
            const bool both = row + 1 < rows;
            S* y[2];
            for (int k = 0; k < 2; ++k)
                y[k] = ends.y != nullptr ? ends.y + (plane * p.h.out + oy + row + k) * p.w.out
                                         : plain.data() + k * plain.size() / 2;
            if (!both) y[1] = nullptr;
            emit_two_rows(row * spread(), both ? spread() : 0, y[0], y[1]);
            for (int k = 0; k < 1 + both && ends.finishes; ++k)
                ends.out({plane / p.c, plane % p.c, 1, oy + row + k, 0, p.w.out}, y[k], 1);
        }
    }
    // A row of y that has two outputs for each input.
    void emit_pair(const S* row, S* y) {
        const S* from = row + along.place(columns.low);
        const std::int64_t w = p.w.out;
        in_registers<S>((w + 1) / 2, [&](auto block, std::int64_t i, auto left) GE_INLINED {
            using Reg = typename decltype(block)::R;
            constexpr int P = decltype(block)::P, kEach = kLanesOf<Reg>;
            Reg sums[2][P];
            sum_pair(
                phases, [&](std::int64_t s, int j) GE_INLINED { return load<Reg>(from + s + i + j * kEach); }, sums);
            S* to = y + 2 * i;
            const auto outputs = outputs_left(left, w - 2 * i);
            for (int j = 0; j < P; ++j) {
                put(to + 2 * j * kEach, interleave_low(sums[0][j], sums[1][j]), outputs - 2 * j * kEach, stream);
                put(to + (2 * j + 1) * kEach, interleave_high(sums[0][j], sums[1][j]), outputs - (2 * j + 1) * kEach,
                    stream);
            }
        });
    }
    // Two rows of y with one phase. The weights are the same.
    void emit_two_rows(std::int64_t shift, std::int64_t next, S* first, S* second) {
        const auto& taps = horizontal.of_phase[0];
        const std::int64_t count = std::int64_t(taps.size());
        in_registers<S>(p.w.out, [&](auto block, std::int64_t i, auto left) GE_INLINED {
            using Reg = typename decltype(block)::R;
            constexpr int P = decltype(block)::P, kEach = kLanesOf<Reg>;
            Reg sums[2][P];
            for (int k = 0; k < 2; ++k)
                for (int j = 0; j < P; ++j) sums[k][j] = Reg{};
            const std::int64_t at = shift + i;
            for (std::int64_t t = 0; t < count; ++t) {
                const Reg weight = splat<Reg>(taps[t].weight);
                const S* x = taps[t].at + at;
                for (int k = 0; k < 2; ++k)
                    for (int j = 0; j < P; ++j) sums[k][j] += weight * load<Reg>(x + k * next + j * kEach);
            }
            for (int j = 0; j < P; ++j) put(first + i + j * kEach, sums[0][j], left - j * kEach, stream);
            if (second == nullptr) return;
            for (int j = 0; j < P; ++j) put(second + i + j * kEach, sums[1][j], left - j * kEach, stream);
        });
    }

    // A weighted sum of rows of x, as a spread row.
    template <int N>
    GE_INLINE void blend(const VerticalTaps<S>& rows, S* to) {
        const Weigh<VerticalTaps<S>, N, 1> weigh(rows);
        const std::int64_t n = along.end - along.begin;
        if (columns.step == 1)
            add_up(weigh, 0, along.begin, n, to + along.first);
        else if (columns.step == 2)
            blend_halves(weigh, n, to + along.first, to + along.second);
        else
            blend_parts(weigh, n, to);
    }
    template <class W>
    GE_INLINE void blend_halves(const W& weigh, std::int64_t n, S* even, S* odd) {
        constexpr int kAtOnce = W::kAtOnce > 1 ? W::kAtOnce : 2;
        in_blocks<kAtOnce, 2>(n, n, [&](std::int64_t i, auto left, auto blocks) GE_INLINED {
            V v[blocks()];
            weigh(0, along.begin + i, left, v);
            for (int j = 0; j < blocks(); j += 2) {
                store(even + i / 2 + j / 2 * kLanes, evens(v[j], v[j + 1]), false);
                store(odd + i / 2 + j / 2 * kLanes, odds(v[j], v[j + 1]), false);
            }
        });
    }
    template <class W>
    GE_INLINE void blend_parts(const W& weigh, std::int64_t n, S* to) {
        add_up(weigh, 0, along.begin, n, plain.data());
        for (std::int64_t i = 0; i < n; ++i) to[along.place(along.begin + i)] = plain[i];
    }

    // `rows` rows of y from row oy on. Each next row reads one spread row further on.
    void emit(std::int64_t plane, std::int64_t oy, std::int64_t rows) {
        if (columns.phases > 2) return emit_rows(plane, oy, rows, [&](auto shift, S* y) { emit_phases(shift, y); });
        const bool same = horizontal.count(0) == horizontal.count(int(columns.phases - 1));
        with_count<S>(same ? horizontal.count(0) : 0, [&](auto count) GE_INLINED {
            if (columns.phases == 1) {
                const Weigh<HorizontalTaps<S>, count(), 1> weigh(horizontal);
                emit_rows(plane, oy, rows,
                          [&](auto shift, S* y) GE_INLINED { add_up_to_y(weigh, 0, shift, p.w.out, y, stream); });
            } else {
                const Weigh<HorizontalTaps<S>, count(), 2> weigh(horizontal);
                emit_rows(plane, oy, rows, [&](auto shift, S* y) GE_INLINED { emit_two(weigh, shift, y); });
            }
        });
    }
    template <class EmitRow>
    GE_INLINE void emit_rows(std::int64_t plane, std::int64_t oy, std::int64_t rows, const EmitRow& emit_row) {
        for (std::int64_t row = 0; row < rows; ++row) {
            S* y = ends.y != nullptr ? ends.y + (plane * p.h.out + oy + row) * p.w.out : plain.data();
            emit_row(row * spread(), y);
            if (ends.finishes) ends.out({plane / p.c, plane % p.c, 1, oy + row, 0, p.w.out}, y, 1);
        }
    }
    template <class W>
    GE_INLINE void emit_two(const W& weigh, std::int64_t shift, S* y) {
        const std::int64_t w = p.w.out;
        in_blocks<W::kAtOnce, 1>((w + 1) / 2, w / 2, [&](std::int64_t i, auto left, auto blocks) GE_INLINED {
            V a[blocks()], b[blocks()];
            weigh(0, shift + i, Enough(), a);
            weigh(1, shift + i, Enough(), b);
            for (int j = 0; j < blocks(); ++j) {
                const std::int64_t o = 2 * (i + j * kLanes);
                const auto outputs = outputs_left(left, w - o);
                put(y + o, interleave_low(a[j], b[j]), outputs, stream);
                put(y + o + kLanes, interleave_high(a[j], b[j]), outputs - kLanes, stream);
            }
        });
    }
    static GE_INLINE Enough outputs_left(Enough e, std::int64_t) { return e; }
    static GE_INLINE std::int64_t outputs_left(std::int64_t, std::int64_t left) { return left; }

    void emit_phases(std::int64_t shift, S* y) {
        std::vector<S> of_phase(columns.outputs(0) + kLanes);
        for (std::int64_t r = 0; r < columns.phases; ++r) {
            add_up_to_y(Weigh<HorizontalTaps<S>, 0, 1>(horizontal), int(r), shift, columns.outputs(r), of_phase.data(),
                        false);
            for (std::int64_t i = 0, o = r; o < p.w.out; ++i, o += columns.phases) y[o] = of_phase[i];
        }
    }
};

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
