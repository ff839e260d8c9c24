// The loops of an FIR filter, with a place for what is done to its numbers on their way in and out.
//
// A row of y needs a few rows of x, and the next row of y mostly the same ones. Each is staged once, in the cache:
// widened, with the zeros around it, and so laid out that a tap is a plain vector load. A separable filter then blends
// the staged rows into one, and takes its horizontal taps from that; any other takes all its taps from the staged rows.
//
//     x  --stage-->  rows  --blend-->  row  --emit-->  y
//
// Every element of x passes `stage` once (once more where two threads meet), every element of y passes `emit` once, and
// there a row of them meets the `Ends` that the filter was given. A row is one run of neighbours in memory, pixels of a
// channel, or where the channels come last a run for each pixel, channels of it:
//
//     auto in = ends.in(row, own);    // own: no other thread has this row, or has it as its own
//     auto run = in.run(k);           // the run of pixel k, or of all pixels
//     v = run(i, left, v);            // elements i, ..., i + 15 of the run, of which `left` are inside x
//     run.end();
//     in.done();                      // with the row
//
//     auto out = ends.out(row);       // and so on, but
//     run(i, left, v);                // stores v, of which `left` are inside y, some of them or none
//
// Ends::kEvery says that every element of x is to pass `in` with own = true exactly once, also those that no element of
// y needs.
#pragma once

#include "../upfirdn2d.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

// Row y of an image, of one channel, or where they come last of a block of `channels`, the first of which is `channel`.
struct Row {
    std::int64_t image, channel, channels, y;
};

namespace fir {

// Of a block, where the channels come last.
inline constexpr std::int64_t kMostChannels = 256;

// What the rows of a batch may take of the cache, each of what is staged and what is blended.
constexpr std::int64_t kBatchBytes = 12 << 10;

// A weighted sum over addresses: that of vector i is the sum of weight[t] * load(at[t] + i).
template <class S>
struct Taps {
    std::vector<const S*> at;
    std::vector<S> weight;
    int count = 0;

    explicit Taps(std::int64_t most) : at(most), weight(most) {}
    void add(const S* address, S w) { at[count] = address, weight[count++] = w; }
};

// sink(i, sums), sums[k] by taps[k] for vector shift + i, for i = 0, 16, ... below n. N is the number of taps, 0 where
// the compiler does not know it.
template <class V, class S, int N, int K>
struct Weigh {
    const S* at[K][N];
    V weight[K][N];

    explicit Weigh(const Taps<S>* taps) {
        for (int k = 0; k < K; ++k)
            for (int t = 0; t < N; ++t) at[k][t] = taps[k].at[t], weight[k][t] = splat<V>(taps[k].weight[t]);
    }
    template <class Sink>
    void operator()(std::int64_t shift, std::int64_t n, const Sink& sink) const {
        for (std::int64_t i = 0; i < n; i += kLanes) {
            V sums[K];
            for (int k = 0; k < K; ++k) {
                sums[k] = weight[k][0] * load(at[k][0] + shift + i);
                for (int t = 1; t < N; ++t) sums[k] += weight[k][t] * load(at[k][t] + shift + i);
            }
            sink(i, sums);
        }
    }
};

template <class V, class S, int K>
struct Weigh<V, S, 0, K> {
    const Taps<S>* taps;

    explicit Weigh(const Taps<S>* taps_) : taps(taps_) {}
    template <class Sink>
    void operator()(std::int64_t shift, std::int64_t n, const Sink& sink) const {
        // Four vectors at once share each weight.
        constexpr int kAtOnce = 4;
        std::int64_t i = 0;
        for (; i + kAtOnce * kLanes <= n; i += kAtOnce * kLanes) {
            V sums[kAtOnce][K] = {};
            for (int k = 0; k < K; ++k)
                for (int t = 0; t < taps[k].count; ++t) {
                    const V weight = splat<V>(taps[k].weight[t]);
                    const S* at = taps[k].at[t] + shift + i;
                    for (int j = 0; j < kAtOnce; ++j) sums[j][k] += weight * load(at + j * kLanes);
                }
            for (int j = 0; j < kAtOnce; ++j) sink(i + j * kLanes, sums[j]);
        }
        for (; i < n; i += kLanes) {
            V sums[K] = {};
            for (int k = 0; k < K; ++k)
                for (int t = 0; t < taps[k].count; ++t)
                    sums[k] += splat<V>(taps[k].weight[t]) * load(taps[k].at[t] + shift + i);
            sink(i, sums);
        }
    }
};

// Calls run with the number of taps as a compile-time constant where it is a frequent one, else with 0.
template <class Run>
void with_count(int count, const Run& run) {
    switch (count) {
        case 1: return run(std::integral_constant<int, 1>());
        case 2: return run(std::integral_constant<int, 2>());
        case 3: return run(std::integral_constant<int, 3>());
        case 4: return run(std::integral_constant<int, 4>());
        default: return run(std::integral_constant<int, 0>());
    }
}

inline std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// Where a row begins: its first element, and from there to those of the next run.
template <bool channels_last>
struct Place {
    std::int64_t element, step, pixel;  // pixel: counted over all images, of one channel

    Place(const Row& row, std::int64_t channels, std::int64_t h, std::int64_t w) {
        pixel = (row.image * h + row.y) * w;
        element =
            channels_last ? pixel * channels + row.channel : ((row.image * channels + row.channel) * h + row.y) * w;
        step = channels_last ? channels : 0;
    }
};

// What an end is that does nothing to the numbers on their way in.
template <class V>
struct Untouched {
    Untouched run(std::int64_t) const { return {}; }
    V operator()(std::int64_t, std::int64_t, V v) const { return v; }
    void end() const {}
    void done() const {}
};

// The horizontal axis: output i * phases + r takes its taps as output r does, i * step inputs further on.
struct Columns {
    FirAxis axis;
    std::int64_t phases, step;
    std::int64_t low, reach;  // the inputs in use, inside x and outside, are low, ..., low + reach - 1
    std::int64_t begin, end;  // of these, the ones inside x

    Columns(const FirAxis& a, bool every) : axis(a) {
        const std::int64_t common = std::gcd(a.up, a.down);
        phases = a.up / common, step = a.down / common;
        low = a.first_input(0), reach = 1;
        for (std::int64_t o = a.out > phases ? a.out - phases : 0; o < a.out; ++o)
            reach = std::max(reach, a.first_input(o) + a.count(o) - low);
        if (every) {
            const std::int64_t last = std::max(low + reach, a.in);
            low = std::min<std::int64_t>(low, 0), reach = last - low;
        }
        begin = std::max<std::int64_t>(low, 0), end = std::max(begin, std::min(a.in, low + reach));
    }
    std::int64_t outputs(std::int64_t r) const { return (axis.out - r + phases - 1) / phases; }
};

// Planes of [h, w]. A staged row is `step` rows, the k-th with inputs low + k, low + k + step, ..., `span` apart.
template <class Ends>
class Planar {
  public:
    using T = typename Ends::T;
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

    Planar(const Upfirdn2dParams& p_, Ends ends_) : p(p_), ends(ends_), columns(p_.w, Ends::kEvery) {
        span = (columns.reach + columns.step - 1) / columns.step;
        if (columns.phases > 2) wide.resize(round_up(p.w.out, kLanes));
    }
    std::int64_t planes() const { return p.n * p.c; }
    const Columns& across() const { return columns; }
    std::int64_t staged() const { return columns.step * span; }

    void stage(std::int64_t plane, std::int64_t iy, bool own, S* to) {
        const T* x = static_cast<const T*>(p.x) + (plane * p.h.in + iy) * p.w.in + columns.begin;
        const std::int64_t n = columns.end - columns.begin, at = columns.begin - columns.low, step = columns.step;
        auto in = ends.in(Row{plane / p.c, plane % p.c, 1, iy}, own);
        auto run = in.run(0);
        const auto some = [&](std::int64_t i) { return run(i, n - i, load_up_to<V>(x + i, n - i)); };
        if (step == 1) {
            for (std::int64_t i = 0; i < n; i += kLanes) store(to + at + i, some(i), false);
        } else if (step == 2) {
            S* even = to + at % 2 * span + at / 2;
            S* odd = to + (at + 1) % 2 * span + (at + 1) / 2;
            for (std::int64_t i = 0; i < n; i += 2 * kLanes) {
                const V a = some(i), b = some(i + kLanes);
                store_up_to(even + i / 2, (n - i + 1) / 2, evens(a, b));
                store_up_to(odd + i / 2, (n - i) / 2, odds(a, b));
            }
        } else {
            for (std::int64_t i = 0; i < n; i += kLanes) {
                const V v = some(i);
                for (std::int64_t k = 0, j = at + i; k < kLanes && i + k < n; ++k, ++j)
                    to[j % step * span + j / step] = v[k];
            }
        }
        run.end();
        in.done();
    }

    // Where input low + i stands in a staged row; input low + i + step stands one further on.
    std::int64_t place(std::int64_t i) const { return i % columns.step * span + i / columns.step; }

    // `rows` rows of y from row oy on; taps[r] are those of output r in row oy, and those of the row below are `pitch`
    // further on.
    void emit(std::int64_t plane, std::int64_t oy, std::int64_t rows, std::int64_t pitch,
              const std::vector<Taps<S>>& taps) {
        const std::int64_t n = columns.outputs(0), w = p.w.out;
        // body(run) makes a row of y.
        const auto with_row = [&](std::int64_t row, const auto& body) {
            auto out = ends.out(Row{plane / p.c, plane % p.c, 1, oy + row});
            auto run = out.run(0);
            body(run);
            run.end();
            out.done();
        };
        if (columns.phases == 1) {
            with_count(taps[0].count, [&](auto count) {
                const Weigh<V, S, count(), 1> weigh(taps.data());
                for (std::int64_t row = 0; row < rows; ++row)
                    with_row(row, [&](auto& run) {
                        weigh(row * pitch, n, [&](std::int64_t i, const V* sums) { run(i, w - i, sums[0]); });
                    });
            });
        } else if (columns.phases == 2) {
            with_count(taps[0].count == taps[1].count ? taps[0].count : 0, [&](auto count) {
                const Weigh<V, S, count(), 2> weigh(taps.data());
                for (std::int64_t row = 0; row < rows; ++row)
                    with_row(row, [&](auto& run) {
                        weigh(row * pitch, n, [&](std::int64_t i, const V* sums) {
                            run(2 * i, w - 2 * i, interleave_low(sums[0], sums[1]));
                            run(2 * i + kLanes, w - 2 * i - kLanes, interleave_high(sums[0], sums[1]));
                        });
                    });
            });
        } else {
            for (std::int64_t row = 0; row < rows; ++row) {
                for (std::int64_t r = 0; r < columns.phases; ++r) {
                    const Weigh<V, S, 0, 1> weigh(&taps[r]);
                    weigh(row * pitch, columns.outputs(r), [&](std::int64_t i, const V* sums) {
                        for (std::int64_t k = 0, o = i * columns.phases + r; k < kLanes && o < p.w.out;
                             ++k, o += columns.phases)
                            wide[o] = sums[0][k];
                    });
                }
                with_row(row, [&](auto& run) {
                    for (std::int64_t i = 0; i < w; i += kLanes) run(i, w - i, load(&wide[i]));
                });
            }
        }
    }

  private:
    const Upfirdn2dParams& p;
    Ends ends;
    Columns columns;
    std::int64_t span;
    std::vector<S> wide;
};

// Planes of [h, w, c], here `block` channels at a time, which is what is staged of a pixel.
template <class Ends>
class Interleaved {
  public:
    using T = typename Ends::T;
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

    Interleaved(const Upfirdn2dParams& p_, Ends ends_) : p(p_), ends(ends_), columns(p_.w, Ends::kEvery) {
        const std::int64_t most =
            columns.reach * kCached * std::int64_t(sizeof(S)) <= kRowBytes ? kCached : kSequential;
        blocks = (p.c + most - 1) / most;
        block = round_up((p.c + blocks - 1) / blocks, kLanes);
    }
    std::int64_t planes() const { return p.n * blocks; }
    const Columns& across() const { return columns; }
    std::int64_t staged() const { return columns.reach * block; }

    void stage(std::int64_t plane, std::int64_t iy, bool own, S* to) {
        const std::int64_t first = plane % blocks * block, n = std::min(block, p.c - first);
        const T* x = static_cast<const T*>(p.x) + (plane / blocks * p.h.in + iy) * p.w.in * p.c + first;
        auto in = ends.in(Row{plane / blocks, first, n, iy}, own);
        for (std::int64_t ix = columns.begin; ix < columns.end; ++ix) {
            auto run = in.run(ix);
            for (std::int64_t c = 0; c < n; c += kLanes) {
                const V v = run(c, n - c, load_up_to<V>(x + ix * p.c + c, n - c));
                store(to + (ix - columns.low) * block + c, v, false);
            }
            run.end();
        }
        in.done();
    }

    std::int64_t place(std::int64_t i) const { return i * block; }

    void emit(std::int64_t plane, std::int64_t oy, std::int64_t rows, std::int64_t pitch,
              const std::vector<Taps<S>>& taps) {
        const std::int64_t first = plane % blocks * block, n = std::min(block, p.c - first);
        for (std::int64_t row = 0; row < rows; ++row) {
            auto out = ends.out(Row{plane / blocks, first, n, oy + row});
            for (std::int64_t r = 0; r < columns.phases; ++r)
                with_count(taps[r].count, [&](auto count) {
                    const Weigh<V, S, count(), 1> weigh(&taps[r]);
                    std::int64_t shift = row * pitch;
                    for (std::int64_t o = r; o < p.w.out; o += columns.phases, shift += columns.step * block) {
                        auto run = out.run(o);
                        weigh(shift, n, [&](std::int64_t c, const V* sums) { run(c, n - c, sums[0]); });
                        run.end();
                    }
                });
            out.done();
        }
    }

  private:
    // Where the staged rows of 64 channels stay in the first-level cache, no more are staged. Elsewhere whole pixels
    // are, as memory is read best in sequence (milliseconds for blocks of 64 and 256 channels, blur of 8x512x17x17:
    // 0.36 and 0.5, 8x256x65x65: 7.1 and 4.7, 4x128x129x129: 7.2 and 4.6: AVX-512, one thread, 2026-11).
    static constexpr std::int64_t kCached = 64, kSequential = kMostChannels, kRowBytes = 5 << 10;
    const Upfirdn2dParams& p;
    Ends ends;
    Columns columns;
    std::int64_t block, blocks;
};

// Rows [first, last) of all planes, one after the other.
template <class Layout, class Ends>
void filter_rows(const Upfirdn2dParams& p, Layout& layout, std::int64_t first, std::int64_t last) {
    using S = typename Layout::S;
    using V = typename Layout::V;
    const FirAxis &h = p.h, &w = p.w;

    // Correlation weights, [taps] or [h.taps, w.taps]; the gain is in the horizontal ones.
    const std::int64_t size = p.separable ? w.taps : h.taps * w.taps;
    std::vector<S> vertical(size), weights(size);
    for (std::int64_t k = 0; k < size; ++k) {
        vertical[k] = S(p.f[p.flip ? k : size - 1 - k]);
        weights[k] = S(vertical[k] * p.gain);
    }

    // Which taps of which inputs a row of y takes, vertically.
    struct Window {
        std::int64_t tap, begin, end;
    };
    std::vector<Window> windows(h.out);
    for (std::int64_t oy = 0; oy < h.out; ++oy) {
        const std::int64_t top = h.first_input(oy), begin = std::clamp<std::int64_t>(top, 0, h.in);
        windows[oy] = {h.first_tap(oy) + (begin - top) * h.up, begin, std::min(top + h.count(oy), h.in)};
    }

    // Rows are made in batches, step by step, so that no load waits for the stores just before it. A ring holds the
    // staged rows; staged and blended rows start at cache lines, and what `stage` does not write stays 0.
    const std::int64_t line = 64 / sizeof(S), pitch = round_up(layout.staged(), kLanes) + 2 * kLanes;
    const std::int64_t batch = std::clamp<std::int64_t>(kBatchBytes / (pitch * sizeof(S)), 1, 8);
    std::int64_t slots = 1;
    while (slots < ((batch - 1) * h.down + h.taps + h.up - 1) / h.up + 1) slots *= 2;
    std::vector<S> memory((slots + batch) * pitch + line);
    S* blended = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64) % 64 / sizeof(S);
    const auto row = [&](std::int64_t iy) { return blended + (batch + (iy & (slots - 1))) * pitch; };

    // The horizontal taps of every phase.
    struct Tap {
        std::int64_t phase, place, k;
    };
    std::vector<Tap> across;
    for (std::int64_t r = 0; r < layout.across().phases; ++r)
        for (std::int64_t t = 0; t < w.count(r); ++t)
            across.push_back({r, layout.place(w.first_input(r) + t - layout.across().low), w.first_tap(r) + t * w.up});

    std::vector<Taps<S>> taps(layout.across().phases, Taps<S>(size));
    const auto add_taps = [&](const S* staged, const S* weight) {
        for (const Tap& tap : across) taps[tap.phase].add(staged + tap.place, weight[tap.k]);
    };
    if (p.separable) add_taps(blended, weights.data());

    Taps<S> down(h.taps);
    for (std::int64_t i = first; i < last;) {
        const std::int64_t plane = i / h.out, start = i % h.out, stop = std::min(h.out, start + last - i);
        std::int64_t staged = start == 0 ? 0 : windows[start].begin;             // the first row that was not staged
        const std::int64_t others = stop == h.out ? h.in : windows[stop].begin;  // the first that is not our own
        for (std::int64_t from = start; from < stop; from += batch) {
            const std::int64_t to = std::min(from + batch, stop);
            for (std::int64_t oy = from; oy < to; ++oy) {
                if (!Ends::kEvery) staged = std::max(staged, windows[oy].begin);
                for (; staged < windows[oy].end; ++staged) layout.stage(plane, staged, staged < others, row(staged));
            }
            for (std::int64_t oy = from; oy < to && p.separable; ++oy) {
                const Window& in = windows[oy];
                down.count = 0;
                for (std::int64_t iy = in.begin, k = in.tap; iy < in.end; ++iy, k += h.up)
                    down.add(row(iy), vertical[k]);
                with_count(down.count, [&](auto count) {
                    S* into = blended + (oy - from) * pitch;
                    const Weigh<V, S, count(), 1> weigh(&down);
                    weigh(0, layout.staged(), [&](std::int64_t j, const V* sums) { store(into + j, sums[0], false); });
                });
            }
            if (p.separable) {
                layout.emit(plane, from, to - from, pitch, taps);
                continue;
            }
            for (std::int64_t oy = from; oy < to; ++oy) {
                for (Taps<S>& t : taps) t.count = 0;
                for (std::int64_t iy = windows[oy].begin, k = windows[oy].tap; iy < windows[oy].end; ++iy, k += h.up)
                    add_taps(row(iy), &weights[k * w.taps]);
                layout.emit(plane, oy, 1, 0, taps);
            }
        }
        for (; Ends::kEvery && staged < others; ++staged) layout.stage(plane, staged, true, row(staged));
        i += stop - start;
    }
}

inline int parts(const Upfirdn2dParams& p, int threads) {
    return threads_for(p.n * p.c * std::max(p.h.in * p.w.in, p.h.out * p.w.out), threads);
}

template <template <class> class Layout, class Ends>
void filter(const Upfirdn2dParams& p, int part, int parts, const Ends& ends) {
    Layout<Ends> layout(p, ends);
    const std::int64_t rows = layout.planes() * p.h.out;
    filter_rows<Layout<Ends>, Ends>(p, layout, rows * part / parts, rows * (part + 1) / parts);
}

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
