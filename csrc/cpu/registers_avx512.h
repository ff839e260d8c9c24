// Registers of 64 bytes, as AVX-512 has them (with the parts F, BW, VL and DQ).
#pragma once

#include <immintrin.h>

#include "registers.h"

namespace gan_engine {
namespace GE_ISA {

inline constexpr int kRegisterBytes = 64;
using RegF = Native<float, 16>;
using RegD = Native<double, 8>;

// Waits until streaming stores can be seen by other threads.
GE_INLINE void fence() { _mm_sfence(); }

template <>
struct OnRegister<RegF> : PortableOnRegister<RegF> {
    using PortableOnRegister<RegF>::load;
    using PortableOnRegister<RegF>::store;

    static GE_INLINE RegF load(const Float16* p) {
        return (RegF)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
    }
    static GE_INLINE RegF load(const BFloat16* p) {
        return (RegF)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
    }
    static GE_INLINE void store(float* p, RegF v, bool stream) {
        stream ? _mm512_stream_ps(p, (__m512)v) : _mm512_storeu_ps(p, (__m512)v);
    }
    static GE_INLINE void store(Float16* p, RegF v, bool stream) {
        store_16(p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT), stream);
    }
    static GE_INLINE void store(BFloat16* p, RegF v, bool stream) {
        store_16(p, _mm512_cvtepi32_epi16((__m512i)bf16(v)), stream);
    }
    static GE_INLINE RegF load_some(const float* p, std::int64_t n) { return (RegF)_mm512_maskz_loadu_ps(first(n), p); }
    static GE_INLINE void store_some(float* p, RegF v, std::int64_t n) {
        _mm512_mask_storeu_ps(p, first(n), (__m512)v);
    }
    static GE_INLINE RegF root(RegF v) { return (RegF)_mm512_sqrt_ps((__m512)v); }
    static GE_INLINE RegF clamped(RegF v, RegF low, RegF high) {
        return (RegF)_mm512_max_ps((__m512)low, _mm512_min_ps((__m512)high, (__m512)v));
    }
    static GE_INLINE Two<RegD> widened(RegF v) {
        return {(RegD)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)),
                (RegD)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1))};
    }

  private:
    static GE_INLINE void store_16(void* p, __m256i v, bool stream) {
        stream ? _mm256_stream_si256((__m256i*)p, v) : _mm256_storeu_si256((__m256i*)p, v);
    }
    // A mask of the first n < 16 lanes.
    static GE_INLINE __mmask16 first(std::int64_t n) { return __mmask16(n > 0 ? (1u << n) - 1 : 0); }
};

// Half a register, for short rows.
template <>
struct OnRegister<Native<float, 8>> : PortableOnRegister<Native<float, 8>> {
    using R = Native<float, 8>;
    static GE_INLINE R load_some(const float* p, std::int64_t n) { return (R)_mm256_maskz_loadu_ps(first(n), p); }
    static GE_INLINE void store_some(float* p, R v, std::int64_t n) { _mm256_mask_storeu_ps(p, first(n), (__m256)v); }

  private:
    // A mask of the first n < 8 lanes.
    static GE_INLINE __mmask8 first(std::int64_t n) { return __mmask8(n > 0 ? (1u << n) - 1 : 0); }
};

template <>
struct OnMask<MaskOf<RegF>> {
    static GE_INLINE unsigned pack(MaskOf<RegF> m) { return _mm512_movepi32_mask((__m512i)m); }
    template <int first>
    static GE_INLINE RegF select(std::uint16_t bits, RegF a, RegF b) {
        return (RegF)_mm512_mask_blend_ps(__mmask16(bits >> first), (__m512)b, (__m512)a);
    }
};
template <>
struct OnMask<MaskOf<RegD>> {
    static GE_INLINE unsigned pack(MaskOf<RegD> m) { return _mm512_movepi64_mask((__m512i)m); }
    template <int first>
    static GE_INLINE RegD select(std::uint16_t bits, RegD a, RegD b) {
        return (RegD)_mm512_mask_blend_pd(__mmask8(bits >> first), (__m512d)b, (__m512d)a);
    }
};

}  // namespace GE_ISA
}  // namespace gan_engine
