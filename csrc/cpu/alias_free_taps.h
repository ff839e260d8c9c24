// The filters of alias_free_activation along one axis of an image, as sums of neighbouring vectors.
//
// Elements of u with even and with odd numbers are two streams of the step of x:
//
//     split   even[s] = sum over i of f[11 - 2i] x[s - 3 + i],    odd[s] = sum over i of f[10 - 2i] x[s - 2 + i]
//     merge   y[m] = sum over i of f[2i + 1] even[m - 2 + i] + f[2i] odd[m - 3 + i]
//
// up is split with 2 fu, and down is merge with fd. Merge with 2 fu is up^T, and split with fd is down^T. A repeated
// border becomes in the adjoint a sum: what lies outside is added to the first or the last element. So the first and
// the last element have taps of their own there, and read zeros outside.
#pragma once

#include <array>

#include "vec.h"

#define GE_INLINED __attribute__((always_inline))

namespace gan_engine {
namespace GE_ISA {
namespace alias_free {

constexpr int kReach = 3, kHalves = 6;  // of a filter to each side, and its taps for one stream
constexpr int kWindow = kHalves + 1;    // the elements of x that both streams read: s - 3, ..., s + 3

template <class S>
struct Taps {
    S even[kHalves], odd[kHalves];
};

// Taps inside, and at the first element, the last, and the only one.
template <class S>
struct Edges {
    std::array<Taps<S>, 4> of;

    const Taps<S>& at(std::int64_t i, std::int64_t size) const { return of[(i == 0) + 2 * (i + 1 == size)]; }

    static Edges split(const float* f, double gain, bool adjoint) {
        Numbers even, odd;
        for (int i = 0; i < kHalves; ++i) even[i] = gain * f[11 - 2 * i], odd[i] = gain * f[10 - 2 * i];
        Numbers first = even, last = odd;
        for (int i = 0; i < kHalves && adjoint; ++i)
            for (int k = 1; k <= kReach; ++k) {
                first[i] += tap(even, i + k) + tap(odd, i + k - 1);
                last[i] += tap(even, i - k + 1) + tap(odd, i - k);
            }
        return {{taps(even, odd), taps(first, odd), taps(even, last), taps(first, last)}};
    }
    static Edges merge(const float* f, double gain, bool adjoint) {
        Numbers even, odd;
        for (int i = 0; i < kHalves; ++i) even[i] = gain * f[2 * i + 1], odd[i] = gain * f[2 * i];
        Edges edges;
        for (int edge = 0; edge < 4; ++edge) {
            Numbers of_even = even, of_odd = odd;
            for (int i = 0; i < kHalves && adjoint; ++i)
                for (int k = 1; k <= kReach; ++k) {
                    if (edge & 1) of_even[i] += tap(even, i + k), of_odd[i] += tap(odd, i + k);
                    if (edge & 2) of_even[i] += tap(even, i - k), of_odd[i] += tap(odd, i - k);
                }
            edges.of[edge] = taps(of_even, of_odd);
        }
        return edges;
    }

  private:
    using Numbers = std::array<double, kHalves>;
    static double tap(const Numbers& of, int i) { return i >= 0 && i < kHalves ? of[i] : 0; }
    static Taps<S> taps(const Numbers& even, const Numbers& odd) {
        Taps<S> taps;
        for (int i = 0; i < kHalves; ++i) taps.even[i] = S(even[i]), taps.odd[i] = S(odd[i]);
        return taps;
    }
};

// Both streams at `count` neighbouring positions of a row. at(t) is where element s - 3 + t of the first position lies.
template <class V, int count, class S, class At>
GE_INLINE void split(const At& at, const Taps<S>& taps, V (&even)[count], V (&odd)[count]) {
#pragma GCC unroll 4
    for (int j = 0; j < count; ++j) even[j] = odd[j] = V{};
#pragma GCC unroll 7
    for (int t = 0; t < kWindow; ++t) {
        const S* const p = at(t);
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) {
            V v = load<V>(p + j * kLanes);
            if (t > 0 && t < kHalves) read_once(v);
            if (t < kHalves) even[j] += splat<V>(taps.even[t]) * v;
            if (t > 0) odd[j] += splat<V>(taps.odd[t - 1]) * v;
        }
    }
}

// The sums of both streams at `count` neighbouring positions of a row. at_even(i) is where element m - 2 + i of the
// first position lies, and at_odd(i) is where element m - 3 + i lies.
template <class V, int count, class S, class Even, class Odd>
GE_INLINE void merge(const Even& at_even, const Odd& at_odd, const Taps<S>& taps, V (&sums)[count]) {
    V others[count];
#pragma GCC unroll 4
    for (int j = 0; j < count; ++j) sums[j] = others[j] = V{};
#pragma GCC unroll 6
    for (int i = 0; i < kHalves; ++i) {
        const S *const even = at_even(i), *const odd = at_odd(i);
#pragma GCC unroll 4
        for (int j = 0; j < count; ++j) {
            sums[j] += splat<V>(taps.even[i]) * load<V>(even + j * kLanes);
            others[j] += splat<V>(taps.odd[i]) * load<V>(odd + j * kLanes);
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < count; ++j) sums[j] += others[j];
}

}  // namespace alias_free
}  // namespace GE_ISA
}  // namespace gan_engine
