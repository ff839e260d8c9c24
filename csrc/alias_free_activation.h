// y = down(h(u)), u = up(x), h(u) = u + b sin^2(alpha u), along rows; gan_engine/ops/alias_free_activation.py is the
// definition. Images have the filters along both axes.
//
// `up` and `down` change the number of elements by 2, with 12 taps; both repeat the border of a row. up^T and down^T
// are their adjoints.
#pragma once

#include "common.h"

namespace gan_engine {

// The rows of x [rows, size]; row r has the numbers alpha and b of channel r % channels.
struct AliasFreeRows {
    const void* x;
    const void* alpha;  // wide [channels]
    const void* b;      // as alpha
    const float* fu;    // [12]
    const float* fd;    // [12]
    std::int64_t rows, channels, size;
    DType dtype;

    auto fields() { return std::tie(x, alpha, b, fu, fd, rows, channels, size, dtype); }
};

// The images x [n, c, h, w], or [n, h, w, c] where channels_last.
struct AliasFreeImages {
    const void* x;
    const void* alpha;  // wide [c]
    const void* b;      // as alpha
    const float* fu;    // [12]
    const float* fd;    // [12]
    std::int64_t n, c, h, w;
    DType dtype;
    bool channels_last;

    auto fields() { return std::tie(x, alpha, b, fu, fd, n, c, h, w, dtype, channels_last); }
};

// Of is one of the two.
template <class Of>
struct AliasFreeValueOf {
    Of of;
    void* y;

    auto fields() { return std::tuple_cat(of.fields(), std::tie(y)); }
};

// Sums are wide: [2, rows, pieces], with a share for each piece of a row, or [2, pieces, n, c] for the pieces of
// images. They are the gradients by alpha and by b.
//
//     dx = up^T(h'(u) * a), sums of a * dh/dalpha and of a * dh/db, where a = down^T(dy)
template <class Of>
struct AliasFreeGradOf {
    Of of;
    const void* dy;
    void* dx;
    void* sums;

    auto fields() { return std::tuple_cat(of.fields(), std::tie(dy, dx, sums)); }
};

// The gradients of <v, dx> + <v_alpha, dalpha> + <v_b, db> by dy, x, alpha and b. With w = up(v), and q the derivative
// of h(u) along (w, v_alpha, v_b):
//
//     d_dy = down(q), d_x = up^T(a * dq/du), sums of a * dq/dalpha and of a * dq/db
template <class Of>
struct AliasFreeSecondOf {
    Of of;
    const void* dy;
    const void* v;
    const void* v_alpha;  // wide [channels]
    const void* v_b;      // as v_alpha
    void* d_dy;
    void* d_x;
    void* sums;

    auto fields() { return std::tuple_cat(of.fields(), std::tie(dy, v, v_alpha, v_b, d_dy, d_x, sums)); }
};

using AliasFreeParams = AliasFreeValueOf<AliasFreeRows>;
using AliasFreeGradParams = AliasFreeGradOf<AliasFreeRows>;
using AliasFreeSecondParams = AliasFreeSecondOf<AliasFreeRows>;
using AliasFreeImageParams = AliasFreeValueOf<AliasFreeImages>;
using AliasFreeImageGradParams = AliasFreeGradOf<AliasFreeImages>;
using AliasFreeImageSecondParams = AliasFreeSecondOf<AliasFreeImages>;

}  // namespace gan_engine
