#pragma once

struct __half {
    _Float16 v;
    __half() = default;
    explicit __half(float f) : v(_Float16(f)) {}
};

inline float __half2float(__half h) { return float(h.v); }
inline __half __float2half_rn(float f) { return __half(f); }
