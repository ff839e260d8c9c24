// Vectors of sixteen numbers. The compiler's vector extensions map them to the registers of the instruction set.
//
// This header is compiled once for each instruction set, in a namespace named after the set (GE_ISA). Without the
// namespace the linker would keep one copy of a function for all sets, which another CPU may be unable to run.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "../common.h"

// For functions of vectors: a call passes vectors through memory, and the compiler does not count that cost.
#define GE_INLINE __attribute__((always_inline)) inline

namespace gan_engine {
namespace GE_ISA {

inline constexpr int kLanes = 16;

// Half-precision numbers as memory holds them.
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

// The type of computations on numbers that memory holds as T.
template <class T>
struct Wide {
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

// with_dtype calls run(Stored<T>()), where memory holds the numbers of `dtype` as T.
template <class Number>
struct Stored {
    using T = Number;
};
template <class Run>
inline void with_dtype(DType dtype, const Run& run) {
    switch (dtype) {
        case DType::kFloat32: return run(Stored<float>());
        case DType::kFloat64: return run(Stored<double>());
        case DType::kBFloat16: return run(Stored<BFloat16>());
        case DType::kFloat16: return run(Stored<Float16>());
    }
}

template <class V, class S>
inline V splat(S s) {
    return static_cast<std::remove_reference_t<decltype(V{}[0])>>(s) - V{};  // not s + V{}, which turns -0 into 0
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

// `stream` writes around the caches; then the address must be aligned to the number of bytes written.
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
    if (bits >= 0x477ff000u) return {std::uint16_t(sign | 0x7c00u)};  // 65520 and above round to infinity
    if (bits < 0x38800000u) {  // below 2^-14: a subnormal counts units of 2^-24, and nearbyint rounds ties to even
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

// load_some: the first n < kLanes numbers at p, and 0 in the other lanes. store_some writes n lanes.
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

// The first min(n, kLanes) numbers at p. With n <= 0, store_up_to writes nothing.
template <class V, class T>
inline V load_up_to(const T* p, std::int64_t n) {
    return n >= kLanes ? load(p) : load_some<V>(p, n);
}
template <class V, class T>
inline void store_up_to(T* p, std::int64_t n, V v) {
    if (n >= kLanes) return store(p, v, false);
    store_some(p, v, n);
}

// Sixteen of the thirty-two lanes of a and b, by their numbers.
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

// a and b are one sequence of 32 numbers: those at even places, and those at odd places.
template <class V>
inline V evens(V a, V b) {
    return GE_PICK(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
template <class V>
inline V odds(V a, V b) {
    return GE_PICK(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
// The sequence a0 b0 a1 b1 ...: the first sixteen numbers, and the last sixteen.
template <class V>
inline V interleave_low(V a, V b) {
    return GE_PICK(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
template <class V>
inline V interleave_high(V a, V b) {
    return GE_PICK(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}
#undef GE_PICK

// A mask as bits: lane k is bit k.
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

// v, limited to [low, high]; NaN stays NaN.
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

}  // namespace GE_ISA
}  // namespace gan_engine
