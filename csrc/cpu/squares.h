// Matrices that change places with their transposes, square by square in registers.
#pragma once

#include <algorithm>

#include "vec.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {

// y_i[k] = x[k * apart + i] for i < cols and k < rows, as far as a square of registers reaches. y(i) is the address
// y_i.
template <class Y>
GE_INLINE void transpose_numbers(const float* x, std::int64_t apart, const Y& y, std::int64_t rows, std::int64_t cols) {
    constexpr int n = kLanesOf<RegF>;
    RegF v[n] = {};
    if (rows >= n && cols >= n) {
        for (int i = 0; i < n; ++i) v[i] = load<RegF>(x + i * apart);
        transpose_square(v);
        for (int i = 0; i < n; ++i) store(y(i), v[i], false);
    } else {
        for (std::int64_t i = 0; i < std::min<std::int64_t>(rows, n); ++i) v[i] = load_up_to<RegF>(x + i * apart, cols);
        transpose_square(v);
        for (std::int64_t i = 0; i < std::min<std::int64_t>(cols, n); ++i) store_up_to(y(i), rows, v[i]);
    }
}

}  // namespace GE_ISA
}  // namespace gan_engine
