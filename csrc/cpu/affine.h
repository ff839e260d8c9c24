// y = clamp(gain * act(z)) and its derivative for sixteen columns of a row, with their mask bits. scale_bias_act.h
// describes the memory of rows, columns and bits.
#pragma once

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

inline void put_bits(std::uint8_t* row, std::int64_t i, std::uint16_t bits) { std::memcpy(row + (i >> 3), &bits, 2); }

inline std::uint16_t get_bits(const std::uint8_t* row, std::int64_t i) {
    std::uint16_t bits;
    std::memcpy(&bits, row + (i >> 3), 2);
    return bits;
}

// body(i, left) for columns i = 0, 16, ... below cols. `left` columns are left: a constant, except for the last few.
template <class Body>
GE_INLINE void for_columns(std::int64_t cols, const Body& body) {
    std::int64_t i = 0;
    for (; i + kLanes <= cols; i += kLanes) body(i, std::integral_constant<std::int64_t, kLanes>());
    if (i < cols) body(i, cols - i);
}

// One number for each row or column; with `at` null, `otherwise` for all of them.
template <class S>
struct Side {
    const S* at;
    S otherwise;
    S one(std::int64_t row) const { return at != nullptr ? at[row] : otherwise; }
    GE_INLINE auto some(std::int64_t col, std::int64_t left) const {
        using V = decltype(load(at));
        V v = splat<V>(otherwise);
        if (at != nullptr) v = load_up_to<V>(at + col, left);
        return v;
    }
};

template <class S>
const S* offset(const void* p, std::int64_t by) {
    return p != nullptr ? static_cast<const S*>(p) + by : nullptr;
}

template <class S>
S* offset(void* p, std::int64_t by) {
    return p != nullptr ? static_cast<S*>(p) + by : nullptr;
}

template <class V>
struct Activation {
    V above, below, limit;

    Activation(double alpha, double gain, double clamp)
        : above(splat<V>(gain)), below(splat<V>(gain * alpha)), limit(splat<V>(clamp >= 0 ? clamp : INFINITY)) {}
    GE_INLINE V operator()(V z, std::uint8_t* slope, std::uint8_t* keep, std::int64_t i) const {
        const V v = z * select(z > 0, above, below), y = clamped(v, -limit, limit);
        if (slope != nullptr) put_bits(slope, i, pack(z > 0));
        if (keep != nullptr) put_bits(keep, i, pack(y == v));
        return y;
    }
};

template <class V>
struct Derivative {
    V gain, alpha;

    Derivative(double alpha_, double gain_) : gain(splat<V>(gain_)), alpha(splat<V>(alpha_)) {}
    GE_INLINE V operator()(V dy, const std::uint8_t* slope, const std::uint8_t* keep, std::int64_t i) const {
        V v = dy * gain;
        if (slope != nullptr) v = select_bits(get_bits(slope, i), v, v * alpha);
        if (keep != nullptr) v = select_bits(get_bits(keep, i), v, V{});
        return v;
    }
};

}  // namespace GE_ISA
}  // namespace gan_engine
