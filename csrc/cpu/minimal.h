// Winograd's algorithms, each of which makes a tile of y of a tile of x and the weight. Along one axis, with fewer
// products than the kOut kTaps of the definition:
//
//     y = A^T (G w * B^T x)        # x [kIn], w [kTaps], y [kOut], the product elementwise over kPoints numbers
//
// and along two axes the same with the tensor products of A, G and B. A tile of x begins kInStep pixels after the one
// before it. `input` is B^T, `output` A^T, `weight` G; adjoints are for the gradient by the weight. G w has kWeights
// numbers: the last one is that of all points from there on. Those of transposed convolutions are kUp, and kFromOdd
// where their tiles of y begin at an odd pixel of the padded y.
#pragma once

#include <array>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace minimal {

// y[i] = w0 x[i] + w1 x[i+1] + w2 x[i+2] for two i: F(2, 3), at the points 0, 1, -1 and infinity.
struct K3 {
    static constexpr int kTaps = 3, kIn = 4, kInStep = 2, kOut = 2, kPoints = 4, kWeights = 4;
    static constexpr bool kUp = false;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        v[0] = x[0] - x[2], v[1] = x[1] + x[2], v[2] = x[2] - x[1], v[3] = x[1] - x[3];
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = -y[1];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        const V ends = w[0] + w[2];
        u[0] = w[0], u[1] = 0.5f * (ends + w[1]), u[2] = 0.5f * (ends - w[1]), u[3] = w[2];
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        const V both = 0.5f * (u[1] + u[2]);
        w[0] = u[0] + both, w[1] = 0.5f * (u[1] - u[2]), w[2] = both + u[3];
    }
};

// The same for four i: F(4, 3). At the usual points 0, 1, -1, 2, -2 its errors are twice as large as at these: 0, a,
// -a, b, -b and infinity, a = 3/4, b = 3/2 (numbers from a normal distribution, 64 to 512 channels).
struct K3Four {
    static constexpr int kTaps = 3, kIn = 6, kInStep = 4, kOut = 4, kPoints = 6, kWeights = 6;
    static constexpr bool kUp = false;
    static constexpr float a = 3 / 4.f, b = 3 / 2.f, aa = a * a, bb = b * b;
    static constexpr float at_0 = 1 / (aa * bb), at_a = 1 / (2 * aa * (aa - bb)), at_b = 1 / (2 * bb * (bb - aa));
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        const V even_a = x[4] - bb * x[2], odd_a = a * (x[3] - bb * x[1]);
        const V even_b = x[4] - aa * x[2], odd_b = b * (x[3] - aa * x[1]);
        v[0] = aa * bb * x[0] - (aa + bb) * x[2] + x[4];
        v[1] = even_a + odd_a, v[2] = even_a - odd_a, v[3] = even_b + odd_b, v[4] = even_b - odd_b;
        v[5] = aa * bb * x[1] - (aa + bb) * x[3] + x[5];
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        const V even_a = m[1] + m[2], odd_a = a * (m[1] - m[2]), even_b = m[3] + m[4], odd_b = b * (m[3] - m[4]);
        y[0] = m[0] + even_a + even_b, y[1] = odd_a + odd_b;
        y[2] = aa * even_a + bb * even_b, y[3] = aa * odd_a + bb * odd_b + m[5];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        const V even_a = y[0] + aa * y[2], odd_a = a * (y[1] + aa * y[3]);
        const V even_b = y[0] + bb * y[2], odd_b = b * (y[1] + bb * y[3]);
        m[0] = y[0], m[5] = y[3];
        m[1] = even_a + odd_a, m[2] = even_a - odd_a, m[3] = even_b + odd_b, m[4] = even_b - odd_b;
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        const V even_a = w[0] + aa * w[2], odd_a = a * w[1], even_b = w[0] + bb * w[2], odd_b = b * w[1];
        u[0] = at_0 * w[0], u[5] = w[2];
        u[1] = at_a * (even_a + odd_a), u[2] = at_a * (even_a - odd_a);
        u[3] = at_b * (even_b + odd_b), u[4] = at_b * (even_b - odd_b);
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        const V even_a = at_a * (u[1] + u[2]), odd_a = at_a * (u[1] - u[2]);
        const V even_b = at_b * (u[3] + u[4]), odd_b = at_b * (u[3] - u[4]);
        w[0] = at_0 * u[0] + even_a + even_b, w[1] = a * odd_a + b * odd_b, w[2] = aa * even_a + bb * even_b + u[5];
    }
};

// F(2, 2): y[i] = a x[i] + b x[i+1] in three products, of which the strides below are made, a phase of x or y each.
template <class V>
GE_INLINE void pair_input(V x0, V x1, V x2, V* v) {
    v[0] = x0 - x1, v[1] = x1, v[2] = x1 - x2;
}
template <class V>
GE_INLINE void pair_weight(V a, V b, V* u) {
    u[0] = a, u[1] = a + b, u[2] = b;
}
template <class V>
GE_INLINE void pair_weight_adjoint(const V* u, V& a, V& b) {
    a = u[0] + u[1], b = u[1] + u[2];
}
template <class V>
GE_INLINE void pair_output_adjoint(V y0, V y1, V* m) {
    m[0] = y0, m[1] = y0 + y1, m[2] = -y1;
}

// y[i] = w0 x[2i] + w1 x[2i+1] + w2 x[2i+2]
struct K3Down {
    static constexpr int kTaps = 3, kIn = 5, kInStep = 4, kOut = 2, kPoints = 5, kWeights = 4;
    static constexpr bool kUp = false;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        pair_input(x[0], x[2], x[4], v), v[3] = x[1], v[4] = x[3];
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        y[0] = m[0] + m[1] + m[3], y[1] = m[1] - m[2] + m[4];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        pair_output_adjoint(y[0], y[1], m), m[3] = y[0], m[4] = y[1];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        pair_weight(w[0], w[2], u), u[3] = w[1];
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        pair_weight_adjoint(u, w[0], w[2]), w[1] = u[3];
    }
};

// y[2i] = w0 x[i] + w2 x[i-1], by F(3, 2), and y[2i+1] = w1 x[i]
struct K3Up {
    static constexpr int kTaps = 3, kIn = 4, kInStep = 3, kOut = 6, kPoints = 7, kWeights = 5;
    static constexpr bool kUp = true, kFromOdd = false;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        v[0] = x[0] - x[2], v[1] = x[1] + x[2], v[2] = x[2] - x[1], v[3] = x[1] - x[3];
        v[4] = x[1], v[5] = x[2], v[6] = x[3];
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        const V both = m[1] + m[2];
        y[0] = m[0] + both, y[2] = m[1] - m[2], y[4] = both - m[3];
        y[1] = m[4], y[3] = m[5], y[5] = m[6];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        u[0] = w[2], u[1] = 0.5f * (w[2] + w[0]), u[2] = 0.5f * (w[2] - w[0]), u[3] = w[0], u[4] = w[1];
    }
};

// y[i] = w0 x[2i] + w1 x[2i+1] + w2 x[2i+2] + w3 x[2i+3]
struct K4Down {
    static constexpr int kTaps = 4, kIn = 6, kInStep = 4, kOut = 2, kPoints = 6, kWeights = 6;
    static constexpr bool kUp = false;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        pair_input(x[0], x[2], x[4], v), pair_input(x[1], x[3], x[5], v + 3);
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        y[0] = m[0] + m[1] + m[3] + m[4], y[1] = m[1] - m[2] + m[4] - m[5];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        pair_output_adjoint(y[0], y[1], m), pair_output_adjoint(y[0], y[1], m + 3);
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        pair_weight(w[0], w[2], u), pair_weight(w[1], w[3], u + 3);
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        pair_weight_adjoint(u, w[0], w[2]), pair_weight_adjoint(u + 3, w[1], w[3]);
    }
};

// y[2i+1] = w1 x[i] + w3 x[i-1], y[2i+2] = w0 x[i+1] + w2 x[i]
struct K4Up {
    static constexpr int kTaps = 4, kIn = 4, kInStep = 2, kOut = 4, kPoints = 6, kWeights = 6;
    static constexpr bool kUp = true, kFromOdd = true;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        pair_input(x[0], x[1], x[2], v), pair_input(x[1], x[2], x[3], v + 3);
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        y[0] = m[0] + m[1], y[2] = m[1] - m[2], y[1] = m[3] + m[4], y[3] = m[4] - m[5];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        pair_weight(w[3], w[1], u), pair_weight(w[2], w[0], u + 3);
    }
};

// The algorithm with one of them along each axis; its numbers at kPoints pairs of points are in one row.
template <class Y, class X>
struct Both {
    using Down = Y;
    using Across = X;
    static constexpr int kPoints = Y::kPoints * X::kPoints, kWeights = Y::kWeights * X::kWeights;
    static constexpr bool kUp = Y::kUp;
    template <class T>
    using In = T[Y::kIn][X::kIn];
    template <class T>
    using Out = T[Y::kOut][X::kOut];
    template <class T>
    using Taps = T[Y::kTaps][X::kTaps];
    template <class T>
    using Points = T[Y::kPoints][X::kPoints];
    template <class T>
    using Weights = T[Y::kWeights][X::kWeights];
};

#define GE_ALONG_BOTH(map, From, To)                                                                \
    template <class A, class V>                                                                     \
    GE_INLINE void map##_of(const typename A::template From<V>& x, typename A::template To<V>& y) { \
        constexpr int kFrom = sizeof(x) / sizeof(x[0]), kColumns = sizeof(y[0]) / sizeof(V);        \
        constexpr int kMapped = sizeof(y) / sizeof(y[0]);                                           \
        V half[kFrom][kColumns];                                                                    \
        for (int i = 0; i < kFrom; ++i) A::Across::map(x[i], half[i]);                              \
        for (int k = 0; k < kColumns; ++k) {                                                        \
            V column[kFrom], mapped[kMapped];                                                       \
            for (int i = 0; i < kFrom; ++i) column[i] = half[i][k];                                 \
            A::Down::map(column, mapped);                                                           \
            for (int i = 0; i < kMapped; ++i) y[i][k] = mapped[i];                                  \
        }                                                                                           \
    }
GE_ALONG_BOTH(input, In, Points)
GE_ALONG_BOTH(output, Points, Out)
GE_ALONG_BOTH(output_adjoint, Out, Points)
GE_ALONG_BOTH(weight, Taps, Weights)
GE_ALONG_BOTH(weight_adjoint, Weights, Taps)
#undef GE_ALONG_BOTH

// Which number of G w is the factor at point k.
template <class A>
constexpr int weight_at(int k) {
    const int y = k / A::Across::kPoints, last_y = A::Down::kWeights - 1;
    const int x = k % A::Across::kPoints, last_x = A::Across::kWeights - 1;
    return (y < last_y ? y : last_y) * A::Across::kWeights + (x < last_x ? x : last_x);
}

// The points, those with the same weight in a row.
template <class A>
constexpr std::array<int, A::kPoints> points_by_weight() {
    std::array<int, A::kPoints> points = {};
    int n = 0;
    for (int weight = 0; weight < A::kWeights; ++weight)
        for (int k = 0; k < A::kPoints; ++k)
            if (weight_at<A>(k) == weight) points[n++] = k;
    return points;
}

}  // namespace minimal
}  // namespace GE_ISA
}  // namespace gan_engine
