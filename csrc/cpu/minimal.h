// Winograd's algorithms. Each makes a tile of y from a tile of x and the weight. Along one axis:
//
//     y = A^T (G w * B^T x)        # x [kIn], w [kTaps], y [kOut], the product elementwise over kPoints numbers
//
// kPoints is less than kOut kTaps, the number of products in the definition. Along two axes, the matrices are the
// tensor products of A, G and B with themselves. Tiles of x begin kInStep pixels apart. `input` is B^T, `output` is
// A^T, `weight` is G; the gradient by the weight takes the adjoints. G w has kWeights numbers, and the last number
// serves all remaining points. Algorithms of transposed convolutions are kUp. kFromOdd: their tiles of y begin at an
// odd pixel of the padded y.
#pragma once

#include "../winograd.h"

#include <array>
#include <stdexcept>
#include <string>

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

// For six pixels of x and three or four taps w: F(7 - taps, taps), at the points 0, a, -a, b, -b and infinity, with a
// and b in eighths. Errors at the usual points 0, 1, -1, 2, -2 are twice as large (numbers from a normal distribution,
// from 64 channels on).
template <int taps, int a_eighths, int b_eighths>
struct Six {
    static constexpr int kTaps = taps, kIn = 6, kInStep = 7 - taps, kOut = 7 - taps, kPoints = 6, kWeights = 6;
    static constexpr bool kUp = false;
    static constexpr float a = a_eighths / 8.f, b = b_eighths / 8.f, aa = a * a, bb = b * b;
    static constexpr float at_0 = 1 / (aa * bb), at_a = 1 / (2 * aa * (aa - bb)), at_b = 1 / (2 * bb * (bb - aa));
    static_assert(taps == 3 || taps == 4);
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
        y[0] = m[0] + even_a + even_b, y[1] = odd_a + odd_b, y[2] = aa * even_a + bb * even_b;
        if constexpr (kOut == 4)
            y[3] = aa * odd_a + bb * odd_b + m[5];
        else
            y[2] += m[5];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        at_points(y, m), m[0] = y[0], m[5] = y[kOut - 1];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        at_points(w, u), u[0] = at_0 * w[0], u[5] = w[kTaps - 1];
        u[1] *= at_a, u[2] *= at_a, u[3] *= at_b, u[4] *= at_b;
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        const V even_a = at_a * (u[1] + u[2]), odd_a = at_a * (u[1] - u[2]);
        const V even_b = at_b * (u[3] + u[4]), odd_b = at_b * (u[3] - u[4]);
        w[0] = at_0 * u[0] + even_a + even_b, w[1] = a * odd_a + b * odd_b, w[2] = aa * even_a + bb * even_b;
        if constexpr (kTaps == 4)
            w[3] = aa * a * odd_a + bb * b * odd_b + u[5];
        else
            w[2] += u[5];
    }

  private:
    // The polynomial with the coefficients c, at a, -a, b and -b.
    template <class V, int n>
    static GE_INLINE void at_points(const V (&c)[n], V (&u)[kPoints]) {
        V odd_a = c[1], odd_b = c[1];
        if constexpr (n == 4) odd_a += aa * c[3], odd_b += bb * c[3];
        const V even_a = c[0] + aa * c[2], even_b = c[0] + bb * c[2];
        odd_a = a * odd_a, odd_b = b * odd_b;
        u[1] = even_a + odd_a, u[2] = even_a - odd_a, u[3] = even_b + odd_b, u[4] = even_b - odd_b;
    }
};
using K3Four = Six<3, 6, 12>;   // four pixels of y of a 3x3 kernel
using K4Three = Six<4, 5, 12>;  // three pixels of y of a 4x4 kernel

// Two neighbouring taps, y[i] = a x[i] + b x[i+1], which the algorithms for a stride of 2 apply to every other pixel of
// x or y. `step` is the distance of the pixels x in memory, and `output` adds to y where `add`.

// For two i: F(2, 2), at the points 0, -1 and infinity.
struct PairTwo {
    static constexpr int kOut = 2, kPoints = 3;
    template <int step, class V>
    static GE_INLINE void input(const V* x, V* v) {
        v[0] = x[0] - x[step], v[1] = x[step], v[2] = x[step] - x[2 * step];
    }
    template <bool add, int step, class V>
    static GE_INLINE void output(const V* m, V* y) {
        y[0] = (add ? y[0] + m[0] : m[0]) + m[1], y[step] = (add ? y[step] + m[1] : m[1]) - m[2];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V* y, V* m) {
        m[0] = y[0], m[1] = y[0] + y[1], m[2] = -y[1];
    }
    template <class V>
    static GE_INLINE void weight(V a, V b, V* u) {
        u[0] = a, u[1] = a + b, u[2] = b;
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V* u, V& a, V& b) {
        a = u[0] + u[1], b = u[1] + u[2];
    }
};

// For three i: F(3, 2), at the points 0, 1, -1 and infinity.
struct PairThree {
    static constexpr int kOut = 3, kPoints = 4;
    template <int step, class V>
    static GE_INLINE void input(const V* x, V* v) {
        v[0] = x[0] - x[2 * step], v[1] = x[step] + x[2 * step];
        v[2] = x[2 * step] - x[step], v[3] = x[step] - x[3 * step];
    }
    template <bool add, int step, class V>
    static GE_INLINE void output(const V* m, V* y) {
        static_assert(!add);
        const V both = m[1] + m[2];
        y[0] = m[0] + both, y[step] = m[1] - m[2], y[2 * step] = both - m[3];
    }
    template <class V>
    static GE_INLINE void weight(V a, V b, V* u) {
        u[0] = a, u[1] = 0.5f * (a + b), u[2] = 0.5f * (a - b), u[3] = b;
    }
};

// For four i: F(4, 2), at the points p, -p, q, -q and infinity, with p = 3/8 and q = 5/4. Errors at 0, 1, -1, 2 and
// infinity are twice as large (4x4 kernels with a stride of 2, numbers from a normal distribution).
struct PairFour {
    static constexpr int kOut = 4, kPoints = 5;
    static constexpr float p = 3 / 8.f, q = 5 / 4.f, pp = p * p, qq = q * q;
    static constexpr float at_p = 1 / (2 * p * (pp - qq)), at_q = 1 / (2 * q * (qq - pp));
    template <int step, class V>
    static GE_INLINE void input(const V* x, V* v) {
        const V even_p = p * (x[2 * step] - qq * x[0]), odd_p = x[3 * step] - qq * x[step];
        const V even_q = q * (x[2 * step] - pp * x[0]), odd_q = x[3 * step] - pp * x[step];
        v[0] = even_p + odd_p, v[1] = even_p - odd_p, v[2] = even_q + odd_q, v[3] = even_q - odd_q;
        v[4] = pp * qq * x[0] - (pp + qq) * x[2 * step] + x[4 * step];
    }
    template <bool add, int step, class V>
    static GE_INLINE void output(const V* m, V* y) {
        const V even_p = m[0] + m[1], odd_p = p * (m[0] - m[1]), even_q = m[2] + m[3], odd_q = q * (m[2] - m[3]);
        const V y0 = even_p + even_q, y1 = odd_p + odd_q;
        const V y2 = pp * even_p + qq * even_q, y3 = pp * odd_p + qq * odd_q + m[4];
        y[0] = add ? y[0] + y0 : y0, y[step] = add ? y[step] + y1 : y1;
        y[2 * step] = add ? y[2 * step] + y2 : y2, y[3 * step] = add ? y[3 * step] + y3 : y3;
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V* y, V* m) {
        const V even_p = y[0] + pp * y[2], odd_p = p * (y[1] + pp * y[3]);
        const V even_q = y[0] + qq * y[2], odd_q = q * (y[1] + qq * y[3]);
        m[0] = even_p + odd_p, m[1] = even_p - odd_p, m[2] = even_q + odd_q, m[3] = even_q - odd_q, m[4] = y[3];
    }
    template <class V>
    static GE_INLINE void weight(V a, V b, V* u) {
        u[0] = at_p * (a + p * b), u[1] = at_p * (a - p * b);
        u[2] = at_q * (a + q * b), u[3] = at_q * (a - q * b), u[4] = b;
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V* u, V& a, V& b) {
        a = at_p * (u[0] + u[1]) + at_q * (u[2] + u[3]);
        b = p * at_p * (u[0] - u[1]) + q * at_q * (u[2] - u[3]) + u[4];
    }
};

// y[i] = w0 x[i] + w1 x[i+1] + w2 x[i+2] + w3 x[i+3] for two i: F(2, 4), at the points of PairFour.
struct K4Two {
    static constexpr int kTaps = 4, kIn = 5, kInStep = 2, kOut = 2, kPoints = 5, kWeights = 5;
    static constexpr bool kUp = false;
    static constexpr float p = PairFour::p, q = PairFour::q, pp = p * p, qq = q * q;
    static constexpr float at_p = PairFour::at_p, at_q = PairFour::at_q;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        PairFour::input<1>(x, v);
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        y[0] = m[0] + m[1] + m[2] + m[3], y[1] = p * (m[0] - m[1]) + q * (m[2] - m[3]) + m[4];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        const V odd_p = p * y[1], odd_q = q * y[1];
        m[0] = y[0] + odd_p, m[1] = y[0] - odd_p, m[2] = y[0] + odd_q, m[3] = y[0] - odd_q, m[4] = y[1];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        const V even_p = w[0] + pp * w[2], odd_p = p * (w[1] + pp * w[3]);
        const V even_q = w[0] + qq * w[2], odd_q = q * (w[1] + qq * w[3]);
        u[0] = at_p * (even_p + odd_p), u[1] = at_p * (even_p - odd_p);
        u[2] = at_q * (even_q + odd_q), u[3] = at_q * (even_q - odd_q), u[4] = w[3];
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        const V even_p = at_p * (u[0] + u[1]), odd_p = p * at_p * (u[0] - u[1]);
        const V even_q = at_q * (u[2] + u[3]), odd_q = q * at_q * (u[2] - u[3]);
        w[0] = even_p + even_q, w[1] = odd_p + odd_q;
        w[2] = pp * even_p + qq * even_q, w[3] = pp * odd_p + qq * odd_q + u[4];
    }
};

// y[i] = w0 x[2i] + w1 x[2i+1] + w2 x[2i+2]
template <class Pair>
struct K3Down {
    static constexpr int kTaps = 3, kOut = Pair::kOut, kIn = 2 * kOut + 1, kInStep = 2 * kOut;
    static constexpr int kPoints = Pair::kPoints + kOut, kWeights = Pair::kPoints + 1;
    static constexpr bool kUp = false;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        Pair::template input<2>(x, v);
        for (int i = 0; i < kOut; ++i) v[Pair::kPoints + i] = x[2 * i + 1];
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        Pair::template output<false, 1>(m, y);
        for (int i = 0; i < kOut; ++i) y[i] += m[Pair::kPoints + i];
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        Pair::output_adjoint(y, m);
        for (int i = 0; i < kOut; ++i) m[Pair::kPoints + i] = y[i];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        Pair::weight(w[0], w[2], u), u[Pair::kPoints] = w[1];
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        Pair::weight_adjoint(u, w[0], w[2]), w[1] = u[Pair::kPoints];
    }
};

// y[2i] = w0 x[i] + w2 x[i-1] and y[2i+1] = w1 x[i]
template <class Pair>
struct K3Up {
    static constexpr int kTaps = 3, kInStep = Pair::kOut, kIn = kInStep + 1, kOut = 2 * Pair::kOut;
    static constexpr int kPoints = Pair::kPoints + Pair::kOut, kWeights = Pair::kPoints + 1;
    static constexpr bool kUp = true, kFromOdd = false;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        Pair::template input<1>(x, v);
        for (int i = 0; i < Pair::kOut; ++i) v[Pair::kPoints + i] = x[i + 1];
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        Pair::template output<false, 2>(m, y);
        for (int i = 0; i < Pair::kOut; ++i) y[2 * i + 1] = m[Pair::kPoints + i];
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        Pair::weight(w[2], w[0], u), u[Pair::kPoints] = w[1];
    }
};

// y[i] = w0 x[2i] + w1 x[2i+1] + w2 x[2i+2] + w3 x[2i+3]
template <class Pair>
struct K4Down {
    static constexpr int kTaps = 4, kOut = Pair::kOut, kIn = 2 * kOut + 2, kInStep = 2 * kOut;
    static constexpr int kPoints = 2 * Pair::kPoints, kWeights = kPoints;
    static constexpr bool kUp = false;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        Pair::template input<2>(x, v), Pair::template input<2>(x + 1, v + Pair::kPoints);
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        Pair::template output<false, 1>(m, y), Pair::template output<true, 1>(m + Pair::kPoints, y);
    }
    template <class V>
    static GE_INLINE void output_adjoint(const V (&y)[kOut], V (&m)[kPoints]) {
        Pair::output_adjoint(y, m), Pair::output_adjoint(y, m + Pair::kPoints);
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        Pair::weight(w[0], w[2], u), Pair::weight(w[1], w[3], u + Pair::kPoints);
    }
    template <class V>
    static GE_INLINE void weight_adjoint(const V (&u)[kWeights], V (&w)[kTaps]) {
        Pair::weight_adjoint(u, w[0], w[2]), Pair::weight_adjoint(u + Pair::kPoints, w[1], w[3]);
    }
};

// y[2i+1] = w1 x[i] + w3 x[i-1], y[2i+2] = w0 x[i+1] + w2 x[i]
template <class Pair>
struct K4Up {
    static constexpr int kTaps = 4, kInStep = Pair::kOut, kIn = kInStep + 2, kOut = 2 * Pair::kOut;
    static constexpr int kPoints = 2 * Pair::kPoints, kWeights = kPoints;
    static constexpr bool kUp = true, kFromOdd = true;
    template <class V>
    static GE_INLINE void input(const V (&x)[kIn], V (&v)[kPoints]) {
        Pair::template input<1>(x, v), Pair::template input<1>(x + 1, v + Pair::kPoints);
    }
    template <class V>
    static GE_INLINE void output(const V (&m)[kPoints], V (&y)[kOut]) {
        Pair::template output<false, 2>(m, y), Pair::template output<false, 2>(m + Pair::kPoints, y + 1);
    }
    template <class V>
    static GE_INLINE void weight(const V (&w)[kTaps], V (&u)[kWeights]) {
        Pair::weight(w[3], w[1], u), Pair::weight(w[2], w[0], u + Pair::kPoints);
    }
};

// The algorithm in two dimensions: Y along the vertical axis, X along the horizontal axis. Its points are pairs.
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

#define GE_ALONG_BOTH(map, From, To)                                                                       \
    template <class A, class V>                                                                            \
    GE_INLINE void transform_##map(const typename A::template From<V>& x, typename A::template To<V>& y) { \
        constexpr int kFrom = sizeof(x) / sizeof(x[0]), kColumns = sizeof(y[0]) / sizeof(V);               \
        constexpr int kMapped = sizeof(y) / sizeof(y[0]);                                                  \
        V half[kFrom][kColumns];                                                                           \
        for (int i = 0; i < kFrom; ++i) A::Across::map(x[i], half[i]);                                     \
        for (int k = 0; k < kColumns; ++k) {                                                               \
            V column[kFrom], mapped[kMapped];                                                              \
            for (int i = 0; i < kFrom; ++i) column[i] = half[i][k];                                        \
            A::Down::map(column, mapped);                                                                  \
            for (int i = 0; i < kMapped; ++i) y[i][k] = mapped[i];                                         \
        }                                                                                                  \
    }
GE_ALONG_BOTH(input, In, Points)
GE_ALONG_BOTH(output, Points, Out)
GE_ALONG_BOTH(output_adjoint, Out, Points)
GE_ALONG_BOTH(weight, Taps, Weights)
GE_ALONG_BOTH(weight_adjoint, Weights, Taps)
#undef GE_ALONG_BOTH

// The index of the number of G w that is the factor at point k.
template <class A>
constexpr int weight_at(int k) {
    const int y = k / A::Across::kPoints, last_y = A::Down::kWeights - 1;
    const int x = k % A::Across::kPoints, last_x = A::Across::kWeights - 1;
    return (y < last_y ? y : last_y) * A::Across::kWeights + (x < last_x ? x : last_x);
}

// All points, in an order that keeps those with the same weight together.
template <class A>
constexpr std::array<int, A::kPoints> points_by_weight() {
    std::array<int, A::kPoints> points = {};
    int n = 0;
    for (int weight = 0; weight < A::kWeights; ++weight)
        for (int k = 0; k < A::kPoints; ++k)
            if (weight_at<A>(k) == weight) points[n++] = k;
    return points;
}

// Calls run(Both<...>()) with the algorithm of this number.
template <class Run>
void with_algorithm(Minimal minimal, const Run& run) {
    switch (minimal) {
        case Minimal::k3: return run(Both<K3, K3>());
        case Minimal::k3Tall: return run(Both<K3Four, K3>());
        case Minimal::k3Large: return run(Both<K3Four, K3Four>());
        case Minimal::k3Down: return run(Both<K3Down<PairTwo>, K3Down<PairTwo>>());
        case Minimal::k3DownLarge: return run(Both<K3Down<PairFour>, K3Down<PairFour>>());
        case Minimal::k3Up: return run(Both<K3Up<PairThree>, K3Up<PairThree>>());
        case Minimal::k4Down: return run(Both<K4Down<PairTwo>, K4Down<PairTwo>>());
        case Minimal::k4DownLarge: return run(Both<K4Down<PairFour>, K4Down<PairFour>>());
        case Minimal::k4Up: return run(Both<K4Up<PairTwo>, K4Up<PairTwo>>());
        case Minimal::k4UpLarge: return run(Both<K4Up<PairFour>, K4Up<PairFour>>());
        case Minimal::k4: return run(Both<K4Two, K4Two>());
        case Minimal::k4Tall: return run(Both<K4Three, K4Two>());
        case Minimal::k4Large: return run(Both<K4Three, K4Three>());
    }
    throw std::invalid_argument("no form of minimal filtering has the number " + std::to_string(int(minimal)));
}

}  // namespace minimal
}  // namespace GE_ISA
}  // namespace gan_engine
