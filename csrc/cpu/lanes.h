// Sixteen planes of an image at once: a pixel is a vector, with a lane for each plane.
#pragma once

#include "../upfirdn2d.h"

#include <algorithm>

#include "vec.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {

// Images [n, c, h, w], or [n, h, w, c] where channels_last, of numbers of T in memory. A block is sixteen of the n * c
// planes, or sixteen channels of an image where channels_last. The last block may have fewer planes.
template <class T>
class Planes {
  public:
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

    Planes(std::int64_t n_, std::int64_t c_, std::int64_t h_, std::int64_t w_, bool channels_last)
        : n(n_), c(c_), h(h_), w(w_), last(channels_last), of_image((c_ + kLanes - 1) / kLanes) {}

    std::int64_t blocks() const { return last ? n * of_image : (n * c + kLanes - 1) / kLanes; }

    // The numbers b [c] of the planes of a block.
    V of_planes(const S* b, std::int64_t block) const {
        S lanes[kLanes] = {};
        for (std::int64_t i = 0; i < planes(block); ++i) lanes[i] = b[last ? first(block) + i : (first(block) + i) % c];
        return load<V>(lanes);
    }
    // The other way: a number of each plane of a block, to [n, c].
    void put_planes(S* numbers, std::int64_t block, VecD v) const {
        double lanes[kLanes];
        store(lanes, v, false);
        numbers += (last ? block / of_image * c : 0) + first(block);
        for (std::int64_t i = 0; i < planes(block); ++i) numbers[i] = S(lanes[i]);
    }

    // Pixels from, ..., from + pixels - 1 of row y as vectors, plus `b`.
    void read(const T* x, std::int64_t block, std::int64_t y, std::int64_t from, std::int64_t pixels, V b,
              S* to) const {
        const std::int64_t count = planes(block);
        x += place(block, y, from);
        if (last) {
            for (std::int64_t i = 0; i < pixels; ++i, x += c)
                store(to + i * kLanes, load_up_to<V>(x, count) + b, false);
            return;
        }
        S bias[kLanes];
        store(bias, b, false);
        for (std::int64_t i = 0; i < pixels; i += kSquare)
            for (std::int64_t k = 0; k < kLanes; k += kSquare) {
                R v[kSquare];
                for (std::int64_t j = 0; j < kSquare; ++j) {
                    v[j] = R{};
                    if (k + j >= count) continue;
                    const T* const plane = x + (k + j) * h * w + i;
                    v[j] = load_up_to<R>(plane, pixels - i);
                    __builtin_prefetch(plane + w);  // no CPU foresees the next row
                }
                transpose_square(v);
                const R add = load<R>(bias + k);
                const std::int64_t some = std::min<std::int64_t>(pixels - i, kSquare);
                for (std::int64_t j = 0; j < some; ++j) store(to + (i + j) * kLanes + k, v[j] + add, false);
            }
    }

    // The other way: pixels of row y in memory from vectors. It reads a multiple of kSquare vectors.
    void write(T* x, std::int64_t block, std::int64_t y, std::int64_t from, std::int64_t pixels,
               const S* vectors) const {
        const std::int64_t count = planes(block);
        x += place(block, y, from);
        if (last) {
            for (std::int64_t i = 0; i < pixels; ++i, x += c) store_up_to(x, count, load<V>(vectors + i * kLanes));
            return;
        }
        for (std::int64_t i = 0; i < pixels; i += kSquare)
            for (std::int64_t k = 0; k < count; k += kSquare) {
                R v[kSquare];
                for (std::int64_t j = 0; j < kSquare; ++j) v[j] = load<R>(vectors + (i + j) * kLanes + k);
                transpose_square(v);
                const std::int64_t some = std::min<std::int64_t>(count - k, kSquare);
                for (std::int64_t j = 0; j < some; ++j) {
                    T* const plane = x + (k + j) * h * w + i;
                    store_up_to(plane, pixels - i, v[j]);
                    __builtin_prefetch(plane + w, 1);
                }
            }
    }

  private:
    // Squares of registers are transposed. Sixteen vectors would take more registers than most instruction sets have.
    using R = std::conditional_t<sizeof(S) == 4, RegF, RegD>;
    static constexpr std::int64_t kSquare = kLanesOf<R>;

    std::int64_t n, c, h, w;
    bool last;
    std::int64_t of_image;  // blocks of an image

    // The first plane of a block, or its first channel where channels_last.
    std::int64_t first(std::int64_t block) const { return (last ? block % of_image : block) * kLanes; }
    std::int64_t planes(std::int64_t block) const {
        return std::min<std::int64_t>(kLanes, (last ? c : n * c) - first(block));
    }
    std::int64_t place(std::int64_t block, std::int64_t y, std::int64_t x) const {
        return last ? ((block / of_image * h + y) * w + x) * c + first(block) : (first(block) * h + y) * w + x;
    }
};

}  // namespace GE_ISA
}  // namespace gan_engine
