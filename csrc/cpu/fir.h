// The loops of an FIR filter. The operators upfirdn2d and upfirdn2d_act say what happens to a number on its way in and
// out.
//
// A row of y needs a few rows of x, and the next row of y needs mostly the same ones. Each row of x is staged once, in
// the cache: widened, with the zeros around it, and so laid out that a tap is a plain vector load. A separable filter
// blends the staged rows into one, and takes its horizontal taps from that row. Any other filter takes all its taps
// from the staged rows.
//
//     x  --stage-->  rows  --blend-->  row  --emit-->  y
//
// Every element of x is staged once, and twice where the shares of two threads meet. Every element of y is emitted
// once. In both places a row passes through the `Ends` that the filter was given. A row consists of runs of neighbours
// in memory: one run, the pixels of a channel; or, where the channels come last, one run of channels for each pixel.
//
//     auto in = ends.in(row, own);    // own: this thread alone counts the row as its own
//     auto run = in.run(k);           // the run of pixel k, or the only run
//     v = run(i, left, v);            // elements i, ..., i + 15 of the run; `left` of them are inside x
//     run.end();
//     in.done();                      // after the last run of the row
//
//     auto out = ends.out(row);       // the same steps, except for this one:
//     run(i, left, v);                // stores v; `left` elements are inside y: all of them, some, or none
//
// Ends::kReadsAll: every element of x passes `in` exactly once with own = true, even if no element of y needs it.
#pragma once

#include "../upfirdn2d.h"

#include <algorithm>
#include <vector>

#include "fir_layouts.h"
#include "fir_taps.h"
#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// Cache for the rows of a batch: this much for staged rows, and this much for blended rows.
constexpr std::int64_t kBatchBytes = 12 << 10;

// Correlation weights, [taps] or [h.taps, w.taps]. The horizontal weights include the gain.
template <class S>
struct Weights {
    std::vector<S> vertical, horizontal;

    GE_INLINE explicit Weights(const Upfirdn2dParams& p) {
        const std::int64_t size = p.separable ? p.w.taps : p.h.taps * p.w.taps;
        vertical.resize(size), horizontal.resize(size);
        for (std::int64_t k = 0; k < size; ++k) {
            vertical[k] = S(p.f[p.flip ? k : size - 1 - k]);
            horizontal[k] = S(vertical[k] * p.gain);
        }
    }
};

// The rows of x that a row of y takes: begin, ..., end - 1, with the taps tap, tap + up, ...
struct Window {
    std::int64_t tap, begin, end;
};

GE_INLINE std::vector<Window> windows_of(const FirAxis& h) {
    std::vector<Window> windows(h.out);
    for (std::int64_t oy = 0; oy < h.out; ++oy) {
        const std::int64_t top = h.first_input(oy), begin = std::clamp<std::int64_t>(top, 0, h.in);
        windows[oy] = {h.first_tap(oy) + (begin - top) * h.up, begin, std::min(top + h.count(oy), h.in)};
    }
    return windows;
}

// Memory of the blended rows of a batch, then a ring of staged rows. Rows start at lines of the cache. Elements that
// `stage` does not write stay 0.
template <class S>
struct RowMemory {
    std::int64_t pitch, batch, slots = 1;  // elements of a row, rows of a batch, rows of the ring
    std::vector<S> memory;
    S* blended;

    GE_INLINE RowMemory(const FirAxis& h, std::int64_t staged) {
        const std::int64_t line = 64 / sizeof(S);
        pitch = round_up(staged, kLanes) + 2 * kLanes;
        batch = std::clamp<std::int64_t>(kBatchBytes / (pitch * sizeof(S)), 1, 8);
        while (slots < ((batch - 1) * h.down + h.taps + h.up - 1) / h.up + 1) slots *= 2;
        memory.resize((slots + batch) * pitch + line);
        blended = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64 / sizeof(S);
    }
    GE_INLINE S* row(std::int64_t iy) const { return blended + (batch + (iy & (slots - 1))) * pitch; }
};

// The stages are inlined into one function, except where a function of its own has the registers it needs.
template <class Layout>
class Filter {
  public:
    GE_INLINE Filter(const Upfirdn2dParams& p_, Layout& layout_)
        : p(p_),
          layout(layout_),
          weights(p),
          windows(windows_of(p.h)),
          rows(p.h, layout.staged()),
          taps(layout.across().phases, Taps<S>(weights.vertical.size())),
          down(p.h.taps) {
        const Columns& across = layout.across();
        for (std::int64_t r = 0; r < across.phases; ++r)
            for (std::int64_t t = 0; t < p.w.count(r); ++t)
                columns.push_back(
                    {r, layout.place(p.w.first_input(r) + t - across.low), p.w.first_tap(r) + t * p.w.up});
        if (p.separable) add_taps(rows.blended, weights.horizontal.data());
    }

    // Makes rows [first, last) of all planes, one after the other.
    GE_INLINE void run(std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last;) {
            const std::int64_t start = i % p.h.out, stop = std::min(p.h.out, start + last - i);
            filter_plane(i / p.h.out, start, stop);
            i += stop - start;
        }
    }

  private:
    using S = typename Layout::S;
    using V = typename Layout::V;

    // A horizontal tap of a phase: its place in a staged row, and its number in the filter.
    struct Tap {
        std::int64_t phase, place, k;
    };

    const Upfirdn2dParams& p;
    Layout& layout;
    const Weights<S> weights;
    const std::vector<Window> windows;
    RowMemory<S> rows;
    std::vector<Tap> columns;   // all horizontal taps
    std::vector<Taps<S>> taps;  // of each phase
    Taps<S> down;

    GE_INLINE void add_taps(const S* staged, const S* weight) {
        Taps<S>* const of_phase = taps.data();
        for (const Tap& tap : columns) of_phase[tap.phase].add(staged + tap.place, weight[tap.k]);
    }

    // Rows [start, stop) of y. A batch of rows passes through one step after the other, so that no load waits for the
    // stores just before it.
    GE_INLINE void filter_plane(std::int64_t plane, std::int64_t start, std::int64_t stop) {
        std::int64_t staged = start == 0 ? 0 : windows[start].begin;                 // the first row that is not staged
        const std::int64_t others = stop == p.h.out ? p.h.in : windows[stop].begin;  // the first row of the next share
        for (std::int64_t from = start; from < stop; from += rows.batch) {
            const std::int64_t to = std::min(from + rows.batch, stop);
            for (std::int64_t oy = from; oy < to; ++oy) {
                if (!Layout::kReadsAll) staged = std::max(staged, windows[oy].begin);
                for (; staged < windows[oy].end; ++staged)
                    layout.stage(plane, staged, staged < others, rows.row(staged));
            }
            if (p.separable) {
                for (std::int64_t oy = from; oy < to; ++oy) blend(windows[oy], rows.blended + (oy - from) * rows.pitch);
                layout.emit(plane, from, to - from, rows.pitch, taps);
            } else {
                for (std::int64_t oy = from; oy < to; ++oy) emit_from_staged(plane, oy);
            }
        }
        for (; Layout::kReadsAll && staged < others; ++staged) layout.stage(plane, staged, true, rows.row(staged));
    }

    // The vertical taps of a separable filter: a weighted sum of staged rows.
    GE_INLINE void blend(const Window& window, S* into) {
        down.count = 0;
        for (std::int64_t iy = window.begin, k = window.tap; iy < window.end; ++iy, k += p.h.up)
            down.add(rows.row(iy), weights.vertical[k]);
        with_count<S>(down.count, [&](auto count) {
            const Weigh<V, S, count(), 1> weigh(&down);
            weigh(0, layout.staged(), [&](std::int64_t j, const V* sums) { store(into + j, sums[0], false); });
        });
    }

    // A row of y by a filter that is not separable.
    [[gnu::noinline]] void emit_from_staged(std::int64_t plane, std::int64_t oy) {
        for (Taps<S>& t : taps) t.count = 0;
        const Window& window = windows[oy];
        for (std::int64_t iy = window.begin, k = window.tap; iy < window.end; ++iy, k += p.h.up)
            add_taps(rows.row(iy), &weights.horizontal[k * p.w.taps]);
        layout.emit(plane, oy, 1, 0, taps);
    }
};

// The number of threads for a filter.
inline int parts(const Upfirdn2dParams& p, int threads) {
    return threads_for(p.n * p.c * std::max(p.h.in * p.w.in, p.h.out * p.w.out), threads);
}

// Makes share `part` of `parts` shares of y.
template <template <class> class Layout, class Ends>
void filter(const Upfirdn2dParams& p, int part, int parts, const Ends& ends) {
    Layout<Ends> layout(p, ends);
    const std::int64_t rows = layout.planes() * p.h.out;
    Filter<Layout<Ends>>(p, layout).run(rows * part / parts, rows * (part + 1) / parts);
}

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
