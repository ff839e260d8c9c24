#include "../relayout.h"

#include <algorithm>

#include "threads.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

constexpr int kRegLanes = kLanesOf<RegF>;

// Moves `rows` x `cols` numbers of x, whose rows are `apart` apart, to the first `cols` rows `y`, from column `at` on.
GE_INLINE void move_square(const float* x, std::int64_t apart, float* const* y, std::int64_t at, std::int64_t rows,
                           std::int64_t cols) {
    RegF v[kRegLanes] = {};
    if (rows >= kRegLanes && cols >= kRegLanes) {
        for (int i = 0; i < kRegLanes; ++i) v[i] = load<RegF>(x + i * apart);
        transpose_square(v);
        for (int i = 0; i < kRegLanes; ++i) store(y[i] + at, v[i], false);
    } else {
        for (std::int64_t i = 0; i < std::min<std::int64_t>(rows, kRegLanes); ++i)
            v[i] = load_up_to<RegF>(x + i * apart, cols);
        transpose_square(v);
        for (std::int64_t i = 0; i < std::min<std::int64_t>(cols, kRegLanes); ++i) store_up_to(y[i] + at, rows, v[i]);
    }
}

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
                        move_square(x + (row + r) * p.cols + c, p.cols, y + c, row + r, rows - r, cols - c);
            }
        }
    });
}

}  // namespace GE_ISA
}  // namespace gan_engine
