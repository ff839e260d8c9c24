// The matrix product that takes nearly all of the time of a convolution by minimal filtering.
#pragma once

#include <cstring>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace minimal {

constexpr std::int64_t kPanel = 32;  // columns of a product that lie together in memory: a panel
constexpr std::int64_t kLine = 16;   // floats in a line of the cache

// A product is computed in pieces of kRows rows and kRegs registers, whose sums fill the registers. AVX2 has sixteen
// registers, and twelve sums hide the latency of a multiplication where eight did not: 60 and 85 % of the peak.
#if defined(__AVX512F__)
constexpr int kRows = 8;
#elif defined(__aarch64__)
constexpr int kRows = 8;  // 16 of 32 registers; not measured
#elif defined(__AVX2__)
constexpr int kRows = 6;
#else
constexpr int kRows = 4;
#endif
using Register = RegF;
constexpr int kRegs = 2, kRegLanes = sizeof(Register) / 4;

// A call takes as long as a few rounds of the inner loop. AVX-512, inside the caller / as a call: the gradient by a
// weight of 256 channels, 32x32 pixels, 0.96 / 1.08 (2026-11). AVX2 has products of two sizes, which share no
// registers.
#if defined(__AVX512F__)
#define GE_PRODUCT GE_INLINE
#else
#define GE_PRODUCT [[gnu::noinline]] inline
#endif

// c [kCount, 32] = a [kCount, depth] b [depth, 32], added to c where `add`. Element (r, k) of a lies at a[r * row +
// k * step]. Meanwhile `ahead` lines from `soon` on are fetched into the cache.
template <int kCount>
GE_PRODUCT void multiply_rows(const float* a, std::int64_t row, std::int64_t step, const float* b, float* c,
                              std::int64_t depth, bool add, const float* soon, std::int64_t ahead) {
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
            if (k < ahead) __builtin_prefetch(soon + k * kLine);
            Register right[kRegs];
            for (int j = 0; j < kRegs; ++j) right[j] = load_bytes<Register>(b + k * kPanel + col + j * kRegLanes);
#pragma GCC unroll 16
            for (int r = 0; r < kCount; ++r) {
                const Register left = splat<Register>(a[r * row + k * step]);
                for (int j = 0; j < kRegs; ++j) sums[r][j] += left * right[j];
            }
        }
        if (add) each([](Register& sum, const float* at) { sum += load_bytes<Register>(at); });
        each([](const Register& sum, float* at) { std::memcpy(at, &sum, sizeof sum); });
    }
}

// How many rows a product of at least `rows` rows has. AVX2 takes a piece or two of four rows where six do not divide
// them.
constexpr std::int64_t whole_rows(std::int64_t rows) {
    if (kRows != 6) return (rows + kRows - 1) / kRows * kRows;
    return rows <= 4 ? 4 : (rows + 1) / 2 * 2;
}

// The first rows of a product of `rows` whole rows, as above; returns how many.
GE_INLINE std::int64_t multiply(std::int64_t rows, const float* a, std::int64_t row, std::int64_t step, const float* b,
                                float* c, std::int64_t depth, bool add, const float* soon, std::int64_t ahead) {
    if (kRows == 6 && rows % 6 != 0) return multiply_rows<4>(a, row, step, b, c, depth, add, soon, ahead), 4;
    return multiply_rows<kRows>(a, row, step, b, c, depth, add, soon, ahead), kRows;
}

}  // namespace minimal
}  // namespace GE_ISA
}  // namespace gan_engine
