// The matrix product that takes nearly all of the time of a convolution by minimal filtering.
#pragma once

#include <cstring>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace minimal {

constexpr std::int64_t kPanel = 32;  // columns of a product that lie together in memory: a panel
constexpr std::int64_t kLine = 16;   // floats in a line of the cache

// A product is computed in pieces of kRows rows and kRegs registers, so that its sums fill the registers.
#if defined(__AVX512F__)
constexpr int kRows = 8;
using Register = VecF;
#elif defined(__AVX2__)
constexpr int kRows = 4;
using Register = float __attribute__((vector_size(32)));
#else
constexpr int kRows = 4;
using Register = float __attribute__((vector_size(16)));
#endif
constexpr int kRegs = 2, kRegLanes = sizeof(Register) / 4;

// c [kRows, 32] = a [kRows, depth] b [depth, 32], added to c where `add`. Element (r, k) of a is a[r * row + k * step].
// Meanwhile `ahead` lines from `soon` on are fetched into the cache.
GE_INLINE void multiply(const float* a, std::int64_t row, std::int64_t step, const float* b, float* c,
                        std::int64_t depth, bool add, const float* soon, std::int64_t ahead) {
    for (int col = 0; col < kPanel; col += kRegs * kRegLanes) {
        Register sums[kRows][kRegs] = {};
        for (std::int64_t k = 0; k < depth; ++k) {
            if (k < ahead) __builtin_prefetch(soon + k * kLine);
            Register right[kRegs];
            for (int j = 0; j < kRegs; ++j) right[j] = load_bytes<Register>(b + k * kPanel + col + j * kRegLanes);
            for (int r = 0; r < kRows; ++r) {
                const Register left = splat<Register>(a[r * row + k * step]);
                for (int j = 0; j < kRegs; ++j) sums[r][j] += left * right[j];
            }
        }
        for (int r = 0; r < kRows; ++r)
            for (int j = 0; j < kRegs; ++j) {
                float* at = c + r * kPanel + col + j * kRegLanes;
                if (add) sums[r][j] += load_bytes<Register>(at);
                std::memcpy(at, &sums[r][j], sizeof(Register));
            }
    }
}

}  // namespace minimal
}  // namespace GE_ISA
}  // namespace gan_engine
