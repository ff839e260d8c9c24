#include "../upfirdn2d.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "threads.h"
#include "vec.h"

// A row of y needs a few rows of x, and the next row of y mostly the same ones. Each is staged once, in the cache:
// widened, with the zeros around it, and so laid out that a tap is a plain vector load. A separable filter then blends
// the staged rows into one, and takes its horizontal taps from that; any other takes all its taps from the staged rows.
//
//     x  --stage-->  rows  --blend-->  row  --emit-->  y
//
// Every element of x passes `stage` once (once more where two threads meet), every element of y passes `put` once:
// what is to be fused in front of the filter or behind it belongs there.

namespace gan_engine {
namespace GE_ISA {
namespace {

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

std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

// The first n of the lanes, or all.
template <class T, class V>
void put(T* to, std::int64_t n, V v) {
    if (n >= kLanes) return store(to, v, false);
    store_some(to, v, n);
}

// The horizontal axis: output i * phases + r takes its taps as output r does, i * step inputs further on.
struct Columns {
    FirAxis axis;
    std::int64_t phases, step;
    std::int64_t low, reach;  // the inputs in use, inside x and outside, are low, ..., low + reach - 1
    std::int64_t begin, end;  // of these, the ones inside x

    explicit Columns(const FirAxis& a) : axis(a) {
        const std::int64_t common = std::gcd(a.up, a.down);
        phases = a.up / common, step = a.down / common;
        low = a.first_input(0), reach = 1;
        for (std::int64_t o = a.out > phases ? a.out - phases : 0; o < a.out; ++o)
            reach = std::max(reach, a.first_input(o) + a.count(o) - low);
        begin = std::max<std::int64_t>(low, 0), end = std::max(begin, std::min(a.in, low + reach));
    }
    std::int64_t outputs(std::int64_t r) const { return (axis.out - r + phases - 1) / phases; }
};

// Planes of [h, w]. A staged row is `step` rows, the k-th with inputs low + k, low + k + step, ..., `span` apart.
template <class T>
class Planar {
  public:
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

    explicit Planar(const Upfirdn2dParams& p_) : p(p_), columns(p_.w) {
        span = (columns.reach + columns.step - 1) / columns.step;
        if (columns.phases > 2) wide.resize(round_up(p.w.out, kLanes));
    }
    std::int64_t planes() const { return p.n * p.c; }
    const Columns& across() const { return columns; }
    std::int64_t staged() const { return columns.step * span; }

    void stage(std::int64_t plane, std::int64_t iy, S* to) const {
        const T* x = static_cast<const T*>(p.x) + (plane * p.h.in + iy) * p.w.in + columns.begin;
        const std::int64_t n = columns.end - columns.begin, at = columns.begin - columns.low, step = columns.step;
        if (step == 1) {
            for (std::int64_t i = 0; i < n; i += kLanes) store(to + at + i, some(x + i, n - i), false);
        } else if (step == 2) {
            S* even = to + at % 2 * span + at / 2;
            S* odd = to + (at + 1) % 2 * span + (at + 1) / 2;
            for (std::int64_t i = 0; i < n; i += 2 * kLanes) {
                const V a = some(x + i, n - i), b = some(x + i + kLanes, n - i - kLanes);
                put(even + i / 2, (n - i + 1) / 2, evens(a, b));
                put(odd + i / 2, (n - i) / 2, odds(a, b));
            }
        } else {
            for (std::int64_t i = 0; i < n; i += kLanes) {
                const V v = some(x + i, n - i);
                for (std::int64_t k = 0, j = at + i; k < kLanes && i + k < n; ++k, ++j)
                    to[j % step * span + j / step] = v[k];
            }
        }
    }

    // Where input low + i stands in a staged row; input low + i + step stands one further on.
    std::int64_t place(std::int64_t i) const { return i % columns.step * span + i / columns.step; }

    // `rows` rows of y from row oy on; taps[r] are those of output r in row oy, and those of the row below are `pitch`
    // further on.
    void emit(std::int64_t plane, std::int64_t oy, std::int64_t rows, std::int64_t pitch,
              const std::vector<Taps<S>>& taps) {
        T* y = static_cast<T*>(p.y) + (plane * p.h.out + oy) * p.w.out;
        const std::int64_t n = columns.outputs(0);
        if (columns.phases == 1) {
            with_count(taps[0].count, [&](auto count) {
                const Weigh<V, S, count(), 1> weigh(taps.data());
                for (std::int64_t row = 0; row < rows; ++row, y += p.w.out)
                    weigh(row * pitch, n, [&](std::int64_t i, const V* sums) { put(y + i, p.w.out - i, sums[0]); });
            });
        } else if (columns.phases == 2) {
            with_count(taps[0].count == taps[1].count ? taps[0].count : 0, [&](auto count) {
                const Weigh<V, S, count(), 2> weigh(taps.data());
                for (std::int64_t row = 0; row < rows; ++row, y += p.w.out)
                    weigh(row * pitch, n, [&](std::int64_t i, const V* sums) {
                        put(y + 2 * i, p.w.out - 2 * i, interleave_low(sums[0], sums[1]));
                        put(y + 2 * i + kLanes, p.w.out - 2 * i - kLanes, interleave_high(sums[0], sums[1]));
                    });
            });
        } else {
            for (std::int64_t row = 0; row < rows; ++row, y += p.w.out) {
                for (std::int64_t r = 0; r < columns.phases; ++r) {
                    const Weigh<V, S, 0, 1> weigh(&taps[r]);
                    weigh(row * pitch, columns.outputs(r), [&](std::int64_t i, const V* sums) {
                        for (std::int64_t k = 0, o = i * columns.phases + r; k < kLanes && o < p.w.out;
                             ++k, o += columns.phases)
                            wide[o] = sums[0][k];
                    });
                }
                for (std::int64_t i = 0; i < p.w.out; i += kLanes) put(y + i, p.w.out - i, load(&wide[i]));
            }
        }
    }

  private:
    const Upfirdn2dParams& p;
    Columns columns;
    std::int64_t span;
    std::vector<S> wide;

    static V some(const T* x, std::int64_t n) { return n >= kLanes ? load(x) : load_some<V>(x, n); }
};

// Planes of [h, w, c], here `block` channels at a time, which is what is staged of a pixel.
template <class T>
class Interleaved {
  public:
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

    explicit Interleaved(const Upfirdn2dParams& p_) : p(p_), columns(p_.w) {
        blocks = (p.c + kBlock - 1) / kBlock;
        block = round_up((p.c + blocks - 1) / blocks, kLanes);
    }
    std::int64_t planes() const { return p.n * blocks; }
    const Columns& across() const { return columns; }
    std::int64_t staged() const { return columns.reach * block; }

    void stage(std::int64_t plane, std::int64_t iy, S* to) const {
        const std::int64_t first = plane % blocks * block, n = std::min(block, p.c - first);
        const T* x = static_cast<const T*>(p.x) + (plane / blocks * p.h.in + iy) * p.w.in * p.c + first;
        for (std::int64_t ix = columns.begin; ix < columns.end; ++ix)
            for (std::int64_t c = 0; c < n; c += kLanes) {
                const T* from = x + ix * p.c + c;
                const V v = n - c >= kLanes ? load(from) : load_some<V>(from, n - c);
                store(to + (ix - columns.low) * block + c, v, false);
            }
    }

    std::int64_t place(std::int64_t i) const { return i * block; }

    void emit(std::int64_t plane, std::int64_t oy, std::int64_t rows, std::int64_t pitch,
              const std::vector<Taps<S>>& taps) {
        const std::int64_t first = plane % blocks * block, n = std::min(block, p.c - first);
        T* y = static_cast<T*>(p.y) + (plane / blocks * p.h.out + oy) * p.w.out * p.c + first;
        for (std::int64_t row = 0; row < rows; ++row) {
            std::int64_t o = 0;
            for (std::int64_t shift = row * pitch; o < p.w.out; shift += columns.step * block)
                for (std::int64_t r = 0; r < columns.phases && o < p.w.out; ++r, ++o, y += p.c)
                    with_count(taps[r].count, [&](auto count) {
                        const Weigh<V, S, count(), 1> weigh(&taps[r]);
                        weigh(shift, n, [&](std::int64_t c, const V* sums) { put(y + c, n - c, sums[0]); });
                    });
        }
    }

  private:
    // Whole cache lines of a pixel; more fit into no first-level cache (4x64x64x64, blocks of 16 and 64, blur 0.33 and
    // 0.32 ms, up2 1.56 and 0.79: AVX-512, one thread, 2026-11).
    static constexpr std::int64_t kBlock = 64;
    const Upfirdn2dParams& p;
    Columns columns;
    std::int64_t block, blocks;
};

// Rows [first, last) of all planes, one after the other.
template <class Layout>
void filter_rows(const Upfirdn2dParams& p, std::int64_t first, std::int64_t last) {
    using S = typename Layout::S;
    using V = typename Layout::V;
    Layout layout(p);
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
        const std::int64_t top = h.first_input(oy), begin = std::max<std::int64_t>(top, 0);
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
        std::int64_t staged = 0;  // the first row that was not staged
        for (std::int64_t from = start; from < stop; from += batch) {
            const std::int64_t to = std::min(from + batch, stop);
            for (std::int64_t oy = from; oy < to; ++oy)
                for (std::int64_t iy = std::max(windows[oy].begin, staged); iy < windows[oy].end; ++iy) {
                    layout.stage(plane, iy, row(iy));
                    staged = iy + 1;
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
        i += stop - start;
    }
}

template <class Layout>
void filter(const Upfirdn2dParams& p, int threads) {
    const std::int64_t rows = Layout(p).planes() * p.h.out;
    const int parts = threads_for(p.n * p.c * std::max(p.h.in * p.w.in, p.h.out * p.w.out), threads);
    in_parallel(parts, [&](int k) { filter_rows<Layout>(p, rows * k / parts, rows * (k + 1) / parts); });
}

template <class T>
void with_layout(const Upfirdn2dParams& p, int threads) {
    return p.channels_last ? filter<Interleaved<T>>(p, threads) : filter<Planar<T>>(p, threads);
}

}  // namespace

void upfirdn2d(const Upfirdn2dParams& p, int threads) {
    switch (p.dtype) {
        case DType::kFloat32: return with_layout<float>(p, threads);
        case DType::kFloat64: return with_layout<double>(p, threads);
        case DType::kBFloat16: return with_layout<BFloat16>(p, threads);
        case DType::kFloat16: return with_layout<Float16>(p, threads);
    }
}

}  // namespace GE_ISA
}  // namespace gan_engine
