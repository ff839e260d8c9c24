#include "../relayout.h"

#include <algorithm>

#include "squares.h"
#include "threads.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

constexpr int kRegLanes = kLanesOf<RegF>;

}  // namespace

// The inner loop runs over rows, so that y is written in 16 streams, whole lines of the cache at a time.
void relayout(const RelayoutParams& p, int threads) {
    const std::int64_t blocks = (p.cols + kLanes - 1) / kLanes, items = p.n * blocks;
    const int parts = threads_for(p.n * p.rows * p.cols, threads);
    in_parallel(parts, [&](int part) {
        for (std::int64_t item = items * part / parts; item < items * (part + 1) / parts; ++item) {
            const std::int64_t n = item / blocks, col = item % blocks * kLanes;
            const std::int64_t cols = std::min<std::int64_t>(p.cols - col, kLanes);
            const float* x = p.x + n * p.rows * p.cols + col;
            float* y[kLanes];
            for (std::int64_t i = 0; i < cols; ++i) {
                const std::int64_t c = col + i, k = c % p.reversed;
                y[i] = p.y + (n * p.cols + c - k + (p.reversed - 1 - k)) * p.rows;
            }
            for (std::int64_t row = 0; row < p.rows; row += kLanes) {
                const std::int64_t rows = std::min<std::int64_t>(p.rows - row, kLanes);
                for (std::int64_t c = 0; c < cols; c += kRegLanes)
                    for (std::int64_t r = 0; r < rows; r += kRegLanes)
                        transpose_numbers(
                            x + (row + r) * p.cols + c, p.cols, [&](std::int64_t i) { return y[c + i] + row + r; },
                            rows - r, cols - c);
            }
        }
    });
}

}  // namespace GE_ISA
}  // namespace gan_engine
