// Registers of 16 bytes, as every AArch64 CPU has them (NEON).
#pragma once

#include <arm_neon.h>

#include "registers.h"

namespace gan_engine {
namespace GE_ISA {

inline constexpr int kRegisterBytes = 16;
using RegF = Native<float, 4>;
using RegD = Native<double, 2>;

GE_INLINE void fence() {}  // no store here goes around the caches

template <>
struct OnRegister<RegF> : PortableOnRegister<RegF> {
    using PortableOnRegister<RegF>::load;
    using PortableOnRegister<RegF>::store;

    static GE_INLINE RegF load(const Float16* p) {
        return (RegF)vcvt_f32_f16(vreinterpret_f16_u16(load_bytes<uint16x4_t>(p)));
    }
    static GE_INLINE void store(Float16* p, RegF v, bool) {
        const uint16x4_t bits = vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v));
        std::memcpy(p, &bits, sizeof bits);
    }
    // NEON has no masks for memory: two lanes are a register of 8 bytes, and one lane is a number.
    static GE_INLINE RegF load_some(const float* p, std::int64_t n) {
        if (n >= 4) return load(p);
        RegF v{};
        if (n >= 2) v = (RegF)vcombine_f32(vld1_f32(p), vdup_n_f32(0));
        if (n == 1) v[0] = p[0];
        if (n == 3) v[2] = p[2];
        return v;
    }
    static GE_INLINE void store_some(float* p, RegF v, std::int64_t n) {
        if (n >= 4) return store(p, v, false);
        if (n >= 2) vst1_f32(p, vget_low_f32((float32x4_t)v));
        if (n == 1) p[0] = v[0];
        if (n == 3) p[2] = v[2];
    }
    static GE_INLINE RegF root(RegF v) { return (RegF)vsqrtq_f32((float32x4_t)v); }
    static GE_INLINE RegF clamped(RegF v, RegF low, RegF high) {
        return (RegF)vmaxq_f32((float32x4_t)low, vminq_f32((float32x4_t)high, (float32x4_t)v));
    }
    static GE_INLINE Two<RegD> widened(RegF v) {
        return {(RegD)vcvt_f64_f32(vget_low_f32((float32x4_t)v)), (RegD)vcvt_high_f64_f32((float32x4_t)v)};
    }
};

template <>
struct OnMask<MaskOf<RegF>> : PortableOnMask<MaskOf<RegF>> {
    static GE_INLINE unsigned pack(MaskOf<RegF> m) {
        const Native<std::uint32_t, 4> bit = {1, 2, 4, 8};
        return vaddvq_u32((uint32x4_t)m & (uint32x4_t)bit);
    }
};

// The sixteen bits of four masks at once, each bit in a byte before bytes are added.
GE_INLINE std::uint16_t pack(Two<Two<MaskOf<RegF>>> m) {
    const uint16x8_t low = vuzp1q_u16((uint16x8_t)m.low.low, (uint16x8_t)m.low.high);
    const uint16x8_t high = vuzp1q_u16((uint16x8_t)m.high.low, (uint16x8_t)m.high.high);
    const Native<std::uint8_t, 16> bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t bits = vuzp1q_u8((uint8x16_t)low, (uint8x16_t)high) & (uint8x16_t)bit;
    return std::uint16_t(vaddv_u8(vget_low_u8(bits)) | vaddv_u8(vget_high_u8(bits)) << 8);
}

}  // namespace GE_ISA
}  // namespace gan_engine
