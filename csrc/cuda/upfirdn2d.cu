#include "../upfirdn2d.h"

#include <algorithm>

#include "eight.h"
#include "launch.h"
#include "strips.h"

// strips.h has the kernels for the usual filters. This file has those for all others, in two ways.
//
// A block makes a tile of y. It reads the part of x that the tile needs once, into shared memory, with the zeros around
// it. A separable filter then runs along the rows into a second buffer there, and along the columns into y.

namespace gan_engine {
namespace cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
// Shared memory of a block: 7 blocks fit on a multiprocessor with 228 KiB (an estimate, untested on a GPU).
constexpr int kBytes = 32000;
constexpr int kMost = 64;  // the most rows or columns of a tile

// The channels of a tile. kLast: the channels come last, and those of a pixel are neighbours.
template <bool kLast>
constexpr int kChannels = kLast ? 16 : 1;

struct Plan {
    FirAxisOf<int> h, w;   // the axes of the parameters in 32 bits: 64-bit division is a function call
    int y, x, in_y, in_x;  // of a tile: its outputs, and the inputs that they take
    int weights;           // numbers in the filter
    int tiles_y, tiles_x;
    std::int64_t planes;

    // Finds the largest tile that fits into `capacity` numbers. Returns false if none fits, or if an axis needs 64
    // bits.
    bool fit(const Upfirdn2dParams& p, int channels, std::int64_t capacity) {
        if (!narrowed(p.h, h) || !narrowed(p.w, w)) return false;
        weights = int(std::min<std::int64_t>(p.separable ? p.w.taps : p.h.taps * p.w.taps, 1 << 20));
        x = channels > 1 ? 16 : kMost, y = channels > 1 ? 8 : 32;
        while (x > 8 && x / 2 >= p.w.out) x /= 2;
        while (y > 1 && y / 2 >= p.h.out) y /= 2;
        for (;;) {
            const std::int64_t rows = inputs(p.h, y), columns = inputs(p.w, x);
            in_y = int(rows), in_x = int(columns);
            if (weights + rows * (columns + (p.separable ? x : 0)) * channels <= capacity) break;
            if (x == 1 && y == 1) return false;
            if (y > 1 && 4 * y >= x) {
                y /= 2;
            } else {
                x /= 2;
            }
        }
        tiles_y = int(divide_up(p.h.out, y)), tiles_x = int(divide_up(p.w.out, x));
        planes = p.n * (channels > 1 ? divide_up(p.c, channels) : p.c);
        return true;
    }
    static bool narrowed(const FirAxis& a, FirAxisOf<int>& to) {
        to = {int(a.in), int(a.out), int(a.up), int(a.down), int(a.pad), int(a.taps)};
        const auto fits = [](std::int64_t v) { return -(1 << 28) < v && v < (1 << 28); };
        return fits(a.up) && fits(a.down) && fits(a.taps) && fits(a.pad) && fits(a.in) && fits(a.out) &&
               fits((a.in + 1) * a.up) && fits((a.out + kMost) * a.down);
    }
    static std::int64_t inputs(const FirAxis& axis, std::int64_t outputs) {
        return ((outputs - 1) * axis.down + axis.taps - 1) / axis.up + 1;
    }
};

// The weights first, first + up, ..., for a sum over neighbours `step` apart.
template <class S>
struct Line {
    const S* f;
    int up, count;

    __device__ __forceinline__ Line(const S* f_, int first, int up_, int taps)
        : f(f_ + first), up(up_), count((taps - first + up_ - 1) / up_) {}
    __device__ __forceinline__ S sum(const S* at, int step) const {
        S total = 0;
        for (int t = 0; t < count; ++t) total += f[t * up] * at[t * step];
        return total;
    }
};

// A tile of y and its plane. Element [y, x, c] of the plane lies at (y * width + x) * pixel + c, where c counts from
// the first channel of the tile.
template <class T, bool kLast>
struct Tile {
    static constexpr int C = kChannels<kLast>;
    const T* x;
    T* y;
    std::int64_t pixel;
    int channels, ox, oy, ix, iy;  // the first output, and the first input

    __device__ __forceinline__ Tile(const Upfirdn2dParams& p, const Plan& plan) {
        const unsigned tile = blockIdx.x, row_of_tiles = tile / plan.tiles_x, plane = row_of_tiles / plan.tiles_y;
        ox = int(tile % plan.tiles_x) * plan.x, oy = int(row_of_tiles % plan.tiles_y) * plan.y;
        pixel = kLast ? p.c : 1;
        const unsigned blocks = kLast ? unsigned((p.c + C - 1) / C) : 1, image = plane / blocks;
        const std::int64_t c0 = std::int64_t(plane % blocks) * C;
        channels = kLast ? int(min(std::int64_t(C), p.c - c0)) : 1;
        x = static_cast<const T*>(p.x) + image * p.h.in * p.w.in * pixel + c0;
        y = static_cast<T*>(p.y) + image * p.h.out * p.w.out * pixel + c0;
        iy = plan.h.first_input(oy), ix = plan.w.first_input(ox);
    }

    // Row r of the inputs of the tile, by a warp: `line` numbers, 0 outside x.
    __device__ __forceinline__ void load_row(const Upfirdn2dParams& p, const Plan& plan, int r, int lane, int line,
                                             Wide<T>* to) const {
        const bool inside_y = iy + r >= 0 && iy + r < plan.h.in;
        for (int j = lane; j < line; j += 32) {
            const int at = ix + j / C;
            const bool inside = inside_y && at >= 0 && at < plan.w.in && j % C < channels;
            to[j] = inside ? widen(x[((iy + r) * p.w.in + at) * pixel + j % C]) : Wide<T>(0);
        }
    }

    // Writes number j of row r of the outputs of the tile, unless it is outside y.
    __device__ __forceinline__ void store(const Upfirdn2dParams& p, const Plan& plan, int r, int j, Wide<T> v) const {
        const int row = oy + r, column = ox + j / C;
        if (row < plan.h.out && column < plan.w.out && j % C < channels)
            y[(row * p.w.out + column) * pixel + j % C] = narrow<T>(v);
    }
};

template <class T, bool kLast, bool kSeparable>
__global__ void __launch_bounds__(kThreads) by_tiles(Upfirdn2dParams p, Plan plan) {
    using S = Wide<T>;
    constexpr int C = kChannels<kLast>;
    __shared__ S memory[kBytes / sizeof(S)];
    __shared__ int row_tap[kMost], row_input[kMost], column_tap[kMost], column_input[kMost];
    const FirAxisOf<int>&h = plan.h, &w = plan.w;
    const int thread = int(threadIdx.x), lane = thread % 32, warp = thread / 32;
    const Tile<T, kLast> tile(p, plan);

    if (thread < plan.y) {
        row_tap[thread] = h.first_tap(tile.oy + thread);
        row_input[thread] = h.first_input(tile.oy + thread) - tile.iy;
    } else if (thread >= kMost && thread - kMost < plan.x) {
        column_tap[thread - kMost] = w.first_tap(tile.ox + thread - kMost);
        column_input[thread - kMost] = w.first_input(tile.ox + thread - kMost) - tile.ix;
    }
    S* weights = memory;
    const int size = kSeparable ? w.taps : h.taps * w.taps;
    for (int i = thread; i < size; i += kThreads) weights[i] = S(p.f[p.flip ? i : size - 1 - i]);

    S* in = memory + plan.weights;
    const int in_line = plan.in_x * C, line = plan.x * C;
    for (int r = warp; r < plan.in_y; r += kWarps) tile.load_row(p, plan, r, lane, in_line, in + r * in_line);
    __syncthreads();

    const S gain = S(p.gain);
    if constexpr (kSeparable) {
        S* part = in + plan.in_y * in_line;
        for (int j = lane; j < line; j += 32) {
            const Line<S> taps(weights, column_tap[j / C], w.up, w.taps);
            const S* from = in + column_input[j / C] * C + j % C;
            for (int r = warp; r < plan.in_y; r += kWarps) part[r * line + j] = taps.sum(from + r * in_line, C);
        }
        __syncthreads();
        for (int r = warp; r < plan.y; r += kWarps) {
            const Line<S> taps(weights, row_tap[r], h.up, h.taps);
            const S* from = part + row_input[r] * line;
            for (int j = lane; j < line; j += 32) tile.store(p, plan, r, j, taps.sum(from + j, line) * gain);
        }
    } else {
        for (int r = warp; r < plan.y; r += kWarps)
            for (int j = lane; j < line; j += 32) {
                const S* from = in + row_input[r] * in_line + column_input[j / C] * C + j % C;
                S total = 0;
                for (int k = row_tap[r]; k < h.taps; k += h.up, from += in_line)
                    total += Line<S>(weights + k * w.taps, column_tap[j / C], w.up, w.taps).sum(from, C);
                tile.store(p, plan, r, j, total * gain);
            }
    }
}

// One output for each thread, for filters that fit into no tile.
template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 0) one_by_one(Upfirdn2dParams p) {
    using S = Wide<T>;
    const std::int64_t i = std::int64_t(blockIdx.x) * kThreads + threadIdx.x;
    if (i >= p.n * p.c * p.h.out * p.w.out) return;
    const std::int64_t pixel = p.channels_last ? p.c : 1, c = i % pixel, at = i / pixel;
    const std::int64_t ox = at % p.w.out, oy = at / p.w.out % p.h.out, plane = at / p.w.out / p.h.out;
    const T* x = static_cast<const T*>(p.x) + plane * p.h.in * p.w.in * pixel + c;
    const auto weight = [&](std::int64_t k, std::int64_t size) { return S(p.f[p.flip ? k : size - 1 - k]); };
    const std::int64_t first_tap = p.w.first_tap(ox), first_input = p.w.first_input(ox);
    S total = 0;
    std::int64_t iy = p.h.first_input(oy);
    for (std::int64_t ky = p.h.first_tap(oy); ky < p.h.taps; ky += p.h.up, ++iy) {
        if (iy < 0 || iy >= p.h.in) continue;
        S part = 0;
        std::int64_t ix = first_input;
        for (std::int64_t kx = first_tap; kx < p.w.taps; kx += p.w.up, ++ix)
            if (ix >= 0 && ix < p.w.in)
                part += widen(x[(iy * p.w.in + ix) * pixel]) *
                        (p.separable ? weight(kx, p.w.taps) : weight(ky * p.w.taps + kx, p.h.taps * p.w.taps));
        total += p.separable ? part * weight(ky, p.h.taps) : part;
    }
    static_cast<T*>(p.y)[i] = narrow<T>(total * S(p.gain));
}

template <class T, bool kLast>
void run(const Upfirdn2dParams& p, std::uintptr_t stream) {
    if (StripPlan::fits(p)) return run_strips<T>(p, stream);
    Plan plan;
    if (!plan.fit(p, kChannels<kLast>, kBytes / sizeof(Wide<T>))) {
        const std::int64_t blocks = divide_up(p.n * p.c * p.h.out * p.w.out, kThreads);
        return launch("upfirdn2d", one_by_one<T>, blocks, kThreads, stream, p);
    }
    const auto kernel = p.separable ? by_tiles<T, kLast, true> : by_tiles<T, kLast, false>;
    launch("upfirdn2d", kernel, plan.planes * plan.tiles_y * plan.tiles_x, kThreads, stream, p, plan);
}

template <class T>
void run_with_layout(const Upfirdn2dParams& p, std::uintptr_t stream) {
    return p.channels_last ? run<T, true>(p, stream) : run<T, false>(p, stream);
}

}  // namespace

void upfirdn2d(const Upfirdn2dParams& p, std::uintptr_t stream) {
    with_dtype(p.dtype, [&](auto stored) { run_with_layout<typename decltype(stored)::T>(p, stream); });
}

}  // namespace cuda
}  // namespace gan_engine
