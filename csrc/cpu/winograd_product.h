// The matrix product that takes nearly all of the time of a convolution by minimal filtering.
#pragma once

#include <algorithm>
#include <cstring>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace minimal {

constexpr std::int64_t kPanel = 32;  // columns of a product that lie together in memory: a panel
constexpr std::int64_t kLine = 16;   // floats in a line of the cache
constexpr int kSecondLevel = 2;      // of the cache, as __builtin_prefetch numbers it

// A product is computed in pieces of kRows rows and kRegs registers, whose sums fill the registers. AVX2 has sixteen
// registers: twelve sums, three numbers of the left factor and one register of the right one. Three rows of a whole
// panel take seven loads for twelve multiplications, and six rows of half a panel take eight. GFLOP/s from the
// first-level cache, three rows / six / four of half a panel: 133 / 124 / 111 of 134 (Intel Xeon, 2026-11).
#if defined(__AVX512F__)
constexpr int kRows = 8, kRegs = 2;
#elif defined(__aarch64__)
constexpr int kRows = 8, kRegs = 2;  // 16 of 32 registers; not measured
#elif defined(__AVX2__)
constexpr int kRows = 3, kRegs = 4;
#else
constexpr int kRows = 4, kRegs = 2;
#endif
using Register = RegF;
constexpr int kRegLanes = sizeof(Register) / 4;

// Lines at `from` + offsets, which products fetch into the cache while they multiply: each piece the next `share`
// lines, but at most one for each step of its sum.
struct Fetch {
    const float* from;
    const std::int32_t *next, *end;
    std::int64_t share;
};

// c [pieces kCount, 32] = a [pieces kCount, depth] b [depth, 32], added to c where `add`. Element (r, k) of a lies at
// a[r * row + k * step]. Meanwhile each piece fetches `ahead` lines side by side, the first one from `soon` on, and its
// share of `fetch` where kFetch.
template <int kCount, bool kFetch>
[[gnu::noinline]] inline void multiply_pieces(std::int64_t pieces, const float* a, std::int64_t row, std::int64_t step,
                                              const float* b, float* c, std::int64_t depth, bool add, const float* soon,
                                              std::int64_t ahead, Fetch* fetch) {
    for (; pieces > 0; --pieces, a += kCount * row, c += kCount * kPanel, soon += ahead * kLine) {
        const float* const from = kFetch ? fetch->from : nullptr;
        const std::int32_t* const offsets = kFetch ? fetch->next : nullptr;
        const std::int64_t lines = kFetch ? std::min<std::int64_t>({fetch->share, fetch->end - offsets, depth}) : 0;
        if (kFetch) fetch->next += lines;
        for (int col = 0; col < kPanel; col += kRegs * kRegLanes) {
            // Loops over registers are unrolled, so that the sums are never in memory.
            Register sums[kCount][kRegs];
            const auto each = [&](const auto& run) {
#pragma GCC unroll 16
                for (int r = 0; r < kCount; ++r)
#pragma GCC unroll 4
                    for (int j = 0; j < kRegs; ++j) run(sums[r][j], c + r * kPanel + col + j * kRegLanes);
            };
            each([](Register& sum, const float*) { sum = Register{}; });
            for (std::int64_t k = 0; k < depth; ++k) {
                if (col == 0 && k < ahead) __builtin_prefetch(soon + k * kLine);
                if (kFetch && col == 0 && k < lines) __builtin_prefetch(from + offsets[k], 0, kSecondLevel);
                const auto left = [&](int r) { return splat<Register>(a[r * row + k * step]); };
                const auto right = [&](int j) { return load_bytes<Register>(b + k * kPanel + col + j * kRegLanes); };
                // The factor of which there is less stays in registers.
                if constexpr (kCount < kRegs) {
                    Register lefts[kCount];
#pragma GCC unroll 16
                    for (int r = 0; r < kCount; ++r) lefts[r] = left(r);
#pragma GCC unroll 4
                    for (int j = 0; j < kRegs; ++j) {
                        Register one = right(j);
                        read_once(one);  // y takes 3.1 ms instead of 3.2 (AVX2, 512 channels, 4x4, batch 8, 2026-12)
#pragma GCC unroll 16
                        for (int r = 0; r < kCount; ++r) sums[r][j] += lefts[r] * one;
                    }
                } else {
                    Register rights[kRegs];
                    for (int j = 0; j < kRegs; ++j) rights[j] = right(j);
#pragma GCC unroll 16
                    for (int r = 0; r < kCount; ++r) {
                        const Register one = left(r);
                        for (int j = 0; j < kRegs; ++j) sums[r][j] += one * rights[j];
                    }
                }
            }
            if (add) each([](Register& sum, const float* at) { sum += load_bytes<Register>(at); });
            each([](const Register& sum, float* at) { std::memcpy(at, &sum, sizeof sum); });
        }
    }
}

// How many rows a product of at least `rows` rows has. AVX2 takes a piece or two of two rows where three do not divide
// them.
constexpr std::int64_t whole_rows(std::int64_t rows) {
    if (kRows != 3) return (rows + kRows - 1) / kRows * kRows;
    return rows < 2 ? 2 : rows;
}

// How many pieces have two rows, and how many pieces a product of `rows` whole rows has.
constexpr std::int64_t pairs_of(std::int64_t rows) { return kRows == 3 && rows % 3 != 0 ? 3 - rows % 3 : 0; }
constexpr std::int64_t pieces_of(std::int64_t rows) { return pairs_of(rows) + (rows - 2 * pairs_of(rows)) / kRows; }

// A product of `rows` whole rows, as above.
GE_INLINE void multiply(std::int64_t rows, const float* a, std::int64_t row, std::int64_t step, const float* b,
                        float* c, std::int64_t depth, bool add, const float* soon, std::int64_t ahead, Fetch* fetch) {
    const auto whole = fetch == nullptr ? multiply_pieces<kRows, false> : multiply_pieces<kRows, true>;
    const auto two = fetch == nullptr ? multiply_pieces<2, false> : multiply_pieces<2, true>;
    if (const std::int64_t pairs = pairs_of(rows); pairs > 0) {
        two(pairs, a, row, step, b, c, depth, add, soon, ahead, fetch);
        rows -= 2 * pairs, a += 2 * pairs * row, c += 2 * pairs * kPanel, soon += pairs * ahead * kLine;
    }
    whole(rows / kRows, a, row, step, b, c, depth, add, soon, ahead, fetch);
}

}  // namespace minimal
}  // namespace GE_ISA
}  // namespace gan_engine
