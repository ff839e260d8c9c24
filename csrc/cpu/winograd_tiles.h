// Memory and tiles: what a convolution by minimal filtering and its gradient by the weight share.
#pragma once

#include "../winograd.h"

#include <algorithm>
#include <stdexcept>

#include "minimal.h"
#include "scratch.h"
#include "squares.h"
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

// Where images are planes, a window of pixels and channels becomes channels_last for the tiles in it, in this many
// numbers of the second-level cache.
constexpr std::int64_t kWindow = 1 << 14;

// Images [n, h, w, channels], or [n, channels, h, w] where they are not `last`.
template <class P>
struct Pixels {
    P* p;
    std::int64_t channels, h, w;
    bool last;
};

// A window of `height` x `width` pixels from (top, left) on, inside an image.
struct Window {
    std::int64_t top, left, height, width;
};

// visit(plane, c, pixel, count) for squares of the window: `plane` is channel first + c from number `pixel` of the
// window on, with `count` numbers side by side.
template <class P, class Visit>
inline void each_square(const Pixels<P>& x, std::int64_t n, const Window& s, std::int64_t first, std::int64_t last,
                        const Visit& visit) {
    // Whole rows of an image are one row.
    const bool whole = s.width == x.w;
    const std::int64_t rows = whole ? 1 : s.height, columns = whole ? s.height * s.width : s.width;
    for (std::int64_t line = first; line < last; line += kLanes)
        for (std::int64_t y = 0; y < rows; ++y)
            for (std::int64_t i = 0; i < columns; i += kRegLanes)
                for (std::int64_t c = line; c < std::min(line + kLanes, last); c += kRegLanes) {
                    P* const plane = x.p + ((n * x.channels + c) * x.h + s.top + y) * x.w + s.left + i;
                    visit(plane, c - first, y * columns + i, columns - i);
                }
}

// Moves the window of channels `first` to `last` of image n from planes to `to` [pixels, row], or back.
inline void move_window(const Pixels<const float>& x, std::int64_t n, const Window& s, std::int64_t first,
                        std::int64_t last, float* to, std::int64_t row) {
    each_square(x, n, s, first, last, [&](const float* plane, std::int64_t c, std::int64_t pixel, std::int64_t count) {
        transpose_numbers(
            plane, x.h * x.w, [&](std::int64_t i) { return to + (pixel + i) * row + c; }, last - first - c, count);
    });
}
inline void move_window(const Pixels<float>& y, std::int64_t n, const Window& s, std::int64_t first, std::int64_t last,
                        const float* from, std::int64_t row) {
    each_square(y, n, s, first, last, [&](float* plane, std::int64_t c, std::int64_t pixel, std::int64_t count) {
        transpose_numbers(
            from + pixel * row + c, row, [&](std::int64_t i) { return plane + i * y.h * y.w; }, count,
            last - first - c);
    });
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

    // Visits tiles `from` to `to` of x: use(tile, at, begin, end) for their channels `first` to `last`, or for parts of
    // these channels. at[i][j] + c is the address of channel c of a pixel. `outside` + c is that of pixels outside x.
    template <class P, class Use>
    void in(std::int64_t from, std::int64_t to, P* x, std::int64_t channels, std::int64_t first, std::int64_t last,
            P* outside, const Use& use) const {
        const Pixels<P> pixels = {x, channels, images.in_h, images.in_w, images.x_last != 0};
        visit<A::Down::kIn, A::Across::kIn>({A::Down::kInStep, A::Across::kInStep, first_in}, from, to, pixels, first,
                                            last, outside, use);
    }
    // The same for y. What `use` writes is y, unless P is const.
    template <class P, class Use>
    void out(std::int64_t from, std::int64_t to, P* y, std::int64_t channels, std::int64_t first, std::int64_t last,
             P* outside, const Use& use) const {
        const Pixels<P> pixels = {y, channels, images.out_h, images.out_w, images.y_last != 0};
        visit<A::Down::kOut, A::Across::kOut>({A::Down::kOut, A::Across::kOut, first_out}, from, to, pixels, first,
                                              last, outside, use);
    }

  private:
    struct Steps {
        std::int64_t down, across, first;
    };

    template <int kRows, int kColumns, class P, class Use>
    void visit(const Steps& steps, std::int64_t from, std::int64_t to, const Pixels<P>& pixels, std::int64_t first,
               std::int64_t last, P* outside, const Use& use) const {
        P* at[kRows][kColumns];
        const auto find = [&](std::int64_t t, P* p, std::int64_t row, const Window& inside) {
            const std::int64_t top = t / across % down * steps.down + steps.first - inside.top;
            const std::int64_t left = t % across * steps.across + steps.first - inside.left;
            for (int i = 0; i < kRows; ++i)
                for (int j = 0; j < kColumns; ++j) {
                    const std::int64_t y = top + i, x = left + j;
                    const bool within = y >= 0 && y < inside.height && x >= 0 && x < inside.width;
                    at[i][j] = within ? p + (y * inside.width + x) * row : outside;
                }
        };
        if (pixels.last) {
            for (std::int64_t t = from; t < to; ++t) {
                find(t, pixels.p + t / (across * down) * pixels.h * pixels.w * pixels.channels, pixels.channels,
                     {0, 0, pixels.h, pixels.w});
                use(t, at, first, last);
            }
            return;
        }
        // The tiles of a run lie side by side. A window has all of their pixels, and some of their channels.
        const std::int64_t longest = (kWindow / (kLanes + kLine) / kRows - kColumns) / steps.across + 1;
        const Buffer window = buffer(kWindow);
        for (std::int64_t t = from, end; t < to; t = end) {
            end = std::min({to, t + across - t % across, t + longest});
            const std::int64_t top = t / across % down * steps.down + steps.first,
                               left = t % across * steps.across + steps.first;
            Window inside;
            inside.top = std::clamp<std::int64_t>(top, 0, pixels.h),
            inside.left = std::clamp<std::int64_t>(left, 0, pixels.w);
            inside.height = std::clamp<std::int64_t>(top + kRows, 0, pixels.h) - inside.top;
            inside.width =
                std::clamp<std::int64_t>(left + (end - t - 1) * steps.across + kColumns, 0, pixels.w) - inside.left;
            const std::int64_t size = std::max<std::int64_t>(1, inside.height * inside.width);
            const std::int64_t fit = (kWindow / size - kLine) / kLanes * kLanes;
            const std::int64_t part = std::min(fit, round_up(last - first, kLanes)), row = part + kLine;
            for (std::int64_t c = first, next; c < last; c = next) {
                next = std::min(c + part, last);
                const std::int64_t n = t / (across * down), stop = std::min(next, pixels.channels);
                if constexpr (std::is_const_v<P>) move_window(pixels, n, inside, c, stop, window.get(), row);
                for (std::int64_t k = t; k < end; ++k) {
                    find(k, window.get() - c, row, inside);
                    use(k, at, c, next);
                }
                if constexpr (!std::is_const_v<P>) move_window(pixels, n, inside, c, stop, window.get(), row);
            }
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
