// Loads and stores of neighbouring numbers, in one access of up to 16 bytes.
#pragma once

#include "eight.h"

namespace gan_engine {
namespace cuda {

// The numbers in 16 bytes. bfloat16 is the upper half of a float: one instruction each, where the compiler needs two.
template <class T>
__device__ __forceinline__ void widen_words(Wide<T>* to, const uint4& words) {
    if constexpr (std::is_same_v<T, __nv_bfloat16>) {
        const unsigned pairs[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            const unsigned bits[2] = {pairs[k] << 16, pairs[k] & 0xffff0000u};
            memcpy(&to[2 * k], bits, 8);
        }
    } else {
        T v[16 / sizeof(T)];
        memcpy(v, &words, 16);
#pragma unroll
        for (int k = 0; k < int(16 / sizeof(T)); ++k) to[k] = widen(v[k]);
    }
}

// Writes 8 or 16 bytes at once. The compiler takes such stores apart where it knows what the parts are.
template <class Words>
__device__ __forceinline__ void store_words(void* to, const Words& from) {
#if defined(__CUDA_ARCH__)
    if constexpr (sizeof(Words) == 16) {
        uint4 w;
        memcpy(&w, &from, 16);
        asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(w.x), "r"(w.y), "r"(w.z), "r"(w.w));
    } else if constexpr (sizeof(Words) == 8) {
        uint2 w;
        memcpy(&w, &from, 8);
        asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(w.x), "r"(w.y));
    } else {
        *static_cast<Words*>(to) = from;
    }
#else
    memcpy(to, &from, sizeof from);
#endif
}

// V neighbouring numbers.
template <class T, int V>
struct alignas(sizeof(T) * V) Vector {
    T v[V];
};

// Loads V numbers; they are 0 unless they are `inside`.
template <class T, int V>
__device__ __forceinline__ void read(Wide<T> (&to)[V], const T* from, bool inside) {
    constexpr int kPart = sizeof(T) * V > 16 ? 16 / sizeof(T) : V;
    if constexpr (sizeof(T) * V >= 16) {
#pragma unroll
        for (int k = 0; k < V; k += kPart) {
            uint4 words = {0, 0, 0, 0};
            if (inside) words = *reinterpret_cast<const uint4*>(from + k);
            widen_words<T>(to + k, words);
        }
    } else {
        Vector<T, V> raw = {};
        if (inside) raw = *reinterpret_cast<const Vector<T, V>*>(from);
#pragma unroll
        for (int k = 0; k < V; ++k) to[k] = widen(raw.v[k]);
    }
}

template <class T, int V>
__device__ __forceinline__ void write(T* to, const Wide<T> (&v)[V]) {
    constexpr int kPart = sizeof(T) * V > 16 ? 16 / sizeof(T) : V;
#pragma unroll
    for (int k = 0; k < V; k += kPart) {
        Vector<T, kPart> raw;
#pragma unroll
        for (int j = 0; j < kPart; ++j) raw.v[j] = narrow<T>(v[k + j]);
        store_words(to + k, raw);
    }
}

}  // namespace cuda
}  // namespace gan_engine
