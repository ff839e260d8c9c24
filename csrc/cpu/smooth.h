// Smooth activations and their slopes. The functions are static: GCC then knows which registers a call changes, and
// loops that call them keep numbers in the others.
#pragma once

#include "../bias_act.h"

#include "elementary.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

// act(z)
template <class V>
[[gnu::noinline]] static V smooth(Act act, V z) {
    switch (act) {
        case Act::kTanh: return tanh(z);
        case Act::kSigmoid: return sigmoid(z);
        case Act::kElu: return select(z > 0, z, expm1(z));
        case Act::kSelu: {
            const V e = expm1(z);
            return select(z > 0, z * splat<V>(kSeluScale), e * splat<V>(kSeluScale * kSeluAlpha));
        }
        case Act::kSoftplus: {
            const V soft = select(z > 0, z, V{}) + log1p(exp(-absolute(z)));
            return select(z > splat<V>(kSoftplusThreshold), z, soft);
        }
        default: return z * sigmoid(z);
    }
}

// act'(x + b) from t = act(x + b), or for swish from z = x + b.
template <class V>
[[gnu::noinline]] static V smooth_slope(Act act, V t_or_z) {
    const V t = t_or_z, one = splat<V>(1);
    switch (act) {
        case Act::kTanh: return one - t * t;
        case Act::kSigmoid: return t * (one - t);
        case Act::kElu: return select(t > 0, one, t + one);
        case Act::kSelu: return select(t > 0, splat<V>(kSeluScale), t + splat<V>(kSeluScale * kSeluAlpha));
        case Act::kSoftplus: return -expm1(-t);
        default: {
            const V s = sigmoid(t_or_z);
            return s * (one + t_or_z * (one - s));
        }
    }
}

}  // namespace GE_ISA
}  // namespace gan_engine
