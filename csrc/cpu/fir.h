// The FIR filter of an image, as upfirdn2d and upfirdn2d_act use it. The operators say what happens to a row of x
// before the filter, and to a row of y behind it. fir.cpp has the filter: it is compiled once for both operators.
#pragma once

#include "../upfirdn2d.h"

#include <algorithm>

#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

// Pixels x, ..., x + pixels - 1 of row y of an image. They have one channel, or `channels` neighbouring channels where
// the channels come last; the first is `channel`.
struct Row {
    std::int64_t image, channel, channels, y, x, pixels;
};

namespace fir {

// The most channels of a row, where the channels come last.
inline constexpr std::int64_t kMostChannels = 512;

// The memory of a row in an image: the index of its first element, and `step` elements from a pixel to the next.
template <bool channels_last>
struct Place {
    std::int64_t element, step, pixel;  // pixel: the index in [images, h, w]

    Place(const Row& row, std::int64_t channels, std::int64_t h, std::int64_t w) {
        pixel = (row.image * h + row.y) * w + row.x;
        element = channels_last ? pixel * channels + row.channel
                                : ((row.image * channels + row.channel) * h + row.y) * w + row.x;
        step = channels_last ? channels : 1;
    }
};

// body(k, n) for each run of n neighbours of a row: the only run, or the channels of its pixel k.
template <bool channels_last, class Body>
inline void for_runs(const Row& row, const Body& body) {
    if constexpr (channels_last) {
        for (std::int64_t k = 0; k < row.pixels; ++k) body(k, row.channels);
    } else {
        body(0, row.pixels);
    }
}

// Row `row` of x, an image of numbers of T, as the `in` of Ends writes it.
template <class T, bool channels_last>
void widen_row(const Upfirdn2dParams& p, const Row& row, typename Wide<T>::Scalar* to, std::int64_t step) {
    const Place<channels_last> place(row, p.c, p.h.in, p.w.in);
    const T* x = static_cast<const T*>(p.x) + place.element;
    for_runs<channels_last>(row, [&](std::int64_t k, std::int64_t n) {
        for (std::int64_t i = 0; i < n; i += kLanes)
            store(to + k * step + i, load_up_to<typename Wide<T>::Vec>(x + k * place.step + i, n - i), false);
    });
}

// What a filter on numbers of S reads and writes.
//
// The filter reads x in place, or has rows of x written by `in`. It writes rows in place to y, or to memory of its own.
// `out` then gets each row, while it is in the cache. A row's pixels are `step` elements apart; the channels of a pixel
// are neighbours.
template <class S>
struct Ends {
    const S* x = nullptr;    // null: the filter calls `in`
    S* y = nullptr;          // null: `out` stores the row
    bool reads_all = false;  // every row of x passes `in` exactly once with own = true, even if no row of y needs it
    bool finishes = true;    // false: the filter does not call `out`

    virtual void in(const Row& row, bool own, S* to, std::int64_t step) = 0;
    virtual void out(const Row& row, S* made, std::int64_t step) = 0;

  protected:
    ~Ends() = default;
};

// The number of threads for a filter.
inline int parts(const Upfirdn2dParams& p, int threads) {
    return threads_for(p.n * p.c * std::max(p.h.in * p.w.in, p.h.out * p.w.out), threads);
}

// Makes share `part` of `parts` shares of y.
void filter(const Upfirdn2dParams& p, int part, int parts, Ends<float>& ends);
void filter(const Upfirdn2dParams& p, int part, int parts, Ends<double>& ends);

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
