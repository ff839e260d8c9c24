#pragma once

#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    std::uint16_t bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float f) {  // to nearest, ties to even
        std::uint32_t wide;
        std::memcpy(&wide, &f, 4);
        bits = f != f ? 0x7fff : std::uint16_t((wide + 0x7fff + (wide >> 16 & 1)) >> 16);
    }
};

inline float __bfloat162float(__nv_bfloat16 h) {
    const std::uint32_t wide = std::uint32_t(h.bits) << 16;
    float f;
    std::memcpy(&f, &wide, 4);
    return f;
}
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16(f); }
