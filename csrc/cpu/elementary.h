// Exponential, logarithm, hyperbolic tangent and sigmoid of vectors.
#pragma once

#include <cmath>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

// e^x = scale + scale * rest for x in [-87, 30], to about 1 ulp. Below -87, `exp` returns 0. With x = n ln 2 + r, scale
// is 2^n, and rest is e^r - 1 by its Taylor polynomial for |r| <= ln(2) / 2.
struct Exponential {
    VecF scale, rest;
    explicit Exponential(VecF x) {
        x = x < -87.f ? splat<VecF>(-87.f) : x;
        const VecF n = (x * 1.44269504f + 12582912.f) - 12582912.f;  // adding 1.5 * 2^23 rounds to an integer
        const VecF r = x - n * 0.693145752f - n * 1.42860677e-6f;
        VecF q = r * 1.98412698e-4f + 1.38888889e-3f;
        q = q * r + 8.33333333e-3f;
        q = q * r + 4.16666667e-2f;
        q = q * r + 1.66666667e-1f;
        q = q * r + 0.5f;
        rest = q * r * r + r;
        scale = (VecF)((__builtin_convertvector(n, MaskF) + 127) << 23);
    }
};
inline VecF exp(VecF x) {
    const Exponential e(x);
    const VecF y = e.scale + e.scale * e.rest;
    return x != x ? x : x < -87.f ? VecF{} : y;
}
inline VecF expm1(VecF x) {
    const Exponential e(x);
    return x != x ? x : e.rest * e.scale + (e.scale - 1.f);
}

// log(1 + u) for u in [0, 1]. It is 2 atanh(z) with z = u / (2 + u) <= 1/3, by the series of atanh.
inline VecF log1p(VecF u) {
    const VecF z = u / (u + 2.f);
    const VecF z2 = z * z;
    VecF s = splat<VecF>(1 / 17.f);
    for (int k = 15; k >= 1; k -= 2) s = s * z2 + 1.f / float(k);
    return 2.f * z * s;
}

inline VecD exp(VecD x) {
    for (int k = 0; k < kLanes; ++k) x[k] = std::exp(x[k]);
    return x;
}
inline VecD expm1(VecD x) {
    for (int k = 0; k < kLanes; ++k) x[k] = std::expm1(x[k]);
    return x;
}
inline VecD log1p(VecD u) {
    for (int k = 0; k < kLanes; ++k) u[k] = std::log1p(u[k]);
    return u;
}

// Below 0.625: x + x^3 p(x^2), where p is a Chebyshev fit (relative error 7e-10). Beyond: 1 - 2 e^-2x / (1 + e^-2x).
inline VecF tanh(VecF x) {
    const VecF x2 = x * x;
    VecF p = x2 * 2.295840510e-3f - 8.346979685e-3f;
    p = p * x2 + 2.176996060e-2f;
    p = p * x2 - 5.395940585e-2f;
    p = p * x2 + 1.333330428e-1f;
    p = p * x2 - 3.333333318e-1f;
    const VecF near = p * x2 * x + x;
    const VecF e = exp(-2 * absolute(x));
    const VecF t = 1 - 2 * e / (1 + e);
    const VecF far = x < 0 ? -t : t;
    return absolute(x) < 0.625f ? near : far;
}
inline VecD tanh(VecD x) {
    for (int k = 0; k < kLanes; ++k) x[k] = std::tanh(x[k]);
    return x;
}

template <class V>
inline V sigmoid(V x) {
    const V e = exp(-absolute(x));
    return (x < 0 ? e : splat<V>(1)) / (1 + e);
}

}  // namespace GE_ISA
}  // namespace gan_engine
