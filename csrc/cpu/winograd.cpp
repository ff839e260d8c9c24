// The convolution and its gradient by the weight. Over all tiles and channels the products of an algorithm of minimal.h
// are matrix products, one for each pair of points, of tiles x in and in x out, which take nearly all of the time.
#include "../winograd.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "minimal.h"
#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

using namespace minimal;

constexpr std::int64_t kPanel = 32;  // columns of a matrix product at a time
constexpr std::int64_t kLine = 16;   // floats of a line of the cache

std::int64_t panels(std::int64_t channels) { return (channels + kPanel - 1) / kPanel; }
std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

struct Free {
    void operator()(float* p) const { std::free(p); }
};
using Buffer = std::unique_ptr<float[], Free>;

// Of large ones huge pages are asked for: fresh from the kernel, each page costs a fault (38 MB: 5 ms instead of 21).
Buffer buffer(std::int64_t n) {
    const std::int64_t bytes = round_up(4 * n, 64), huge = 2 << 20;
    void* p = bytes < 8 * huge ? std::aligned_alloc(64, bytes) : std::aligned_alloc(huge, round_up(bytes, huge));
    if (p == nullptr) throw std::bad_alloc();
#if defined(MADV_HUGEPAGE)
    if (bytes >= 8 * huge) madvise(p, round_up(bytes, huge), MADV_HUGEPAGE);
#endif
    return Buffer(static_cast<float*>(p));
}

// kRows rows of the product, of kRegs registers each at a time, so that as many sums as the registers hold are under
// way.
#if defined(__AVX512F__)
constexpr int kRows = 8;
using Register = VecF;
#elif defined(__AVX2__)
constexpr int kRows = 4;
using Register = float __attribute__((vector_size(32)));
#else
constexpr int kRows = 4;
using Register = float __attribute__((vector_size(16)));
#endif
constexpr int kRegs = 2, kRegLanes = sizeof(Register) / 4;

// c [kRows, 32] = a [kRows, depth] b [depth, 32], or += that; element (r, k) of a is a[r * row + k * step]. Meanwhile
// `ahead` lines from `soon` on are fetched into the cache.
GE_INLINE void multiply(const float* a, std::int64_t row, std::int64_t step, const float* b, float* c,
                        std::int64_t depth, bool add, const float* soon, std::int64_t ahead) {
    for (int col = 0; col < kPanel; col += kRegs * kRegLanes) {
        Register sums[kRows][kRegs] = {};
        for (std::int64_t k = 0; k < depth; ++k) {
            if (k < ahead) __builtin_prefetch(soon + k * kLine);
            Register right[kRegs];
            for (int j = 0; j < kRegs; ++j) right[j] = load_bytes<Register>(b + k * kPanel + col + j * kRegLanes);
            for (int r = 0; r < kRows; ++r) {
                const Register left = splat<Register>(a[r * row + k * step]);
                for (int j = 0; j < kRegs; ++j) sums[r][j] += left * right[j];
            }
        }
        for (int r = 0; r < kRows; ++r)
            for (int j = 0; j < kRegs; ++j) {
                float* at = c + r * kPanel + col + j * kRegLanes;
                if (add) sums[r][j] += load_bytes<Register>(at);
                std::memcpy(at, &sums[r][j], sizeof(Register));
            }
    }
}

// Sums of more products than these are added up part by part: rounding grows with the length of a sum, and the part of
// b that is in use stays in the first cache.
constexpr std::int64_t kDepth = 128;

// Between the products of two points, so that the same pixel of all points is not in the same set of the cache.
constexpr std::int64_t kApart = 3 * kLine;

// Where the tiles of images lie in x and y. Those of a transposed convolution begin at odd or at even pixels of y with
// its padding still on: at the first inside or the one before it.
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

    // Addresses of the pixels of tile t of x, of `outside` for those that are not in the image; and of y.
    template <class P>
    void in(std::int64_t t, P* x, std::int64_t channels, P* outside, typename A::template In<P*>& at) const {
        pixels(t, A::Down::kInStep, A::Across::kInStep, first_in, images.in_h, images.in_w, x, channels, outside, at);
    }
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

template <class Run>
void for_shares(std::int64_t items, int threads, const Run& run) {
    const int parts = int(std::min<std::int64_t>(items, threads));
    in_parallel(parts, [&](int part) { run(items * part / parts, items * (part + 1) / parts); });
}

// The numbers of a tile of x, channels c to c + 15, at each point.
template <class A>
GE_INLINE void take_in(const typename A::template In<const float*>& at, std::int64_t c, std::int64_t channels,
                       float* to, std::int64_t point) {
    typename A::template In<VecF> x;
    typename A::template Points<VecF> v;
    for (int i = 0; i < A::Down::kIn; ++i)
        for (int j = 0; j < A::Across::kIn; ++j) x[i][j] = load_up_to<VecF>(at[i][j] + c, channels - c);
    input_of<A>(x, v);
    for (int k = 0; k < A::kPoints; ++k) store(to + k * point, (&v[0][0])[k], false);
}

// The taps of the weights of `rows` channels in and `lanes` out, side by side; and the way back.
constexpr std::int64_t kStrip = 16;
using Block = float[kStrip][kPanel];

template <class A, class W, class Move>
void for_taps(const WinogradWeight& s, W* weight, std::int64_t out, std::int64_t in,
              typename A::template Taps<Block>& taps, const Move& move) {
    const std::int64_t lanes = std::min(kPanel, s.out - out), rows = std::min(kStrip, s.in - in);
    const auto one = [&](std::int64_t lane, int y, int x, std::int64_t i) {
        W* w = weight + (out + lane) * s.stride_out + (in + i) * s.stride_in + y * s.stride_y + x * s.stride_x;
        move(*w, taps[y][x][i][lane]);
    };
    // Along the smaller of the strides, so that what a line of the cache holds is used while it is there.
    if (s.stride_out < s.stride_in) {
        for (std::int64_t i = 0; i < rows; ++i)
            for (int y = 0; y < A::Down::kTaps; ++y)
                for (int x = 0; x < A::Across::kTaps; ++x)
                    for (std::int64_t lane = 0; lane < lanes; ++lane) one(lane, y, x, i);
    } else {
        for (std::int64_t lane = 0; lane < lanes; ++lane)
            for (int y = 0; y < A::Down::kTaps; ++y)
                for (int x = 0; x < A::Across::kTaps; ++x)
                    for (std::int64_t i = 0; i < rows; ++i) one(lane, y, x, i);
    }
}

// More numbers than these do not stay in the last cache until they are read, so they are written around it.
constexpr std::int64_t kStreamed = 4 << 20;

// made [kWeights, out / 32, in, 32]
template <class A>
void make_weights(const WinogradWeight& s, const float* weight, float* made, int threads) {
    const std::int64_t columns = panels(s.out), strips = (s.in + kStrip - 1) / kStrip;
    const bool stream = A::kWeights * columns * s.in * kPanel > kStreamed;
    for_shares(columns * strips, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t panel = item / strips, in = item % strips * kStrip;
            typename A::template Taps<Block> taps = {};
            for_taps<A>(s, weight, panel * kPanel, in, taps, [](float w, float& tap) { tap = w; });
            for (std::int64_t i = 0; i < std::min(kStrip, s.in - in); ++i)
                for (std::int64_t lane = 0; lane < kPanel; lane += kLanes) {
                    typename A::template Taps<VecF> w;
                    typename A::template Weights<VecF> u;
                    for (int y = 0; y < A::Down::kTaps; ++y)
                        for (int x = 0; x < A::Across::kTaps; ++x) w[y][x] = load(&taps[y][x][i][lane]);
                    weight_of<A>(w, u);
                    float* to = made + (panel * s.in + in + i) * kPanel + lane;
                    for (int k = 0; k < A::kWeights; ++k)
                        store(to + k * columns * s.in * kPanel, (&u[0][0])[k], stream);
                }
        }
#if defined(__AVX2__)
        _mm_sfence();
#endif
    });
}

// Tiles whose products are computed together: their factors, kPoints x 32 x channels, stay in the second and third
// cache, and the weight is read once for all of them.
constexpr std::int64_t kTogether = 32;

// Products, 512 KiB, that stay in the second cache until they are output. With more, the channels out are divided.
constexpr std::int64_t kProducts = 1 << 17;

template <class A>
void convolve(const WinogradParams& p, int threads) {
    // Of the part of b that comes next, what a block of rows fetches.
    constexpr std::int64_t kBlocks = kTogether / kRows, kPart = kDepth * kPanel / kLine,
                           kAhead = (kPart + kBlocks - 1) / kBlocks;
    const std::int64_t in = p.shape.in, out = p.shape.out;
    const Tiles<A> tiles(p.images);
    const std::int64_t blocks = (tiles.count() + kTogether - 1) / kTogether, columns = panels(out);
    // Few tiles are shared out by the columns of their products as well.
    const std::int64_t fit = std::max<std::int64_t>(1, kProducts / (A::kPoints * kTogether * kPanel));
    const std::int64_t groups =
        std::min(columns, std::max((2 * threads + blocks - 1) / blocks, (columns + fit - 1) / fit));
    const std::int64_t most = (columns + groups - 1) / groups;  // panels of a group
    const std::int64_t channels = round_up(in, kLanes), parts = std::min<std::int64_t>(blocks * groups, threads);
    const std::int64_t v_point = kTogether * channels + kApart, m_point = most * kTogether * kPanel + kApart;
    const std::int64_t v_size = A::kPoints * v_point, m_size = A::kPoints * m_point;
    const Buffer u = buffer(A::kWeights * columns * in * kPanel);
    // Of each thread: v [points, tiles, in], m [points, panels, tiles, 32] and what lies outside y.
    const Buffer all_v = buffer(parts * v_size), all_m = buffer(parts * m_size),
                 all_nowhere = buffer(parts * columns * kPanel);
    const Buffer zeros = buffer(channels);
    std::fill_n(zeros.get(), channels, 0.f);
    make_weights<A>(p.shape, p.weight, u.get(), threads);
    in_parallel(int(parts), [&](int part) {
        float* const v = all_v.get() + part * v_size;
        float* const m = all_m.get() + part * m_size;
        float* const nowhere = all_nowhere.get() + part * columns * kPanel;
        std::int64_t transformed = -1, rows = 0, first = 0, count = 0;
        for (std::int64_t item = blocks * groups * part / parts; item < blocks * groups * (part + 1) / parts; ++item) {
            const std::int64_t block = item / groups, group = item % groups;
            if (block != transformed) {
                transformed = block, first = block * kTogether;
                count = std::min(kTogether, tiles.count() - first), rows = round_up(count, kRows);
                for (std::int64_t t = 0; t < rows; ++t) {
                    typename A::template In<const float*> at;
                    // Rows that only fill up the last ones repeat the last tile.
                    tiles.in(first + std::min(t, count - 1), p.x, in, static_cast<const float*>(zeros.get()), at);
                    for (std::int64_t c = 0; c < in; c += kLanes) take_in<A>(at, c, in, v + t * channels + c, v_point);
                }
            }
            const std::int64_t from = columns * group / groups, to = columns * (group + 1) / groups;
            for (int k = 0; k < A::kPoints; ++k)
                for (std::int64_t panel = from; panel < to; ++panel)
                    for (std::int64_t depth = 0; depth < in; depth += kDepth) {
                        const float* b = u.get() + ((weight_at<A>(k) * columns + panel) * in + depth) * kPanel;
                        for (std::int64_t t = 0; t < rows; t += kRows)
                            multiply(v + k * v_point + t * channels + depth, channels, 1, b,
                                     m + k * m_point + ((panel - from) * kTogether + t) * kPanel,
                                     std::min(kDepth, in - depth), depth > 0,
                                     b + kDepth * kPanel + t / kRows * kAhead * kLine, kAhead);
                    }
            for (std::int64_t t = 0; t < count; ++t) {
                typename A::template Out<float*> at;
                tiles.out(first + t, p.y, out, nowhere, at);
                for (std::int64_t c = from * kPanel; c < std::min(to * kPanel, out); c += kLanes) {
                    typename A::template Points<VecF> products;
                    typename A::template Out<VecF> y;
                    const float* from_m = m + ((c / kPanel - from) * kTogether + t) * kPanel + c % kPanel;
                    for (int k = 0; k < A::kPoints; ++k) (&products[0][0])[k] = load(from_m + k * m_point);
                    output_of<A>(products, y);
                    const VecF bias = p.bias != nullptr ? load_up_to<VecF>(p.bias + c, out - c) : VecF{};
                    for (int i = 0; i < A::Down::kOut; ++i)
                        for (int j = 0; j < A::Across::kOut; ++j) store_up_to(at[i][j] + c, out - c, y[i][j] + bias);
                }
            }
        }
    });
}

// Tiles whose products are summed before they are added to the gradient; and of what is made of the pixels, the numbers
// that stay in the cache until they are used. More would be no faster, and shows in the memory of a small network.
constexpr std::int64_t kSummed = 64, kFactors = 1 << 18;

template <class A>
void weight_gradient(const WinogradWgradParams& p, int threads) {
    const WinogradWeight& s = p.shape;
    const Tiles<A> tiles(p.images);
    const std::int64_t columns = panels(s.out), strips = (s.in + kStrip - 1) / kStrip, rows = strips * kStrip;
    const std::int64_t fit = std::max<std::int64_t>(1, kFactors / (A::kPoints * (rows + columns * kPanel) * kSummed));
    const std::int64_t together = std::min(fit * kSummed, round_up(tiles.count(), kSummed));
    const std::int64_t v_point = rows * together + kApart, d_point = columns * kPanel * together + kApart;
    const Buffer v = buffer(A::kPoints * v_point);                    // [points, in / 16, tiles, 16]
    const Buffer d = buffer(A::kPoints * d_point);                    // [points, out / 32, tiles, 32]
    const Buffer du = buffer(A::kWeights * columns * rows * kPanel);  // [out / 32, weights, in, 32]
    const Buffer zeros = buffer(std::max(rows, columns * kPanel));
    std::fill_n(zeros.get(), std::max(rows, columns * kPanel), 0.f);
    const float* outside = zeros.get();
    for (std::int64_t first = 0; first < tiles.count(); first += together) {
        const std::int64_t count = std::min(together, tiles.count() - first);
        for_shares(count, threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) {
                typename A::template In<const float*> in;
                typename A::template Out<const float*> out;
                tiles.in(first + t, p.x, s.in, outside, in), tiles.out(first + t, p.dy, s.out, outside, out);
                for (std::int64_t c = 0; c < s.in; c += kLanes)
                    take_in<A>(in, c, s.in, v.get() + c * together + t * kLanes, v_point);
                for (std::int64_t c = 0; c < columns * kPanel; c += kLanes) {
                    typename A::template Out<VecF> y;
                    typename A::template Points<VecF> to;
                    for (int i = 0; i < A::Down::kOut; ++i)
                        for (int j = 0; j < A::Across::kOut; ++j)
                            y[i][j] = c < s.out ? load_up_to<VecF>(out[i][j] + c, s.out - c) : VecF{};
                    output_adjoint_of<A>(y, to);
                    float* at = d.get() + (c / kPanel * together + t) * kPanel + c % kPanel;
                    for (int k = 0; k < A::kPoints; ++k) store(at + k * d_point, (&to[0][0])[k], false);
                }
            }
        });
        // The points that share a weight are one thread's, which adds them up.
        constexpr auto points = points_by_weight<A>();
        const auto adds = [&](std::int64_t item) {
            const std::int64_t i = item % A::kPoints;
            return i > 0 && weight_at<A>(points[i]) == weight_at<A>(points[i - 1]);
        };
        for_shares(columns * A::kPoints, threads, [&](std::int64_t begin, std::int64_t end) {
            while (adds(begin)) ++begin;
            while (adds(end)) ++end;
            for (std::int64_t item = begin; item < end; ++item) {
                const std::int64_t panel = item / A::kPoints, k = points[item % A::kPoints];
                float* const sums = du.get() + (panel * A::kWeights + weight_at<A>(k)) * rows * kPanel;
                for (std::int64_t t = 0; t < count; t += kSummed)
                    for (std::int64_t i = 0; i < rows; i += kRows)
                        multiply(v.get() + k * v_point + (i / kLanes * together + t) * kLanes + i % kLanes, 1, kLanes,
                                 d.get() + k * d_point + (panel * together + t) * kPanel, sums + i * kPanel,
                                 std::min(kSummed, count - t), first + t > 0 || adds(item), sums + i * kPanel,
                                 kRows * kPanel / kLine);
            }
        });
    }
    for_shares(columns * strips, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t panel = item / strips, in = item % strips * kStrip;
            typename A::template Taps<Block> taps;
            for (std::int64_t i = 0; i < std::min(kStrip, s.in - in); ++i)
                for (std::int64_t lane = 0; lane < kPanel; lane += kLanes) {
                    typename A::template Taps<VecF> w;
                    typename A::template Weights<VecF> u;
                    const float* sums = du.get() + (panel * A::kWeights * rows + in + i) * kPanel + lane;
                    for (int k = 0; k < A::kWeights; ++k) (&u[0][0])[k] = load(sums + k * rows * kPanel);
                    weight_adjoint_of<A>(u, w);
                    for (int y = 0; y < A::Down::kTaps; ++y)
                        for (int x = 0; x < A::Across::kTaps; ++x) store(&taps[y][x][i][lane], w[y][x], false);
                }
            for_taps<A>(s, p.dweight, panel * kPanel, in, taps, [](float& w, float tap) { w = tap; });
        }
    });
}

// run(Both<...>()), the one with this number.
template <class Run>
void with_minimal(Minimal minimal, const Run& run) {
    switch (minimal) {
        case Minimal::k3: return run(Both<K3, K3>());
        case Minimal::k3Tall: return run(Both<K3Four, K3>());
        case Minimal::k3Large: return run(Both<K3Four, K3Four>());
        case Minimal::k3Down: return run(Both<K3Down, K3Down>());
        case Minimal::k3Up: return run(Both<K3Up, K3Up>());
        case Minimal::k4Down: return run(Both<K4Down, K4Down>());
        case Minimal::k4Up: return run(Both<K4Up, K4Up>());
    }
    throw std::invalid_argument("no form of minimal filtering has the number " + std::to_string(int(minimal)));
}

}  // namespace

void winograd(const WinogradParams& p, int threads) {
    with_minimal(p.minimal, [&](auto a) { convolve<decltype(a)>(p, threads); });
}

void winograd_wgrad(const WinogradWgradParams& p, int threads) {
    with_minimal(p.minimal, [&](auto a) {
        if constexpr (decltype(a)::kUp)
            throw std::invalid_argument(
                "winograd_wgrad: of a transposed convolution it is that of the convolution itself");
        else
            weight_gradient<decltype(a)>(p, threads);
    });
}

}  // namespace GE_ISA
}  // namespace gan_engine
