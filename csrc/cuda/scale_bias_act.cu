#include "../scale_bias_act.h"

#include "affine.h"
#include "launch.h"
#include "matrix.h"

// A thread keeps to 8 columns of an image and runs down some of its rows, so that it reads what belongs to the columns
// once. What belongs to a row is one number for each thread.

namespace gan_engine {
namespace cuda {
namespace {

constexpr int kThreads = 256;
// Rows of a thread: enough to make its start cheap (from instruction counts, untested on a GPU).
constexpr int kRows = 8;

struct Grid {
    unsigned groups, bands, threads;  // eights of columns, and bands of rows, of an image

    explicit Grid(const ScaleBiasActParams& p) {
        const std::int64_t across = divide_up(p.cols, 8), down = divide_up(p.rows, kRows);
        if (p.n * across * down > 0xffffff00)
            throw std::runtime_error("scale_bias_act: x is too large for one CUDA grid");
        groups = unsigned(across), bands = unsigned(down), threads = unsigned(p.n * across * down);
    }
};

template <class T, bool kLast, bool kWhole>
__global__ void __launch_bounds__(kThreads) forward(ScaleBiasActParams p, Activation<Wide<T>> activation, Grid grid) {
    using S = Wide<T>;
    const unsigned thread = blockIdx.x * kThreads + threadIdx.x;
    if (thread >= grid.threads) return;
    const unsigned group = thread % grid.groups, above = thread / grid.groups, image = above / grid.bands;
    const std::int64_t first = std::int64_t(group) * 8, row = std::int64_t(above % grid.bands) * kRows;
    const int columns = int(min(std::int64_t(8), p.cols - first)), rows = int(min(std::int64_t(kRows), p.rows - row));

    Broadcast<S, kLast, kWhole> scale(p.scale, image * (kLast ? p.cols : p.rows), 1), b(p.b, 0, 0);
    Broadcast<S, !kLast, kWhole> noise(p.noise, p.noise_n > 1 ? image * (kLast ? p.rows : p.cols) : 0, 0);
    scale.at_columns(first, columns), b.at_columns(first, columns), noise.at_columns(first, columns);

    const std::int64_t start = image * p.rows + row, line = mask_bytes(p.cols);
    const T* x = static_cast<const T*>(p.x) + start * p.cols + first;
    T* y = static_cast<T*>(p.y) + start * p.cols + first;
    std::int64_t byte = start * line + group;
    for (int r = 0; r < rows; ++r, x += p.cols, y += p.cols, byte += line) {
        scale.at_row(row + r), b.at_row(row + r), noise.at_row(row + r);
        S v[8];
        load_eight<kWhole>(v, x, columns);
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] = v[k] * scale[k] + b[k] + noise[k];
        unsigned slope, keep;
        activation.run(v, slope, keep);
        store_eight<kWhole>(y, v, columns);
        if (p.slope != nullptr) p.slope[byte] = std::uint8_t(slope);
        if (p.keep != nullptr) p.keep[byte] = std::uint8_t(keep);
    }
}

template <class T, bool kLast>
void run(const ScaleBiasActParams& p, std::uintptr_t stream) {
    const Grid grid(p);
    const bool whole = p.cols % 8 == 0 && is_aligned(p.x) && is_aligned(p.y) && is_aligned(p.scale) &&
                       is_aligned(p.b) && is_aligned(p.noise);
    const auto kernel = whole ? forward<T, kLast, true> : forward<T, kLast, false>;
    launch("scale_bias_act", kernel, divide_up(grid.threads, kThreads), kThreads, stream, p,
           Activation<Wide<T>>(p.alpha, p.gain, p.clamp), grid);
}

}  // namespace

void scale_bias_act(const ScaleBiasActParams& p, std::uintptr_t stream) {
    with_dtype(p.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        return p.channels_last ? run<T, true>(p, stream) : run<T, false>(p, stream);
    });
}

}  // namespace cuda
}  // namespace gan_engine
