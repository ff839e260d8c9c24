#include "../relayout.h"

#include "threads.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {

// The inner loop runs over rows, so that y is written in 16 streams.
void relayout(const RelayoutParams& p, int threads) {
    const std::int64_t blocks = (p.cols + kLanes - 1) / kLanes, items = p.n * blocks;
    const int parts = threads_for(p.n * p.rows * p.cols, threads);
    in_parallel(parts, [&](int part) {
        for (std::int64_t item = items * part / parts; item < items * (part + 1) / parts; ++item) {
            const std::int64_t n = item / blocks, col = item % blocks * kLanes;
            const std::int64_t cols = p.cols - col < kLanes ? p.cols - col : kLanes;
            const float* x = p.x + n * p.rows * p.cols + col;
            float* y[kLanes];
            for (std::int64_t i = 0; i < cols; ++i) {
                const std::int64_t c = col + i, k = c % p.reversed;
                y[i] = p.y + (n * p.cols + c - k + (p.reversed - 1 - k)) * p.rows;
            }
            for (std::int64_t row = 0; row < p.rows; row += kLanes) {
                const std::int64_t rows = p.rows - row < kLanes ? p.rows - row : kLanes;
                VecF v[kLanes] = {};
                if (cols == kLanes)
                    for (std::int64_t i = 0; i < rows; ++i) v[i] = load(x + (row + i) * p.cols);
                else
                    for (std::int64_t i = 0; i < rows; ++i) v[i] = load_some<VecF>(x + (row + i) * p.cols, cols);
                transpose(v);
                if (rows == kLanes)
                    for (std::int64_t i = 0; i < cols; ++i) store(y[i] + row, v[i], false);
                else
                    for (std::int64_t i = 0; i < cols; ++i) store_some(y[i] + row, v[i], rows);
            }
        }
    });
}

}  // namespace GE_ISA
}  // namespace gan_engine
