// Convolutions of one pixel between few channels and many. They are as fast as the image of many channels comes from
// memory or goes there: each number of it takes part in at most four products.
#include "../pointwise.h"

#include <stdexcept>

#include "scratch.h"
#include "threads.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

constexpr int kRegLanes = kLanesOf<RegF>;
constexpr std::int64_t kStreamBytes = 24 << 20;  // larger results are written around the caches

inline std::int64_t whole_vectors(std::int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// The pixels of all images in pieces. [n, pixels, channels] are the pixels of one image.
struct Pieces {
    const bool last;
    // Sums of so many pixels, on the lanes of a vector where they are neighbours, are rounded little in float.
    const std::int64_t most = last ? 512 : 2048;
    const std::int64_t n, pixels, each = (pixels + most - 1) / most, count = n * each;

    explicit Pieces(const PointwiseImages& i)
        : last(i.last != 0), n(last ? 1 : i.n), pixels(last ? i.n * i.pixels : i.pixels) {}
    std::int64_t first(std::int64_t piece) const { return piece % each * most; }
    std::int64_t size(std::int64_t piece) const { return std::min(most, pixels - first(piece)); }
    // Where a piece of x begins. Its channels, or its pixels, are `apart` apart.
    template <class T>
    T* at(T* x, std::int64_t piece, std::int64_t channels) const {
        return last ? x + first(piece) * channels : x + piece / each * channels * pixels + first(piece);
    }
};

// run(piece) for all pieces, on several threads.
template <class Run>
void for_pieces(const Pieces& pieces, std::int64_t channels, int threads, const Run& run) {
    const int parts = threads_for(pieces.n * pieces.pixels * channels, threads);
    in_parallel(parts, [&](int part) {
        for (std::int64_t k = pieces.count * part / parts; k < pieces.count * (part + 1) / parts; ++k) run(k);
    });
}

// The weight [few, many], and the bias, with zeros up to whole vectors.
template <int few>
struct Weights {
    const std::int64_t many, row = whole_vectors(many);
    const Buffer numbers = buffer((few + 1) * row);

    explicit Weights(const PointwiseParams& p) : many(p.shape.many) {
        std::fill_n(numbers.get(), (few + 1) * row, 0.f);
        for (int f = 0; f < few; ++f)
            for (std::int64_t m = 0; m < many; ++m)
                numbers[f * row + m] = p.weight[f * p.shape.stride_few + m * p.shape.stride_many];
        if (p.bias != nullptr) std::copy_n(p.bias, p.to_many ? many : few, numbers.get() + few * row);
    }
    const float* of(int f) const { return numbers.get() + f * row; }
    const float* bias() const { return of(few); }
};

// From few channels to many, [pixels, channels].
template <int few>
[[gnu::noinline]] void expand_last(const float* x, const Weights<few>& w, std::int64_t pixels, float* y, bool stream) {
    for (std::int64_t p = 0; p < pixels; ++p, x += few, y += w.many) {
        VecF factor[few];
        for (int f = 0; f < few; ++f) factor[f] = splat<VecF>(x[f]);
        for (std::int64_t m = 0; m < w.many; m += kLanes) {
            VecF v = load(w.bias() + m);
            for (int f = 0; f < few; ++f) v += factor[f] * load(w.of(f) + m);
            if (w.many - m >= kLanes)
                store(y + m, v, stream);
            else
                store_some(y + m, v, w.many - m);
        }
    }
}

// The same, [channels, pixels]. Channels are `apart` apart.
template <int few>
[[gnu::noinline]] void expand_planes(const float* x, const Weights<few>& w, std::int64_t pixels, std::int64_t apart,
                                     float* y, bool stream) {
    for (std::int64_t m = 0; m < w.many; ++m, y += apart) {
        const VecF bias = splat<VecF>(w.bias()[m]);
        VecF factor[few];
        for (int f = 0; f < few; ++f) factor[f] = splat<VecF>(w.of(f)[m]);
        std::int64_t p = 0;
        for (; p + kLanes <= pixels; p += kLanes) {
            VecF v = bias;
            for (int f = 0; f < few; ++f) v += factor[f] * load(x + f * apart + p);
            store(y + p, v, stream);
        }
        if (p == pixels) continue;
        VecF v = bias;
        for (int f = 0; f < few; ++f) v += factor[f] * load_some<VecF>(x + f * apart + p, pixels - p);
        store_some(y + p, v, pixels - p);
    }
}

// From many channels to few, [pixels, channels]. The sums of as many pixels as a register has numbers are added up
// together: their results are neighbours in y.
template <int few>
[[gnu::noinline]] void reduce_last(const float* x, const Weights<few>& w, std::int64_t pixels, float* y) {
    float bias[few * kRegLanes];
    for (int k = 0; k < few * kRegLanes; ++k) bias[k] = w.bias()[k % few];
    for (std::int64_t p = 0; p < pixels; p += kRegLanes) {
        const std::int64_t left = std::min<std::int64_t>(pixels - p, kRegLanes);
        RegF sums[few][kRegLanes] = {};
        for (std::int64_t k = 0; k < left; ++k) {
            const float* const pixel = x + (p + k) * w.many;
            RegF s[few] = {};
            std::int64_t m = 0;
            for (; m + kRegLanes <= w.many; m += kRegLanes) {
                const RegF v = load<RegF>(pixel + m);
                for (int f = 0; f < few; ++f) s[f] += v * load<RegF>(w.of(f) + m);
            }
            if (m < w.many) {
                const RegF v = load_some<RegF>(pixel + m, w.many - m);
                for (int f = 0; f < few; ++f) s[f] += v * load<RegF>(w.of(f) + m);
            }
            for (int f = 0; f < few; ++f) (&sums[0][0])[k * few + f] = s[f];
        }
        for (int part = 0; part < few; ++part) {
            transpose_square(sums[part]);
            RegF total = load<RegF>(bias + part * kRegLanes);
            for (int k = 0; k < kRegLanes; ++k) total += sums[part][k];
            store_up_to(y + p * few + part * kRegLanes, left * few - part * kRegLanes, total);
        }
    }
}

// The same, [channels, pixels]: four channels of x at a time are added to y.
template <int few, int together>
GE_INLINE void add_planes(const float* x, const Weights<few>& w, std::int64_t m, std::int64_t pixels,
                          std::int64_t apart, float* y) {
    for (std::int64_t p = 0; p < pixels; p += kLanes) {
        const std::int64_t left = pixels - p;
        VecF v[together];
        for (int k = 0; k < together; ++k) v[k] = load_up_to<VecF>(x + k * apart + p, left);
        for (int f = 0; f < few; ++f) {
            VecF sum = load_up_to<VecF>(y + f * apart + p, left);
            for (int k = 0; k < together; ++k) sum += v[k] * w.of(f)[m + k];
            store_up_to(y + f * apart + p, left, sum);
        }
    }
}
template <int few>
[[gnu::noinline]] void reduce_planes(const float* x, const Weights<few>& w, std::int64_t pixels, std::int64_t apart,
                                     float* y) {
    for (int f = 0; f < few; ++f) std::fill_n(y + f * apart, pixels, w.bias()[f]);
    std::int64_t m = 0;
    for (; m + 4 <= w.many; m += 4) add_planes<few, 4>(x + m * apart, w, m, pixels, apart, y);
    for (; m < w.many; ++m) add_planes<few, 1>(x + m * apart, w, m, pixels, apart, y);
}

// d [few, row] += few x many, [pixels, channels], for `together` pixels. The next pixels, and the next plane below, are
// asked for: no CPU foresees so many short runs.
template <int few, int together>
GE_INLINE void add_products(const float* x, const float* y, std::int64_t many, std::int64_t row, float* d) {
    for (std::int64_t m = 0; m < many; m += kLanes) {
        VecF v[together];
        for (int k = 0; k < together; ++k) {
            v[k] = load_up_to<VecF>(y + k * many + m, many - m);
            __builtin_prefetch(y + (together + k) * many + m);
        }
        for (int f = 0; f < few; ++f) {
            VecF sum = load(d + f * row + m);
            for (int k = 0; k < together; ++k) sum += v[k] * x[k * few + f];
            store(d + f * row + m, sum, false);
        }
    }
}
template <int few>
[[gnu::noinline]] void wgrad_last(const float* x, const float* y, std::int64_t many, std::int64_t pixels,
                                  std::int64_t row, float* d) {
    std::fill_n(d, few * row, 0.f);
    std::int64_t p = 0;
    for (; p + 4 <= pixels; p += 4) add_products<few, 4>(x + p * few, y + p * many, many, row, d);
    for (; p < pixels; ++p) add_products<few, 1>(x + p * few, y + p * many, many, row, d);
}

// The same, [channels, pixels].
template <int few>
[[gnu::noinline]] void wgrad_planes(const float* x, const float* y, std::int64_t many, std::int64_t pixels,
                                    std::int64_t apart, std::int64_t row, float* d) {
    for (std::int64_t m = 0; m < many; ++m, y += apart) {
        VecF sums[few] = {};
        for (std::int64_t p = 0; p < pixels; p += kLanes) {
            const VecF v = load_up_to<VecF>(y + p, pixels - p);
            __builtin_prefetch(y + apart + p);
            for (int f = 0; f < few; ++f) sums[f] += v * load_up_to<VecF>(x + f * apart + p, pixels - p);
        }
        for (int f = 0; f < few; ++f) d[f * row + m] = float(sum(sums[f]));
    }
}

template <int few>
void run(const PointwiseParams& p, int threads) {
    const Pieces pieces(p.images);
    const Weights<few> w(p);
    const std::int64_t many = w.many, from = p.to_many ? few : many, to = p.to_many ? many : few;
    const std::int64_t inner = pieces.last ? many : pieces.pixels;
    const bool stream = p.to_many && pieces.n * pieces.pixels * many * std::int64_t(sizeof(float)) > kStreamBytes &&
                        inner % kLanes == 0 && std::uintptr_t(p.y) % 64 == 0;
    for_pieces(pieces, many, threads, [&](std::int64_t piece) {
        const float* const x = pieces.at(p.x, piece, from);
        float* const y = pieces.at(p.y, piece, to);
        const std::int64_t pixels = pieces.size(piece), apart = pieces.pixels;
        if (p.to_many)
            pieces.last ? expand_last<few>(x, w, pixels, y, stream)
                        : expand_planes<few>(x, w, pixels, apart, y, stream);
        else
            pieces.last ? reduce_last<few>(x, w, pixels, y) : reduce_planes<few>(x, w, pixels, apart, y);
        if (stream) fence();
    });
}

// The sums of pieces are added in double, in their order: the result does not depend on the number of threads.
template <int few>
void run(const PointwiseWgradParams& p, int threads) {
    const Pieces pieces(p.images);
    const std::int64_t many = p.shape.many, row = whole_vectors(many), size = few * row;
    const Buffer sums = buffer(pieces.count * size);
    for_pieces(pieces, many, threads, [&](std::int64_t piece) {
        const float *const x = pieces.at(p.few, piece, few), *const y = pieces.at(p.many, piece, many);
        float* const d = sums.get() + piece * size;
        if (pieces.last)
            wgrad_last<few>(x, y, many, pieces.size(piece), row, d);
        else
            wgrad_planes<few>(x, y, many, pieces.size(piece), pieces.pixels, row, d);
    });
    for (int f = 0; f < few; ++f)
        for (std::int64_t m = 0; m < many; m += kLanes) {
            VecD total{};
            for (std::int64_t k = 0; k < pieces.count; ++k) total += widen(load(sums.get() + k * size + f * row + m));
            double lanes[kLanes];
            store(lanes, total, false);
            for (std::int64_t k = 0; k < std::min<std::int64_t>(kLanes, many - m); ++k)
                p.dweight[f * p.shape.stride_few + (m + k) * p.shape.stride_many] = float(lanes[k]);
        }
}

template <class Params>
void run_few(const Params& p, int threads) {
    if (std::min({p.images.n, p.images.pixels, p.shape.many}) < 1)
        throw std::invalid_argument("pointwise: want images and channels, got none");
    switch (p.shape.few) {
        case 1: return run<1>(p, threads);
        case 2: return run<2>(p, threads);
        case 3: return run<3>(p, threads);
        case 4: return run<4>(p, threads);
    }
    throw std::invalid_argument("pointwise: want 1 to 4 channels on one side, got " + std::to_string(p.shape.few));
}

}  // namespace

void pointwise(const PointwiseParams& p, int threads) { run_few(p, threads); }
void pointwise_wgrad(const PointwiseWgradParams& p, int threads) { run_few(p, threads); }

}  // namespace GE_ISA
}  // namespace gan_engine
