// Memory and tiles: what a convolution by minimal filtering and its gradient by the weight share.
#pragma once

#include "../winograd.h"

#include <algorithm>
#include <stdexcept>

#include "minimal.h"
#include "scratch.h"
#include "threads.h"
#include "vec.h"
#include "winograd_product.h"

namespace gan_engine {
namespace GE_ISA {
namespace minimal {

// Space between the products of two points. Without it the same pixel of all points falls into one set of the cache.
constexpr std::int64_t kApart = 3 * kLine;

inline std::int64_t panels(std::int64_t channels) { return (channels + kPanel - 1) / kPanel; }
inline std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

inline void check(const WinogradImages& i, const WinogradWeight& w) {
    if (std::min({i.n, i.in_h, i.in_w, i.out_h, i.out_w}) < 1)
        throw std::invalid_argument("minimal filtering: want images, got none");
    if (std::min(w.out, w.in) < 1) throw std::invalid_argument("minimal filtering: want channels, got none");
}

// run(begin, end) on several threads, which share `items` items.
template <class Run>
void for_shares(std::int64_t items, int threads, const Run& run) {
    const int parts = int(std::min<std::int64_t>(items, threads));
    in_parallel(parts, [&](int part) { run(items * part / parts, items * (part + 1) / parts); });
}

// The positions of the tiles in x and y. Tiles of a transposed convolution begin at an odd or at an even pixel of y
// before its padding is cut off: the first pixel inside, or the pixel before it.
template <class A>
struct Tiles {
    WinogradImages images;
    std::int64_t first_in, first_out, down, across;

    explicit Tiles(const WinogradImages& i) : images(i), first_in(-i.padding), first_out(0) {
        if constexpr (A::kUp) {
            first_out = i.padding % 2 == A::Down::kFromOdd ? 0 : -1;
            first_in = (i.padding + first_out - A::Down::kFromOdd) / 2 - 1;
        }
        down = (i.out_h - first_out + A::Down::kOut - 1) / A::Down::kOut;
        across = (i.out_w - first_out + A::Across::kOut - 1) / A::Across::kOut;
    }
    std::int64_t count() const { return images.n * down * across; }

    // The addresses of the pixels of tile t of x, and `outside` for pixels outside the image.
    template <class P>
    void in(std::int64_t t, P* x, std::int64_t channels, P* outside, typename A::template In<P*>& at) const {
        pixels(t, A::Down::kInStep, A::Across::kInStep, first_in, images.in_h, images.in_w, x, channels, outside, at);
    }
    // The same for y.
    template <class P>
    void out(std::int64_t t, P* y, std::int64_t channels, P* outside, typename A::template Out<P*>& at) const {
        pixels(t, A::Down::kOut, A::Across::kOut, first_out, images.out_h, images.out_w, y, channels, outside, at);
    }

  private:
    template <int Rows, int Columns, class P>
    void pixels(std::int64_t t, std::int64_t step_y, std::int64_t step_x, std::int64_t first, std::int64_t h,
                std::int64_t w, P* p, std::int64_t channels, P* outside, P* (&at)[Rows][Columns]) const {
        const std::int64_t x0 = t % across * step_x + first, y0 = t / across % down * step_y + first;
        const std::int64_t image = t / (across * down);
        for (int i = 0; i < Rows; ++i)
            for (int j = 0; j < Columns; ++j) {
                const std::int64_t y = y0 + i, x = x0 + j;
                const bool inside = y >= 0 && y < h && x >= 0 && x < w;
                at[i][j] = inside ? p + ((image * h + y) * w + x) * channels : outside;
            }
    }
};

// Transforms a tile of x, kRegLanes channels from c on. The numbers of point k go to `to` + k * point.
template <class A>
GE_INLINE void transform_tile(const typename A::template In<const float*>& at, std::int64_t c, std::int64_t channels,
                              float* to, std::int64_t point) {
    typename A::template In<Register> x;
    typename A::template Points<Register> v;
    for (int i = 0; i < A::Down::kIn; ++i)
        for (int j = 0; j < A::Across::kIn; ++j) x[i][j] = load_up_to<Register>(at[i][j] + c, channels - c);
    transform_input<A>(x, v);
    GE_UNROLLED
    for (int k = 0; k < A::kPoints; ++k) store(to + k * point, (&v[0][0])[k], false);
}

}  // namespace minimal
}  // namespace GE_ISA
}  // namespace gan_engine
