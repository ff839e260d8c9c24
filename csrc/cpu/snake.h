// h(u) = u + b sin^2(alpha u) with its derivatives, for vectors of u.
#pragma once

#include "turns.h"

namespace gan_engine {
namespace GE_ISA {

template <class V>
struct Snake {
    V alpha, b;

    GE_INLINE V operator()(V u) const { return u + b * Turns<V>(alpha * u).square(); }

    // Returns a h'(u). Adds a dh/dalpha / b to of_alpha, and a dh/db to of_b.
    GE_INLINE V gradient(V u, V a, V& of_alpha, V& of_b) const {
        const Turns<V> turns(alpha * u);
        const V twice = a * turns.sine_of_twice();
        of_alpha += twice * u, of_b += a * turns.square();
        return a + alpha * b * twice;
    }

    // q is the derivative of h(u) along (w, v_alpha, v_b), and g is a dq/du. Adds a dq/dalpha to of_alpha, and a dq/db
    // to of_b.
    GE_INLINE void second(V u, V w, V a, V v_alpha, V v_b, V& q, V& g, V& of_alpha, V& of_b) const {
        const Turns<V> turns(alpha * u);
        const V sine = turns.sine_of_twice(), half = turns.cosine_of_twice(), cosine = half + half;
        const V slope = alpha * w + u * v_alpha;  // of alpha * u
        q = w + b * sine * slope + turns.square() * v_b;
        const V by_alpha_and_u = b * (sine + alpha * u * cosine);
        g = a * (b * alpha * alpha * cosine * w + by_alpha_and_u * v_alpha + alpha * sine * v_b);
        of_alpha += a * (by_alpha_and_u * w + b * u * u * cosine * v_alpha + u * sine * v_b);
        of_b += a * sine * slope;
    }
};

}  // namespace GE_ISA
}  // namespace gan_engine
