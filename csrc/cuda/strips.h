// upfirdn2d for separable filters of 4 taps that keep, double or halve the size of an image. A thread makes a strip of
// y from top to bottom. It reads each row of x once, and keeps the last rows in registers, filtered along x.
//
// With up = 2, outputs come in pairs that read the same two inputs. Pair j holds outputs 2 j - shift and 2 j - shift
// + 1. Element q of a pair takes taps up - 1 - q, 2 up - 1 - q, ... of its inputs.
#pragma once

#include "../upfirdn2d.h"

#include <algorithm>
#include <climits>
#include <cstdlib>

#include "launch.h"
#include "words.h"

namespace gan_engine {
namespace cuda {

constexpr int kTaps = 4, kStripThreads = 256;

// Threads that keep a GPU busy: 2,048 on each of 132 multiprocessors. Strips are at most kMostRows rows or pairs of
// rows long, and shorter where there would be fewer threads, but not below kLeastRows: 3 more rows are read above a
// strip. All are estimates, untested on a GPU.
constexpr std::int64_t kBusy = 132 * 2048;
constexpr int kMostRows = 32, kLeastRows = 8;

struct StripAxis {
    int in, out;
    int first, shift;  // group j of outputs begins at output j * up - shift, and at input j * down + first
    int groups;

    StripAxis(const FirAxis& a)
        : in(int(a.in)),
          out(int(a.out)),
          first(int(a.up == 2 ? (a.pad % 2 == 0 ? -a.pad / 2 : (1 - a.pad) / 2) : -a.pad)),
          shift(a.up == 2 && a.pad % 2 == 0 ? 1 : 0),
          groups(int(divide_up(a.out + shift, a.up))) {}
};

struct StripPlan {
    StripAxis h, w;
    unsigned vectors, line;  // vectors of channels in a pixel, and threads across an image
    unsigned strips, rows;   // strips of an image, and groups of rows in a strip
    unsigned threads;
    int pixel;  // elements between neighbouring pixels
    std::int64_t in_plane, out_plane;

    // `across` groups of columns, and `vector` channels, belong to a thread.
    StripPlan(const Upfirdn2dParams& p, int vector, int across) : h(p.h), w(p.w) {
        const std::int64_t c = p.channels_last ? p.c : 1, planes = p.channels_last ? p.n : p.n * p.c;
        pixel = int(c), vectors = unsigned(c / vector);
        if (across > 1 && c == 1) w.groups = int(divide_up(w.out, p.w.up));  // a thread begins at an even column
        line = unsigned(divide_up(w.groups, across)) * vectors;
        rows = unsigned(rows_of(planes * line, h.groups));
        strips = unsigned(divide_up(h.groups, rows));
        threads = unsigned(planes * line * strips);
        in_plane = p.h.in * p.w.in * c, out_plane = p.h.out * p.w.out * c;
    }

    // Rows of a strip, where `across` threads lie side by side.
    static std::int64_t rows_of(std::int64_t across, std::int64_t groups) {
        std::int64_t rows = kMostRows;
        while (rows > kLeastRows && across * divide_up(groups, rows) < kBusy) rows /= 2;
        return rows;
    }

    // The strips can do it, with 32 bits for all places in a plane, and for those in the padding around it.
    static bool fits(const Upfirdn2dParams& p) {
        const auto factors = [](const FirAxis& a) { return a.taps == kTaps && a.up * a.down <= 2; };
        const std::int64_t c = p.channels_last ? p.c : 1, largest = INT_MAX / 4;
        const auto small = [&](const FirAxis& a) {
            return a.in < largest && a.out < largest && std::abs(a.pad) < largest;
        };
        const auto reach = [](const FirAxis& a) { return a.in + a.out + std::abs(a.pad); };
        return p.separable && factors(p.h) && factors(p.w) && p.h.up == p.w.up && p.h.down == p.w.down && small(p.h) &&
               small(p.w) && p.h.in * p.w.in * c < largest && p.h.out * p.w.out * c < largest &&
               reach(p.h) * p.w.in * c < largest && reach(p.w) * c < largest &&
               p.n * p.c * (p.h.out + 2) * (p.w.out + 2) / kLeastRows < largest;
    }
};

// V channels, and X groups of columns, of a strip. kPlanes: pixels are neighbours, as in planes; the columns of a
// thread then begin at element kShift of a pair, which is an even column.
template <class T, int V, int X, bool kPlanes, int kUp, int kDown, int kShift>
struct Strip {
    using S = Wide<T>;
    static constexpr int kWindow = kTaps / kUp;                         // inputs of an output, along an axis
    static constexpr int kInputs = kWindow + (X - 1) * kDown + kShift;  // of a thread, along x
    static constexpr int kUnrolled = kWindow / kDown;                   // steps until the window is back where it was
    static constexpr int kColumns = X * kUp, kPointers = kPlanes ? 1 : kInputs;

    S along[kTaps], down[kTaps];
    S window[kWindow][kColumns][V];
    const T* next[kPointers];  // the next row of each input; those of planes are neighbours, so one pointer is enough
    bool inside[kInputs], kept[kColumns];
    T* y;
    int row, end;  // groups of rows
    int iy, in_row, out_row, pixel;

    __device__ __forceinline__ Strip(const Upfirdn2dParams& p, const StripPlan& plan, unsigned thread) {
        const unsigned at = thread % plan.line, above = thread / plan.line;
        const unsigned strip = above % plan.strips, plane = above / plan.strips;
        const int c = int(at % plan.vectors) * V, column = int(at / plan.vectors) * X;
        const int ix = column * kDown + plan.w.first, ox = column * kUp - (kPlanes ? 0 : plan.w.shift);
        row = int(strip * plan.rows), end = min(row + int(plan.rows), plan.h.groups);
        pixel = kPlanes ? 1 : plan.pixel, in_row = plan.w.in * pixel, out_row = plan.w.out * pixel;
        iy = row * kDown + plan.h.first;
        const T* x = static_cast<const T*>(p.x) + plane * plan.in_plane + c;
        y = static_cast<T*>(p.y) + plane * plan.out_plane + c + ox * pixel;
#pragma unroll
        for (int k = 0; k < kTaps; ++k) {
            along[k] = S(p.f[p.flip ? k : kTaps - 1 - k]);
            down[k] = along[k] * S(p.gain);
        }
#pragma unroll
        for (int t = 0; t < kPointers; ++t) next[t] = x + (iy * in_row + (ix + t) * pixel);
#pragma unroll
        for (int t = 0; t < kInputs; ++t) inside[t] = unsigned(ix + t) < unsigned(plan.w.in);
#pragma unroll
        for (int k = 0; k < kColumns; ++k) kept[k] = unsigned(ox + k) < unsigned(plan.w.out);
    }

    // Reads the next row, and filters it along x.
    __device__ __forceinline__ void filter_row(const StripPlan& plan, S (&to)[kColumns][V]) {
        const bool inside_y = unsigned(iy) < unsigned(plan.h.in);
        S in[kInputs][V];
#pragma unroll
        for (int t = 0; t < kInputs; ++t)
            read<T, V>(in[t], kPlanes ? next[0] + t : next[kPlanes ? 0 : t], inside_y && inside[t]);
        ++iy;
#pragma unroll
        for (int t = 0; t < kPointers; ++t) next[t] += in_row;
#pragma unroll
        for (int k = 0; k < kColumns; ++k)
#pragma unroll
            for (int v = 0; v < V; ++v) {
                S sum = 0;
#pragma unroll
                for (int t = 0; t < kWindow; ++t)
                    sum += along[t * kUp + kUp - 1 - (k + kShift) % kUp] * in[(k + kShift) / kUp * kDown + t][v];
                to[k][v] = sum;
            }
    }

    // Element q of a group of rows, from a window whose first row is `first`.
    __device__ __forceinline__ void filter_column(int q, int first, S (&to)[kColumns][V]) const {
#pragma unroll
        for (int k = 0; k < kColumns; ++k)
#pragma unroll
            for (int v = 0; v < V; ++v) {
                S sum = 0;
#pragma unroll
                for (int t = 0; t < kWindow; ++t)
                    sum += down[t * kUp + kUp - 1 - q] * window[(first + t) % kWindow][k][v];
                to[k][v] = sum;
            }
    }

    __device__ __forceinline__ void store(int oy, const S (&v)[kColumns][V], bool packed) const {
        T* to = y + oy * out_row;
        if constexpr (kPlanes) {
            if (packed && kept[0] && kept[kColumns - 1]) {
                S line[kColumns];
#pragma unroll
                for (int k = 0; k < kColumns; ++k) line[k] = v[k][0];
                return write<T, kColumns>(to, line);
            }
        }
#pragma unroll
        for (int k = 0; k < kColumns; ++k)
            if (kept[k]) write<T, V>(to + k * pixel, v[k]);
    }

    // Calls finish(row of y, its numbers) for each row of the strip.
    template <class Finish>
    __device__ __forceinline__ void run(const StripPlan& plan, const Finish& finish) {
#pragma unroll
        for (int t = 0; t < kWindow - kDown; ++t) filter_row(plan, window[t]);
        for (int group = row; group < end; group += kUnrolled)
#pragma unroll
            for (int step = 0; step < kUnrolled; ++step) {
                if (group + step >= end) return;
#pragma unroll
                for (int t = 0; t < kDown; ++t)
                    filter_row(plan, window[(step * kDown + kWindow - kDown + t) % kWindow]);
#pragma unroll
                for (int q = 0; q < kUp; ++q) {
                    const int oy = (group + step) * kUp - plan.h.shift + q;
                    S out[kColumns][V];
                    filter_column(q, step * kDown, out);
                    if (kUp == 1 || unsigned(oy) < unsigned(plan.h.out)) finish(oy, out);
                }
            }
    }
};

// At least two blocks on a multiprocessor in float64: without this bound the compiler aims at more, and spills
// (sm_100).
template <class T, int V, int X, bool kPlanes, int kUp, int kDown, int kShift>
__global__ void __launch_bounds__(kStripThreads, sizeof(T) == 8 ? 2 : 0)
    by_strips(Upfirdn2dParams p, StripPlan plan, bool packed) {
    using Of = Strip<T, V, X, kPlanes, kUp, kDown, kShift>;
    const unsigned thread = blockIdx.x * kStripThreads + threadIdx.x;
    if (thread >= plan.threads) return;
    Of strip(p, plan, thread);
    strip.run(plan, [&](int oy, const typename Of::S(&v)[Of::kColumns][V]) { strip.store(oy, v, packed); });
}

template <class T, int V, int X, bool kPlanes>
void run_strips(const Upfirdn2dParams& p, std::uintptr_t stream) {
    const StripPlan plan(p, V, X);
    // Rows of whole vectors, that begin at the first column of a thread.
    const std::int64_t columns = X * p.w.up;
    const bool packed = p.w.out % columns == 0 && reinterpret_cast<std::uintptr_t>(p.y) % (sizeof(T) * columns) == 0;
    const auto doubling = kPlanes && plan.w.shift ? by_strips < T, V, X, kPlanes, 2, 1,
               kPlanes ? 1 : 0 >                  : by_strips<T, V, X, kPlanes, 2, 1, 0>;
    const auto kernel = p.h.up == 2     ? doubling
                        : p.h.down == 2 ? by_strips<T, V, X, kPlanes, 1, 2, 0>
                                        : by_strips<T, V, X, kPlanes, 1, 1, 0>;
    launch("upfirdn2d", kernel, divide_up(plan.threads, kStripThreads), kStripThreads, stream, p, plan, packed);
}

// Channels of 16 bytes where the layout has them, else columns of planes, else one number at a time.
template <class T>
void run_strips(const Upfirdn2dParams& p, std::uintptr_t stream) {
    constexpr int kVector = 16 / sizeof(T);
    if (p.channels_last && p.c % kVector == 0 && is_aligned(p.x) && is_aligned(p.y))
        return run_strips<T, kVector, 1, false>(p, stream);
    if (!p.channels_last || p.c == 1) return run_strips<T, 1, sizeof(T) == 8 ? 2 : 4, true>(p, stream);
    return run_strips<T, 1, 2, false>(p, stream);
}

}  // namespace cuda
}  // namespace gan_engine
