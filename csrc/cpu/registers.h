// Vectors as wide as one register, and the operations on them that the compiler's vectors lack.
//
// vec.h makes vectors of sixteen numbers from registers. The rest of csrc/cpu includes vec.h. An instruction set has
// one header, registers_<set>.h, which says how wide its registers are and what it does better than this file. These
// headers alone name instructions.
//
// All of csrc/cpu is compiled once for each instruction set, in a namespace named after the set (GE_ISA). Without the
// namespace the linker would keep one copy of a function for all sets, which another CPU may be unable to run.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "../common.h"

// For functions of vectors: a call passes vectors through memory, and the compiler does not count that cost.
#define GE_INLINE __attribute__((always_inline)) inline
// For loops over registers: rolled up, they take all registers through memory.
#define GE_UNROLLED _Pragma("GCC unroll 64")

namespace gan_engine {
namespace GE_ISA {

// Half-precision numbers as memory holds them.
struct BFloat16 {
    std::uint16_t bits;
};
struct Float16 {
    std::uint16_t bits;
};

template <class S, int n>
struct NativeOf {
    typedef S type __attribute__((vector_size(sizeof(S) * n)));
};
// n numbers as the compiler knows them. If they fill no more than a register, operators take one instruction. The
// compiler takes longer vectors through memory.
template <class S, int n>
using Native = typename NativeOf<S, n>::type;

template <class V>
using Element = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<V>()[0])>>;
template <class V>
inline constexpr int kLanesOf = int(sizeof(V) / sizeof(Element<V>));
template <class V>
using MaskOf = decltype(std::declval<V>() > std::declval<V>());  // lanes of 0 or -1, as comparisons give

// Two vectors as one. The compiler keeps the parts in registers, as long as it never copies both at once: GCC would do
// that through memory, 16 bytes at a time. So the copies are written out here.
template <class Part>
struct Two {
    Part low, high;
    Two() = default;
    GE_INLINE Two(Part l, Part h) : low(l), high(h) {}
    GE_INLINE Two(const Two& other) : low(other.low), high(other.high) {}
    GE_INLINE Two& operator=(const Two& other) {
        low = other.low, high = other.high;
        return *this;
    }
    // Lane k. With k known only at run time, the vector goes through memory.
    GE_INLINE Element<Part> operator[](int k) const {
        constexpr int half = kLanesOf<Part>;
        return k < half ? low[k] : high[k - half];
    }
};

template <class R, class P>
GE_INLINE R load_bytes(const P* p) {
    R r;
    std::memcpy(&r, p, sizeof r);
    return r;
}

inline float widen(Float16 h) {
    const std::uint32_t sign = std::uint32_t(h.bits & 0x8000u) << 16;
    const std::uint32_t rest = h.bits & 0x7fffu;
    if (rest < 0x0400u) return (sign ? -1.f : 1.f) * std::ldexp(float(rest), -24);  // zero and subnormals
    const std::uint32_t exponent_shift = rest >= 0x7c00u ? 0x70000000u : 0x38000000u;
    const std::uint32_t bits = sign | ((rest << 13) + exponent_shift);
    float f;
    std::memcpy(&f, &bits, 4);
    return f;
}

inline Float16 narrow(float f) {
    std::uint32_t bits;
    std::memcpy(&bits, &f, 4);
    const std::uint16_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return {std::uint16_t(sign | 0x7e00u)};
    if (bits >= 0x477ff000u) return {std::uint16_t(sign | 0x7c00u)};  // 65520 and above round to infinity
    if (bits < 0x38800000u) {  // below 2^-14: a subnormal counts units of 2^-24, and nearbyint rounds ties to even
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        return {std::uint16_t(sign | std::uint16_t(std::nearbyint(std::ldexp(magnitude, 24))))};
    }
    return {std::uint16_t(sign | ((bits - 0x38000000u + 0x0fffu + ((bits >> 13) & 1u)) >> 13))};
}

// The operations on a register R of numbers, for every instruction set. `stream` writes around the caches; then the
// address must be aligned to the number of bytes written.
template <class R>
struct PortableOnRegister {
    using S = Element<R>;
    static constexpr int kCount = kLanesOf<R>;
    using Bits = Native<std::uint32_t, kCount>;
    using Bits16 = Native<std::uint16_t, kCount>;
    using Half = Native<S, kCount / 2>;

    static GE_INLINE R load(const S* p) { return load_bytes<R>(p); }
    static GE_INLINE R load(const BFloat16* p) {
        return (R)(__builtin_convertvector(load_bytes<Bits16>(p), Bits) << 16);
    }
    static GE_INLINE R load(const Float16* p) {
        S wide[kCount];
        for (int k = 0; k < kCount; ++k) wide[k] = widen(p[k]);
        return load(wide);
    }
    static GE_INLINE void store(S* p, R v, bool) { std::memcpy(p, &v, sizeof v); }
    static GE_INLINE void store(BFloat16* p, R v, bool) {
        const Bits16 bits = __builtin_convertvector(bf16(v), Bits16);
        std::memcpy(p, &bits, sizeof bits);
    }
    static GE_INLINE void store(Float16* p, R v, bool) {
        for (int k = 0; k < kCount; ++k) p[k] = GE_ISA::narrow(v[k]);
    }
    // The bits of a BFloat16 in lanes of 32 bits: rounded to nearest, ties to even.
    static GE_INLINE Bits bf16(R v) {
        const Bits bits = (Bits)v;
        return v != v ? Bits{} + 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    }

    // The first n numbers at p, and 0 in the other lanes. With n <= 0 no number is read. store_some writes n lanes.
    static GE_INLINE R load_some(const S* p, std::int64_t n) {
        S buffer[kCount] = {};
        if (n > 0) std::memcpy(buffer, p, std::size_t(n < kCount ? n : kCount) * sizeof(S));
        return load(buffer);
    }
    static GE_INLINE void store_some(S* p, R v, std::int64_t n) {
        if (n > 0) std::memcpy(p, &v, std::size_t(n < kCount ? n : kCount) * sizeof(S));
    }

    static GE_INLINE R root(R v) {
        for (int k = 0; k < kCount; ++k) v[k] = std::sqrt(v[k]);
        return v;
    }
    static GE_INLINE R clamped(R v, R low, R high) {
        v = v > high ? high : v;
        return v < low ? low : v;
    }
    // float to double: a register has room for half of the lanes.
    static GE_INLINE auto widened(R v) {
        using D = Native<double, kCount / 2>;
        Half half[2];
        std::memcpy(half, &v, sizeof v);
        return Two<D>{__builtin_convertvector(half[0], D), __builtin_convertvector(half[1], D)};
    }
};

template <class R>
struct OnRegister : PortableOnRegister<R> {};

// A mask as bits: lane k is bit k. select takes lanes of a where the bits from `first` on are set, else of b.
template <class M>
struct PortableOnMask {
    static GE_INLINE unsigned pack(M m) {
        unsigned bits = 0;
        for (int k = 0; k < kLanesOf<M>; ++k) bits |= unsigned(m[k] & 1) << k;
        return bits;
    }
    template <int first, class R>
    static GE_INLINE R select(std::uint16_t bits, R a, R b) {
        const M one = each_bit<first>(std::make_integer_sequence<int, kLanesOf<M>>());
        return ((M{} + Element<M>(bits)) & one) == one ? a : b;
    }

  private:
    template <int first, int... k>
    static GE_INLINE M each_bit(std::integer_sequence<int, k...>) {
        return M{(Element<M>(1) << (first + k))...};
    }
};

template <class M>
struct OnMask : PortableOnMask<M> {};

}  // namespace GE_ISA
}  // namespace gan_engine

// A header of a set has kRegisterBytes, RegF and RegD (registers of float and double), `fence` (waits for the streaming
// stores of this thread), and specialisations of OnRegister and OnMask.
#if defined(__AVX512F__)
#include "registers_avx512.h"
#elif defined(__AVX2__)
#include "registers_avx2.h"
#elif defined(__aarch64__)
#include "registers_neon.h"
#else
#include "registers_portable.h"
#endif
