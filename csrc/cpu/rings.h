// Rows of vectors that pass through a tile, in rings, and the memory of a tile.
#pragma once

#include <algorithm>

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

inline std::int64_t power_of_two(std::int64_t least) {
    std::int64_t n = 1;
    while (n < least) n *= 2;
    return n;
}

// i, or the end of [0, size] that is next to it.
inline std::int64_t inside(std::int64_t i, std::int64_t size) { return std::clamp<std::int64_t>(i, 0, size); }

// Rows in a ring, each of `pitch` elements. Rows outside the image are zeros.
template <class S>
struct Ring {
    S *data, *zeros;
    std::int64_t slots, pitch, height;

    S* row(std::int64_t y) const { return data + (y & (slots - 1)) * pitch; }
    const S* at(std::int64_t y) const { return y >= 0 && y < height ? row(y) : zeros; }
};

// Memory of a tile, one piece behind the other. Without memory it counts.
template <class S>
struct Pieces {
    char* memory;
    std::int64_t taken = 0;

    // n vectors, and as many as a block of positions may read behind them.
    S* take(std::int64_t vectors) {
        S* p = reinterpret_cast<S*>(memory) + taken;
        taken += vectors * kLanes;
        return memory == nullptr ? nullptr : p;
    }
};

// Vectors between rows: an odd number, so that the rows of a column do not share a set of the cache.
inline std::int64_t pitch_of(std::int64_t vectors) { return (vectors + kLanes) | 1; }

}  // namespace GE_ISA
}  // namespace gan_engine
