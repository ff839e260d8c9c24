// Sums over the rows and over the columns of images, by blocks that each take a band of rows of one image. `lanes`
// threads lie along a row, so a row belongs to one warp. Blocks of columns come one after another. The sums along a row
// are therefore complete, and a band is a slot of sums along columns.
#pragma once

#include <algorithm>

#include "launch.h"
#include "matrix.h"

namespace gan_engine {
namespace cuda {

constexpr int kBandThreads = 256;
// The rows of all images are split over about kBandBlocks bands: 8 for each of 132 multiprocessors. A band has at least
// kLeastBand rows, and at most kMostBand. All are estimates, untested on a GPU.
constexpr std::int64_t kBandBlocks = 132 * 8, kLeastBand = 16;
constexpr int kMostBand = 512;

struct Bands {
    unsigned slots;
    int rows, lanes;

    Bands(std::int64_t n, std::int64_t height, std::int64_t cols) : lanes(1) {
        const std::int64_t wanted =
            std::min(divide_up(height, kLeastBand), divide_up(kBandBlocks, std::max<std::int64_t>(n, 1)));
        const std::int64_t split = std::max(wanted, divide_up(height, kMostBand));
        if (split > 0x7fffffff) throw std::runtime_error("scale_bias_act_grad: x has too many rows for one CUDA grid");
        slots = unsigned(split);
        rows = int(divide_up(height, slots));
        while (lanes < 32 && lanes * 8 < cols) lanes *= 2;
    }
};

// The band of a block, and the place of a thread in it.
struct Band {
    unsigned image, slot;
    int lane, down, height, rows, lanes;  // the thread has rows down, down + height, ...
    std::int64_t first, start, cols;      // the first row: of its image, and of all

    template <class Params>
    __device__ __forceinline__ Band(const Params& p, const Bands& plan)
        : image(blockIdx.x / plan.slots),
          slot(blockIdx.x % plan.slots),
          lane(int(threadIdx.x) % plan.lanes),
          down(int(threadIdx.x) / plan.lanes),
          height(kBandThreads / plan.lanes),
          lanes(plan.lanes),
          first(std::int64_t(slot) * plan.rows),
          start(image * p.rows + first),
          cols(p.cols) {
        rows = int(max(std::int64_t(0), min(std::int64_t(plan.rows), p.rows - first)));
    }

    // Calls `round(r, at, byte, inside)` for the rows of a thread, equally often in all threads of a block: the row in
    // the band, the first of the thread's elements and its byte of mask bits, and whether there is such a row.
    template <class Round>
    __device__ __forceinline__ void each_row(std::int64_t column, std::int64_t line, const Round& round) const {
        std::int64_t at = (start + down) * cols + column, byte = (start + down) * line + column / 8;
        for (int r0 = 0; r0 < rows; r0 += height, at += height * cols, byte += height * line)
            round(r0 + down, at, byte, r0 + down < rows && column < cols);
    }

    // Adds the sum of v over a row to its sum in shared memory.
    template <class S>
    __device__ __forceinline__ void add_to_row(double* sums, int r, const S (&v)[8]) const {
        S sum = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            if (distance < lanes) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
        if (lane == 0 && r < rows) sums[r] += sum;
    }

    // Writes the sums of v over the rows of the band to columns block, block + 1, ... of this slot of [slots, n, cols].
    template <class S>
    __device__ __forceinline__ void store_columns(S* to, std::int64_t n, std::int64_t block, const S (&v)[8]) const {
        __shared__ S all[8][kBandThreads + 4];  // 4 more, so that a warp reads 32 banks below
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 8; ++k) all[k][threadIdx.x] = v[k];
        __syncthreads();
        const int column = int(threadIdx.x);
        if (column >= lanes * 8 || block + column >= cols) return;
        double sum = 0;
        for (int t = column / 8; t < kBandThreads; t += lanes) sum += all[column % 8][t];
        to[(std::int64_t(slot) * n + image) * cols + block + column] = S(sum);
    }
};

}  // namespace cuda
}  // namespace gan_engine
