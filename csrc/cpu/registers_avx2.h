// Registers of 32 bytes, as AVX2 has them.
#pragma once

#include <immintrin.h>

#include "registers.h"

namespace gan_engine {
namespace GE_ISA {

inline constexpr int kRegisterBytes = 32;
using RegF = Native<float, 8>;
using RegD = Native<double, 4>;

// Waits until streaming stores can be seen by other threads.
GE_INLINE void fence() { _mm_sfence(); }

template <>
struct OnRegister<RegF> : PortableOnRegister<RegF> {
    using PortableOnRegister<RegF>::load;
    using PortableOnRegister<RegF>::store;

    static GE_INLINE RegF load(const Float16* p) { return (RegF)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
    static GE_INLINE RegF load(const BFloat16* p) {
        return (RegF)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16);
    }
    static GE_INLINE void store(float* p, RegF v, bool stream) {
        stream ? _mm256_stream_ps(p, (__m256)v) : _mm256_storeu_ps(p, (__m256)v);
    }
    static GE_INLINE void store(Float16* p, RegF v, bool stream) {
        store_16(p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT), stream);
    }
    static GE_INLINE void store(BFloat16* p, RegF v, bool stream) {
        const __m256i bits = (__m256i)bf16(v);
        store_16(p, _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1)), stream);
    }
    static GE_INLINE RegF load_some(const float* p, std::int64_t n) { return (RegF)_mm256_maskload_ps(p, first(n)); }
    static GE_INLINE void store_some(float* p, RegF v, std::int64_t n) { _mm256_maskstore_ps(p, first(n), (__m256)v); }
    static GE_INLINE RegF root(RegF v) { return (RegF)_mm256_sqrt_ps((__m256)v); }
    static GE_INLINE RegF clamped(RegF v, RegF low, RegF high) {
        return (RegF)_mm256_max_ps((__m256)low, _mm256_min_ps((__m256)high, (__m256)v));
    }
    static GE_INLINE Two<RegD> widened(RegF v) {
        return {(RegD)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)),
                (RegD)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1))};
    }

  private:
    static GE_INLINE void store_16(void* p, __m128i v, bool stream) {
        stream ? _mm_stream_si128((__m128i*)p, v) : _mm_storeu_si128((__m128i*)p, v);
    }
    // A mask of the first n lanes.
    static GE_INLINE __m256i first(std::int64_t n) {
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
};

template <>
struct OnMask<MaskOf<RegF>> : PortableOnMask<MaskOf<RegF>> {
    static GE_INLINE unsigned pack(MaskOf<RegF> m) { return unsigned(_mm256_movemask_ps((__m256)m)); }
};
template <>
struct OnMask<MaskOf<RegD>> : PortableOnMask<MaskOf<RegD>> {
    static GE_INLINE unsigned pack(MaskOf<RegD> m) { return unsigned(_mm256_movemask_pd((__m256d)m)); }
};

}  // namespace GE_ISA
}  // namespace gan_engine
