// How a separable filter of four taps makes rows of planes [h, w] from an image in place: most filters of GANs.
#pragma once

#include <algorithm>
#include <vector>

#include "fir.h"
#include "fir_taps.h"
#include "fir_weights.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// The filter with the same Up and Down along both axes, on vectors R of neighbours in a row. Planes of images are often
// as small as 4x4 pixels. So a row costs little beside its arithmetic: taps stay in registers from row to row, edges
// need no branch, and a batch of rows goes on from plane to plane.
template <class R, int Up, int Down>
class FourTaps {
  public:
    static bool fits(const Upfirdn2dParams& p, const Ends<float>& ends) {
        const auto axis = [](const FirAxis& a) { return a.taps == 4 && a.up == Up && a.down == Down; };
        return p.separable && axis(p.h) && axis(p.w) && ends.x != nullptr && ends.y != nullptr && !ends.finishes;
    }

    FourTaps(const Upfirdn2dParams& p_, const Weights<float>& weights, const Ends<float>& ends_)
        : p(p_), ends(ends_), spread(p_.w), stream(streams(p_, ends_, p_.w.out)), foresee(foresees(p_, ends_)) {
        for (int t = 0; t < 4; ++t) vertical[t] = weights.down[t];
        zeros.resize(round_up(p.w.in, kLanes));
        for (std::int64_t oy = 0; oy < p.h.out; ++oy) windows.push_back(window(p.h.first_input(oy), p.h.first_tap(oy)));
        for (int k = 0; k < 4; ++k) {
            const std::int64_t phase = k / kCount, t = k % kCount, tap = p.w.first_tap(phase) + t * Up;
            place[k] = spread.place(p.w.first_input(phase) + t);
            horizontal[k] = weights.across[tap];
        }
        batch = std::clamp<std::int64_t>(kBatchBytes / (spread.size() * sizeof(float)), 1, kMostRows);
        blended.resize(batch * spread.size());
    }

    // Makes share `part` of `parts` shares of the rows of all planes.
    void run(int part, int parts) {
        const std::int64_t width = spread.end - spread.begin;
        if (width == Down * kWide && p.w.out <= Up * kWide)
            run_rows<true>(part, parts);
        else
            run_rows<false>(part, parts);
        fence();
    }

  private:
    static constexpr int kWide = kLanesOf<R>, kCount = 4 / Up;
    static constexpr std::int64_t kBatchBytes = 12 << 10, kMostRows = 32;
    // The rows of x that a row of y takes; `after` is the next row. With x the address of a plane, the row of tap t is
    // at (x & keep[t]) + plus[t]: in the plane, or the row of zeros outside.
    struct Window {
        std::int64_t after;
        const float* weights;  // Up apart
        std::uintptr_t keep[kCount], plus[kCount];
    };
    const Upfirdn2dParams& p;
    const Ends<float>& ends;
    const Spread spread;
    const bool stream, foresee;
    float vertical[4], horizontal[4];  // correlation weights; horizontal with the gain, for one phase after the other
    std::int64_t place[4];             // of the horizontal taps
    std::vector<Window> windows;
    std::int64_t batch;
    Lines<float> blended, zeros;

    Window window(std::int64_t first, std::int64_t tap) const {
        Window w{first + kCount, vertical + tap, {}, {}};
        for (std::int64_t t = 0; t < kCount; ++t) {
            const bool inside = std::uint64_t(first + t) < std::uint64_t(p.h.in);
            w.keep[t] = inside ? ~std::uintptr_t(0) : 0;
            w.plus[t] = inside ? (first + t) * p.w.in * sizeof(float) : std::uintptr_t(zeros.data);
        }
        return w;
    }

    // kOne: a row of x is a vector, or two to halve, and a row of y a vector, or two that were doubled.
    template <bool kOne>
    void run_rows(int part, int parts) {
        const std::int64_t rows = p.n * p.c * p.h.out, last = rows * (part + 1) / parts;
        float* const end = ends.y + last * p.w.out;
        for (std::int64_t i = rows * part / parts; i < last; i += batch) {
            const std::int64_t n = std::min(batch, last - i);
            blend_rows<kOne>(i, n);
            float* y = ends.y + i * p.w.out;
            if (stream)
                emit_rows<kOne>(y, n, [](float* to, R v) GE_INLINED { store(to, v, true); });
            else if (y + n * p.w.out + kWide <= end)
                emit_rows<kOne>(y, n, [](float* to, R v) GE_INLINED { store(to, v, false); });
            else
                emit_rows<kOne>(y, n, [end](float* to, R v) GE_INLINED { store_up_to(to, end - to, v); });
        }
    }

    // The weighted sums over rows of x for n rows of y from row i of all planes on, as spread rows.
    template <bool kOne>
    void blend_rows(std::int64_t i, std::int64_t n) {
        const std::int64_t size = spread.size(), plane = p.h.in * p.w.in, out = p.h.out;
        std::int64_t oy = i % out;
        const float* x = ends.x + i / out * plane + spread.begin;
        for (float* to = blended.data; n > 0; oy = 0, x += plane) {
            const std::int64_t count = std::min(out - oy, n);
            blend<kOne>(x, &windows[oy], count, to);
            n -= count, to += count * size;
        }
    }
    // The same for n > 0 windows of one plane.
    template <bool kOne>
    GE_INLINE void blend(const float* x, const Window* window, std::int64_t n, float* to) const {
        const std::int64_t size = spread.size();
        const std::int64_t width = kOne ? Down * kWide : spread.end - spread.begin;
        const std::int64_t first = spread.first, second = spread.second;
        R weight[kCount];
        load_weights(window, weight);
        for (; n > 0; --n, ++window, to += size) {
            if (Up > 1) load_weights(window, weight);
            const float* at[kCount];
            for (int t = 0; t < kCount; ++t)
                at[t] = reinterpret_cast<const float*>((std::uintptr_t(x) & window->keep[t]) + window->plus[t]);
            if (Down > 1 && !kOne && foresee) prefetch(p, x, window->after);
            blend_row(at, weight, width, to + first, to + second);
        }
    }
    static GE_INLINE void load_weights(const Window* window, R (&weight)[kCount]) {
        for (int t = 0; t < kCount; ++t) weight[t] = splat<R>(window->weights[t * Up]);
    }
    // n elements of a sum of rows: to `first`, or by turns to `first` and `second`.
    static GE_INLINE void blend_row(const float* const (&at)[kCount], const R (&weight)[kCount], std::int64_t n,
                                    float* first, float* second) {
        const auto sum = [&](std::int64_t i, auto get) GE_INLINED {
            R s = weight[0] * get(at[0] + i);
            for (int t = 1; t < kCount; ++t) s += weight[t] * get(at[t] + i);
            return s;
        };
        const auto whole = [](const float* from) GE_INLINED { return load<R>(from); };
        const auto put = [&](std::int64_t i, R a, R b) GE_INLINED {
            store(first + i / 2, evens(a, b), false);
            store(second + i / 2, odds(a, b), false);
        };
        std::int64_t i = 0;
        if constexpr (Down == 1)
            for (; i <= n - kWide; i += kWide) store(first + i, sum(i, whole), false);
        else
            for (; i <= n - 2 * kWide; i += 2 * kWide) put(i, sum(i, whole), sum(i + kWide, whole));
        if (i >= n) return;
        const auto part = [=](const float* from) GE_INLINED { return load_up_to<R>(from, n - i); };
        if constexpr (Down == 1)
            store(first + i, sum(i, part), false);
        else if (n - i <= kWide)
            put(i, sum(i, part), R{});
        else
            put(i, sum(i, whole),
                sum(i + kWide, [=](const float* from) GE_INLINED { return load_some<R>(from, n - i - kWide); }));
    }

    // n rows of y from their spread rows. A vector may write over the end of its row: the next row writes there later.
    template <bool kOne, class Put>
    void emit_rows(float* y, std::int64_t n, const Put& put) const {
        const std::int64_t w = p.w.out, size = spread.size();
        const float* at[4];
        R weight[4];
        for (int k = 0; k < 4; ++k) at[k] = blended.data + place[k], weight[k] = splat<R>(horizontal[k]);
        for (std::int64_t row = 0; row < n; ++row, y += w) {
            for (std::int64_t o = 0; o < (kOne ? 1 : w); o += Up * kWide) {
                R sum[Up];
                for (int r = 0; r < Up; ++r) {
                    const int k = r * kCount;
                    sum[r] = weight[k] * load<R>(at[k] + o / Up);
                    for (int t = 1; t < kCount; ++t) sum[r] += weight[k + t] * load<R>(at[k + t] + o / Up);
                }
                if constexpr (Up == 1) {
                    put(y + o, sum[0]);
                } else {
                    put(y + o, interleave_low(sum[0], sum[1]));
                    if (o + kWide < w) put(y + o + kWide, interleave_high(sum[0], sum[1]));
                }
            }
            for (const float*& from : at) from += size;
        }
    }
};

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
