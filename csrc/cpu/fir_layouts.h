// How an FIR filter stages rows of x and makes rows of y, in each of the two memory layouts.
#pragma once

#include "../upfirdn2d.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "fir_taps.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {

// Row y of an image. It has one channel, or `channels` neighbouring channels where the channels come last; the first
// is `channel`.
struct Row {
    std::int64_t image, channel, channels, y;
};

namespace fir {

// The most channels of a block, where the channels come last.
inline constexpr std::int64_t kMostChannels = 256;

inline std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// The memory of a row: its first element, and `step` elements from a run to the next.
template <bool channels_last>
struct Place {
    std::int64_t element, step, pixel;  // pixel: the index in [images, h, w]

    Place(const Row& row, std::int64_t channels, std::int64_t h, std::int64_t w) {
        pixel = (row.image * h + row.y) * w;
        element =
            channels_last ? pixel * channels + row.channel : ((row.image * channels + row.channel) * h + row.y) * w;
        step = channels_last ? channels : 0;
    }
};

// The `in` of Ends that leave the numbers of x unchanged.
template <class V>
struct Untouched {
    Untouched run(std::int64_t) const { return {}; }
    V operator()(std::int64_t, std::int64_t, V v) const { return v; }
    void end() const {}
    void done() const {}
};

// The horizontal axis. Output i * phases + r takes the taps of output r, with inputs i * step further on.
struct Columns {
    FirAxis axis;
    std::int64_t phases, step;
    std::int64_t low, reach;  // the staged inputs, inside and outside x: low, ..., low + reach - 1
    std::int64_t begin, end;  // those inside x: begin, ..., end - 1

    Columns(const FirAxis& a, bool all) : axis(a) {
        const std::int64_t common = std::gcd(a.up, a.down);
        phases = a.up / common, step = a.down / common;
        low = a.first_input(0), reach = 1;
        for (std::int64_t o = a.out > phases ? a.out - phases : 0; o < a.out; ++o)
            reach = std::max(reach, a.first_input(o) + a.count(o) - low);
        if (all) {
            const std::int64_t last = std::max(low + reach, a.in);
            low = std::min<std::int64_t>(low, 0), reach = last - low;
        }
        begin = std::max<std::int64_t>(low, 0), end = std::max(begin, std::min(a.in, low + reach));
    }
    std::int64_t outputs(std::int64_t r) const { return (axis.out - r + phases - 1) / phases; }
};

// Planes of [h, w]. A staged row consists of `step` rows, `span` apart. Row k has the inputs low + k + j * step for all
// j.
template <class Ends>
class Planar {
  public:
    using T = typename Ends::T;
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    static constexpr bool kReadsAll = Ends::kReadsAll;

    Planar(const Upfirdn2dParams& p_, Ends ends_) : p(p_), ends(ends_), columns(p_.w, Ends::kReadsAll) {
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

    // The position of input low + i in a staged row. Input low + i + step is at the next position.
    std::int64_t place(std::int64_t i) const { return i % columns.step * span + i / columns.step; }

    // Makes `rows` rows of y from row oy on. taps[r] are the taps of output r in row oy. Each next row reads `pitch`
    // elements further on.
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
            with_count<S>(taps[0].count, [&](auto count) {
                const Weigh<V, S, count(), 1> weigh(taps.data());
                for (std::int64_t row = 0; row < rows; ++row)
                    with_row(row, [&](auto& run) {
                        weigh(row * pitch, n, [&](std::int64_t i, const V* sums) { run(i, w - i, sums[0]); });
                    });
            });
        } else if (columns.phases == 2) {
            with_count<S>(taps[0].count == taps[1].count ? taps[0].count : 0, [&](auto count) {
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

// Planes of [h, w, c], in blocks of channels. Of each pixel, `block` channels are staged.
template <class Ends>
class Interleaved {
  public:
    using T = typename Ends::T;
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    static constexpr bool kReadsAll = Ends::kReadsAll;

    Interleaved(const Upfirdn2dParams& p_, Ends ends_) : p(p_), ends(ends_), columns(p_.w, Ends::kReadsAll) {
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
                with_count<S>(taps[r].count, [&](auto count) {
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
    // Blocks have 64 channels if their staged rows fit into the first-level cache. Otherwise they have up to 256
    // channels, because memory is read fastest in sequence (docs/performance.md, "Thresholds of the C++ kernels").
    static constexpr std::int64_t kCached = 64, kSequential = kMostChannels, kRowBytes = 5 << 10;
    const Upfirdn2dParams& p;
    Ends ends;
    Columns columns;
    std::int64_t block, blocks;
};

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
