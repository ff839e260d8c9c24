// Sine and cosine of vectors.
#pragma once

#include <cmath>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

// sin^2(t), sin(2t) and cos(2t). All have the period pi, so t becomes r = t - n pi in [-pi/2, pi/2]. pi is the sum of
// three numbers, the first two of 8 and 11 bits. Up to n = 8268, n times them is exact. From |t| = 25,976 on, only a
// fused multiply-add keeps n times the second exact; without it, r is off by up to 5e-7. The polynomials of r^2 are
// minimax fits: sine and cosine are off by up to 7.5e-9 and 4e-10, and by 3.4e-8 and 5.6e-9 with coefficients rounded
// to float, before the rounding of the arithmetic. If one lane is beyond kFarthest, the C library computes all lanes of
// its vector, and the last bits of the other lanes can differ from those of the polynomials.
template <class V>
struct Turns;

template <>
struct Turns<VecF> {
    static constexpr float kFarthest = 32768;
    VecF sine, cosine;  // of r

    GE_INLINE explicit Turns(VecF t) {
        if (__builtin_expect(pack(t * t > kFarthest * kFarthest) != 0, 0)) {
            by_library(t, sine, cosine);
            return;
        }
        const VecF n = (t * 0.318309886f + 12582912.f) - 12582912.f;  // adding 1.5 * 2^23 rounds to an integer
        const VecF r = ((t - n * 3.140625f) - n * 9.67502593994140625e-4f) - n * 1.509957990978376e-7f;
        const VecF r2 = r * r;
        VecF p = r2 * 2.608917697e-6f - 1.981110652e-4f;
        p = p * r2 + 8.333088090e-3f;
        p = p * r2 - 1.666666046e-1f;
        sine = p * r2 * r + r;
        VecF q = r2 * -2.619367386e-7f + 2.476929745e-5f;
        q = q * r2 - 1.388856906e-3f;
        q = q * r2 + 4.166665577e-2f;
        q = q * r2 - 0.5f;
        cosine = q * r2 + 1.f;
    }
    GE_INLINE VecF square() const { return sine * sine; }
    GE_INLINE VecF sine_of_twice() const { return sine * cosine * 2.f; }
    GE_INLINE VecF cosine_of_twice() const { return 1.f - sine * sine * 2.f; }

  private:
    [[gnu::noinline, gnu::cold]] static void by_library(const VecF& t, VecF& sine, VecF& cosine) {
        sine = for_each_lane(t, [](float lane) { return std::sin(lane); });
        cosine = for_each_lane(t, [](float lane) { return std::cos(lane); });
    }
};

template <>
struct Turns<VecD> {
    VecD sine, cosine;
    GE_INLINE explicit Turns(VecD t)
        : sine(for_each_lane(t, [](double lane) { return std::sin(lane); })),
          cosine(for_each_lane(t, [](double lane) { return std::cos(lane); })) {}
    GE_INLINE VecD square() const { return sine * sine; }
    GE_INLINE VecD sine_of_twice() const { return sine * cosine * 2.; }
    GE_INLINE VecD cosine_of_twice() const { return 1. - sine * sine * 2.; }
};

}  // namespace GE_ISA
}  // namespace gan_engine
