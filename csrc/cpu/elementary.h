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
    GE_INLINE explicit Exponential(VecF x) {
        x = select(x < -87.f, splat<VecF>(-87.f), x);
        const VecF n = (x * 1.44269504f + 12582912.f) - 12582912.f;  // adding 1.5 * 2^23 rounds to an integer
        const VecF r = x - n * 0.693145752f - n * 1.42860677e-6f;
        VecF q = r * 1.98412698e-4f + 1.38888889e-3f;
        q = q * r + 8.33333333e-3f;
        q = q * r + 4.16666667e-2f;
        q = q * r + 1.66666667e-1f;
        q = q * r + 0.5f;
        rest = q * r * r + r;
        scale = reinterpret<VecF>((convert<MaskOf<VecF>>(n) + 127) << 23);
    }
};
GE_INLINE VecF exp(VecF x) {
    const Exponential e(x);
    const VecF y = e.scale + e.scale * e.rest;
    return select(x != x, x, select(x < -87.f, VecF{}, y));
}
GE_INLINE VecF expm1(VecF x) {
    const Exponential e(x);
    return select(x != x, x, e.rest * e.scale + (e.scale - 1.f));
}

// log(1 + u) for u in [0, 1]. It is 2 atanh(z) with z = u / (2 + u) <= 1/3, by the series of atanh.
GE_INLINE VecF log1p(VecF u) {
    const VecF z = u / (u + 2.f);
    const VecF z2 = z * z;
    VecF s = splat<VecF>(1 / 17.f);
    for (int k = 15; k >= 1; k -= 2) s = s * z2 + 1.f / float(k);
    return 2.f * z * s;
}

GE_INLINE VecD exp(VecD x) {
    return for_each_lane(x, [](double lane) { return std::exp(lane); });
}
GE_INLINE VecD expm1(VecD x) {
    return for_each_lane(x, [](double lane) { return std::expm1(lane); });
}
GE_INLINE VecD log1p(VecD u) {
    return for_each_lane(u, [](double lane) { return std::log1p(lane); });
}

// Below 0.625: x + x^3 p(x^2), where p is a Chebyshev fit (relative error 7e-10). Beyond: 1 - 2 e^-2x / (1 + e^-2x).
GE_INLINE VecF tanh(VecF x) {
    const VecF x2 = x * x;
    VecF p = x2 * 2.295840510e-3f - 8.346979685e-3f;
    p = p * x2 + 2.176996060e-2f;
    p = p * x2 - 5.395940585e-2f;
    p = p * x2 + 1.333330428e-1f;
    p = p * x2 - 3.333333318e-1f;
    const VecF near = p * x2 * x + x;
    const VecF e = exp(-2 * absolute(x));
    const VecF t = 1 - 2 * e / (1 + e);
    const VecF far = select(x < 0, -t, t);
    return select(absolute(x) < 0.625f, near, far);
}
GE_INLINE VecD tanh(VecD x) {
    return for_each_lane(x, [](double lane) { return std::tanh(lane); });
}

template <class V>
GE_INLINE V sigmoid(V x) {
    const V e = exp(-absolute(x));
    return select(x < 0, e, splat<V>(1)) / (1 + e);
}

}  // namespace GE_ISA
}  // namespace gan_engine
