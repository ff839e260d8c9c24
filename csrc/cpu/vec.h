// Sixteen numbers at a time: the compiler's vector extensions, which it maps to whatever the instruction set has.
//
// This header is compiled once per instruction set, so everything lives in a namespace named after it (GE_ISA):
// a function shared between the builds would run one set's instructions on a CPU that has only another's.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "../common.h"

// Where a call would take the vectors through memory, and the compiler does not see it.
#define GE_INLINE __attribute__((always_inline)) inline

namespace gan_engine {
namespace GE_ISA {

inline constexpr int kLanes = 16;

// Storage types; float and double stand for themselves.
struct BFloat16 {
    std::uint16_t bits;
};
struct Float16 {
    std::uint16_t bits;
};

using VecF = float __attribute__((vector_size(4 * kLanes)));
using VecD = double __attribute__((vector_size(8 * kLanes)));
using MaskF = std::int32_t __attribute__((vector_size(4 * kLanes)));  // lanes of 0 or -1, as comparisons give
using MaskD = std::int64_t __attribute__((vector_size(8 * kLanes)));
using BitsF = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using Bits16 = std::uint16_t __attribute__((vector_size(2 * kLanes)));

template <class T>
struct Wide {  // what numbers stored as T are computed in
    using Scalar = float;
    using Vec = VecF;
    using Mask = MaskF;
};
template <>
struct Wide<double> {
    using Scalar = double;
    using Vec = VecD;
    using Mask = MaskD;
};

template <class V, class S>
inline V splat(S s) {
    return static_cast<std::remove_reference_t<decltype(V{}[0])>>(s) - V{};  // s + 0 is no copy: of -0 it is 0
}

template <class V, class P>
inline V load_bytes(const P* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline VecF load(const float* p) { return load_bytes<VecF>(p); }
inline VecD load(const double* p) { return load_bytes<VecD>(p); }

inline VecF load(const BFloat16* p) {
    const BitsF wide = __builtin_convertvector(load_bytes<Bits16>(p), BitsF) << 16;
    return (VecF)wide;
}

#if defined(__AVX512F__)
inline VecF load(const Float16* p) { return (VecF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
#elif defined(__AVX2__)
inline VecF load(const Float16* p) {
    VecF v;
    _mm256_storeu_ps((float*)&v, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)));
    _mm256_storeu_ps((float*)&v + 8, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + 1)));
    return v;
}
#else
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
inline VecF load(const Float16* p) {
    VecF v{};
    for (int k = 0; k < kLanes; ++k) v[k] = widen(p[k]);
    return v;
}
#endif

// `stream` writes around the caches; the address must then be aligned to the bytes written.
inline void store(float* p, VecF v, bool stream) {
#if defined(__AVX512F__)
    if (stream) return _mm512_stream_ps(p, (__m512)v);
#elif defined(__AVX2__)
    if (stream) {
        _mm256_stream_ps(p, _mm256_loadu_ps((const float*)&v));
        _mm256_stream_ps(p + 8, _mm256_loadu_ps((const float*)&v + 8));
        return;
    }
#endif
    (void)stream;
    std::memcpy(p, &v, sizeof v);
}

inline void store(double* p, VecD v, bool) { std::memcpy(p, &v, sizeof v); }

inline void store_16(void* p, Bits16 v, bool stream) {
#if defined(__AVX2__)
    if (stream) return _mm256_stream_si256((__m256i*)p, (__m256i)v);
#endif
    (void)stream;
    std::memcpy(p, &v, sizeof v);
}

inline void store(BFloat16* p, VecF v, bool stream) {
    const BitsF bits = (BitsF)v;
    const BitsF rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
    store_16(p, __builtin_convertvector(v != v ? splat<BitsF>(0x7fc0u) : rounded, Bits16), stream);
}

#if defined(__AVX512F__)
inline void store(Float16* p, VecF v, bool stream) {
    store_16(p, (Bits16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT), stream);
}
#elif defined(__AVX2__)
inline void store(Float16* p, VecF v, bool) {
    const float* f = (const float*)&v;
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(_mm256_loadu_ps(f), _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i*)p + 1, _mm256_cvtps_ph(_mm256_loadu_ps(f + 8), _MM_FROUND_TO_NEAREST_INT));
}
#else
inline Float16 narrow(float f) {
    std::uint32_t bits;
    std::memcpy(&bits, &f, 4);
    const std::uint16_t sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return {std::uint16_t(sign | 0x7e00u)};
    if (bits >= 0x477ff000u) return {std::uint16_t(sign | 0x7c00u)};  // 65520 and more round to infinity
    if (bits < 0x38800000u) {  // below 2^-14: a subnormal counts units of 2^-24; nearbyint rounds ties to even
        float magnitude;
        std::memcpy(&magnitude, &bits, 4);
        return {std::uint16_t(sign | std::uint16_t(std::nearbyint(std::ldexp(magnitude, 24))))};
    }
    return {std::uint16_t(sign | ((bits - 0x38000000u + 0x0fffu + ((bits >> 13) & 1u)) >> 13))};
}
inline void store(Float16* p, VecF v, bool) {
    for (int k = 0; k < kLanes; ++k) p[k] = narrow(v[k]);
}
#endif

// The first n < kLanes numbers at p, 0 in the other lanes; and the way back.
template <class V, class T>
inline V load_some(const T* p, std::int64_t n) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>) return (V)_mm512_maskz_loadu_ps(__mmask16(n > 0 ? (1u << n) - 1 : 0), p);
#endif
    T buffer[kLanes] = {};
    if (n > 0) std::memcpy(buffer, p, std::size_t(n) * sizeof(T));
    return load(buffer);
}
template <class V, class T>
inline void store_some(T* p, V v, std::int64_t n) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float>)
        return _mm512_mask_storeu_ps(p, __mmask16(n > 0 ? (1u << n) - 1 : 0), (__m512)v);
#endif
    T buffer[kLanes];
    store(buffer, v, false);
    if (n > 0) std::memcpy(p, buffer, std::size_t(n) * sizeof(T));
}

// The first n numbers at p, or sixteen; and the way back, which for n <= 0 is none.
template <class V, class T>
inline V load_up_to(const T* p, std::int64_t n) {
    return n >= kLanes ? load(p) : load_some<V>(p, n);
}
template <class V, class T>
inline void store_up_to(T* p, std::int64_t n, V v) {
    if (n >= kLanes) return store(p, v, false);
    store_some(p, v, n);
}

// Sixteen lanes of the thirty-two of a and b, by number.
#if defined(__clang__)
#define GE_PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define GE_PICK(a, b, ...) __builtin_shuffle(a, b, typename Lanes<V>::Numbers{__VA_ARGS__})
#endif
template <class V>
struct Lanes {
    using Numbers = MaskF;
};
template <>
struct Lanes<VecD> {
    using Numbers = MaskD;
};

// a and b as one sequence of 32: its numbers at even places, and at odd ones.
template <class V>
inline V evens(V a, V b) {
    return GE_PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
template <class V>
inline V odds(V a, V b) {
    return GE_PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
// a0 b0 a1 b1 ...: the first sixteen, and the rest.
template <class V>
inline V interleave_low(V a, V b) {
    return GE_PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
template <class V>
inline V interleave_high(V a, V b) {
    return GE_PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#undef GE_PICK

// Lane k of a mask is bit k.
inline std::uint16_t pack(MaskF m) {
#if defined(__AVX512DQ__)
    return _mm512_movepi32_mask((__m512i)m);
#elif defined(__AVX2__)
    const float* f = (const float*)&m;
    return _mm256_movemask_ps(_mm256_loadu_ps(f)) | _mm256_movemask_ps(_mm256_loadu_ps(f + 8)) << 8;
#else
    std::uint16_t bits = 0;
    for (int k = 0; k < kLanes; ++k) bits |= std::uint16_t(m[k] & 1) << k;
    return bits;
#endif
}
inline std::uint16_t pack(MaskD m) { return pack(__builtin_convertvector(m, MaskF)); }

template <class Mask>
inline Mask unpack(std::uint16_t bits) {
#if defined(__AVX512DQ__)
    const MaskF m = (MaskF)_mm512_movm_epi32(bits);
#else
    constexpr MaskF kBit = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};
    const MaskF m = (splat<MaskF>(std::int32_t(bits)) & kBit) != 0;
#endif
    return __builtin_convertvector(m, Mask);
}

template <class V>
inline double sum(V v) {
    double s[kLanes];
    for (int k = 0; k < kLanes; ++k) s[k] = v[k];
    for (int k = 0; k < 8; ++k) s[k] += s[k + 8];
    for (int k = 0; k < 4; ++k) s[k] += s[k + 4];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

// v in [low, high]; a NaN passes.
template <class V>
inline V clamped(V v, V low, V high) {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<V, VecF>) return (V)_mm512_max_ps((__m512)low, _mm512_min_ps((__m512)high, (__m512)v));
#endif
    v = v > high ? high : v;
    return v < low ? low : v;
}

template <class V>
inline V absolute(V v) {
    return v < 0 ? -v : v;
}

// e^x = scale + scale * rest for x in [-87, 30], to about 1 ulp (e^x is 0 below): x = n ln 2 + r, scale = 2^n, and rest
// = e^r - 1 by its Taylor polynomial for |r| <= ln(2) / 2.
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

// log(1 + u) for u in [0, 1]: 2 atanh(z), z = u / (2 + u) <= 1/3, by its series.
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

// x + x^3 p(x^2) below 0.625, p a Chebyshev fit (relative error 7e-10); 1 - 2 e^-2x / (1 + e^-2x) beyond.
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
