// Eight neighbours in a row of a matrix, and what belongs to the columns or the rows of a matrix. kWhole: rows begin at
// multiples of 16 bytes, and have whole eights.
#pragma once

#include "words.h"

namespace gan_engine {
namespace cuda {

template <bool kWhole, class T>
__device__ __forceinline__ void load_eight(Wide<T> (&to)[8], const T* from, int columns) {
    if constexpr (kWhole) {
        read<T, 8>(to, from, true);
    } else {
#pragma unroll
        for (int k = 0; k < 8; ++k) to[k] = k < columns ? widen(from[k]) : Wide<T>(0);
    }
}

template <bool kWhole, class T>
__device__ __forceinline__ void store_eight(T* to, const Wide<T> (&v)[8], int columns) {
    if constexpr (kWhole) {
        write<T, 8>(to, v);
    } else {
#pragma unroll
        for (int k = 0; k < 8; ++k)
            if (k < columns) to[k] = narrow<T>(v[k]);
    }
}

// A number for each column of a matrix (kColumns), or for each row; `missing` for all if there is no memory. A thread
// has those of its eight columns, and of one row at a time.
template <class S, bool kColumns, bool kWhole>
struct Broadcast {
    const S* from;
    S v[kColumns ? 8 : 1];

    __device__ __forceinline__ Broadcast(const void* memory, std::int64_t first, S missing)
        : from(memory == nullptr ? nullptr : static_cast<const S*>(memory) + first) {
#pragma unroll
        for (S& of : v) of = missing;
    }
    __device__ __forceinline__ void at_columns(std::int64_t column, int columns) {
        if constexpr (kColumns)
            if (from != nullptr) load_eight<kWhole>(v, from + column, columns);
    }
    __device__ __forceinline__ void at_row(std::int64_t row) {
        if constexpr (!kColumns)
            if (from != nullptr) v[0] = from[row];
    }
    __device__ __forceinline__ S operator[](int k) const { return v[kColumns ? k : 0]; }
};

}  // namespace cuda
}  // namespace gan_engine
