#include "../pixel_norm.h"

#include <cmath>

#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// Bytes of x (and dy) in a tile, which is read twice: for the sums, and for y. A tile fits into a core's L2 cache of 1
// MB.
constexpr std::int64_t kTileBytes = 256 << 10;
constexpr int kMostVectors = 16;
// So many numbers are summed one after the other, and then such sums. This limits the growth of rounding errors.
constexpr std::int64_t kRun = 32;

// r of pixel_norm.h, and the factor of x in the gradient, from sums over n channels.
template <class V, class S>
struct Factors {
    V r, of_x;
    GE_INLINE Factors(V squares, V dots, S n, S eps) {
        r = 1 / root(squares / n + eps);
        of_x = r * r * r * (dots / n);
    }
};

template <class T, bool grad>
struct PixelNorm {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const PixelNormParams& p;
    const T* x = static_cast<const T*>(p.x);
    const T* dy = static_cast<const T*>(grad ? p.dy : p.x);
    T* y = static_cast<T*>(p.y);
    const S n = S(p.channels), eps = S(p.eps);

    // `count` <= 16 pixels from `row` on, where channels are neighbours.
    void rows(std::int64_t row, std::int64_t count) const {
        const std::int64_t whole = p.channels / kLanes * kLanes, rest = p.channels - whole;
        S squares[kLanes] = {}, dots[kLanes] = {};
        for (int k = 0; k < count; ++k) {
            const T *a = x + (row + k) * p.channels, *b = dy + (row + k) * p.channels;
            V square{}, dot{};
            const auto add = [&](V u, V v) {
                square += u * u;
                if (grad) dot += u * v;
            };
            for (std::int64_t c = 0; c < whole; c += kLanes) add(load(a + c), load(b + c));
            if (rest > 0) add(load_some<V>(a + whole, rest), load_some<V>(b + whole, rest));
            squares[k] = S(sum(square));
            if (grad) dots[k] = S(sum(dot));
        }
        const Factors<V, S> factors(load(squares), load(dots), n, eps);
        S r_of[kLanes], of_x_of[kLanes];
        store(r_of, factors.r, false), store(of_x_of, factors.of_x, false);
        for (int k = 0; k < count; ++k) {
            const T *a = x + (row + k) * p.channels, *b = dy + (row + k) * p.channels;
            T* out = y + (row + k) * p.channels;
            const V r = splat<V>(r_of[k]), of_x = splat<V>(of_x_of[k]);
            const auto result = [&](V u, V v) { return grad ? r * v - of_x * u : r * u; };
            for (std::int64_t c = 0; c < whole; c += kLanes) store(out + c, result(load(a + c), load(b + c)), false);
            if (rest > 0)
                store_some(out + whole, result(load_some<V>(a + whole, rest), load_some<V>(b + whole, rest)), rest);
        }
    }

    // `width` <= 16 * kMostVectors pixels of sample `o` from i on, where channels are `inner` apart.
    void tile(std::int64_t o, std::int64_t i, std::int64_t width) const {
        const std::int64_t start = o * p.channels * p.inner + i;
        const int whole = int(width / kLanes), vectors = int((width + kLanes - 1) / kLanes);
        const std::int64_t rest = width - whole * kLanes;
        V squares[kMostVectors] = {}, dots[kMostVectors] = {};
        for (std::int64_t c = 0; c < p.channels;) {
            V run_squares[kMostVectors] = {}, run_dots[kMostVectors] = {};
            for (const std::int64_t stop = c + kRun < p.channels ? c + kRun : p.channels; c < stop; ++c) {
                const T *a = x + start + c * p.inner, *b = dy + start + c * p.inner;
                for (int k = 0; k < vectors; ++k) {
                    const V u = k < whole ? load(a + k * kLanes) : load_some<V>(a + k * kLanes, rest);
                    run_squares[k] += u * u;
                    if (grad)
                        run_dots[k] += u * (k < whole ? load(b + k * kLanes) : load_some<V>(b + k * kLanes, rest));
                }
            }
            for (int k = 0; k < vectors; ++k) squares[k] += run_squares[k], dots[k] += run_dots[k];
        }
        for (int k = 0; k < vectors; ++k) {
            const Factors<V, S> f(squares[k], dots[k], n, eps);
            squares[k] = f.r, dots[k] = f.of_x;
        }
        for (std::int64_t c = 0; c < p.channels; ++c) {
            const std::int64_t at = start + c * p.inner;
            for (int k = 0; k < vectors; ++k) {
                const std::int64_t j = at + k * kLanes;
                const V u = k < whole ? load(x + j) : load_some<V>(x + j, rest);
                V v = squares[k] * u;
                if (grad) v = squares[k] * (k < whole ? load(dy + j) : load_some<V>(dy + j, rest)) - dots[k] * u;
                if (k < whole)
                    store(y + j, v, false);
                else
                    store_some(y + j, v, rest);
            }
        }
    }

    void run(int threads) const {
        const int parts = threads_for(p.outer * p.channels * p.inner, threads);
        if (p.inner == 1)
            return in_parallel(parts, [&](int k) {
                const std::int64_t end = p.outer * (k + 1) / parts;
                for (std::int64_t row = p.outer * k / parts; row < end; row += kLanes)
                    rows(row, end - row < kLanes ? end - row : kLanes);
            });
        const std::int64_t fit = kTileBytes / std::int64_t(sizeof(T)) / (grad ? 2 : 1) / p.channels / kLanes;
        const std::int64_t width = kLanes * (fit < 1 ? 1 : fit < kMostVectors ? fit : kMostVectors);
        const std::int64_t across = (p.inner + width - 1) / width, tiles = p.outer * across;
        in_parallel(parts, [&](int k) {
            for (std::int64_t t = tiles * k / parts; t < tiles * (k + 1) / parts; ++t) {
                const std::int64_t i = t % across * width;
                tile(t / across, i, p.inner - i < width ? p.inner - i : width);
            }
        });
    }
};

template <class T>
void run(const PixelNormParams& p, int threads) {
    p.dy == nullptr ? PixelNorm<T, false>{p}.run(threads) : PixelNorm<T, true>{p}.run(threads);
}

}  // namespace

void pixel_norm(const PixelNormParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { run<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
