// Convolutions by minimal filtering. For each pair of points of an algorithm of minimal.h, the products of all tiles
// and channels are a matrix product: tiles x channels in, times channels in x channels out.
#include "winograd_tiles.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

using namespace minimal;

// A longer sum is computed part by part. Rounding errors grow with the length of a sum, and one part of the weights
// fits into the first-level cache.
constexpr std::int64_t kDepth = 128;

// Above this many numbers, transformed weights leave the last-level cache before they are read. They are then written
// around the caches.
constexpr std::int64_t kStreamed = 4 << 20;

// Transforms the weight, to made [kWeights, out / 32, in, 32].
template <class A>
void transform_weights(const WinogradWeight& s, const float* weight, float* made, int threads) {
    const std::int64_t columns = panels(s.out), rows = strips(s.in);
    const bool stream = A::kWeights * columns * s.in * kPanel > kStreamed;
    for_shares(columns * rows, threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t item = begin; item < end; ++item) {
            const std::int64_t panel = item / rows, in = item % rows * kStrip;
            typename A::template Taps<Strip> taps = {};
            for_taps<A>(s, weight, panel * kPanel, in, taps, [](float w, float& tap) { tap = w; });
            for (std::int64_t i = 0; i < std::min(kStrip, s.in - in); ++i)
                for (std::int64_t lane = 0; lane < kPanel; lane += kLanes) {
                    typename A::template Taps<VecF> w;
                    typename A::template Weights<VecF> u;
                    for (int y = 0; y < A::Down::kTaps; ++y)
                        for (int x = 0; x < A::Across::kTaps; ++x) w[y][x] = load(&taps[y][x][i][lane]);
                    transform_weight<A>(w, u);
                    float* to = made + (panel * s.in + in + i) * kPanel + lane;
                    for (int k = 0; k < A::kWeights; ++k)
                        store(to + k * columns * s.in * kPanel, (&u[0][0])[k], stream);
                }
        }
        fence();
    });
}

// A block of tiles is multiplied at a time: its factors, kPoints x 32 x channels, fit into the second- and third-level
// caches, and the weight is read once for the whole block.
constexpr std::int64_t kBlock = kRows == 6 ? 36 : 32;

// The products of a block, 512 KiB, must stay in the second-level cache until they become y. Larger blocks are split
// into groups of channels out.
constexpr std::int64_t kProducts = 1 << 17;

// Each stage is a function of its own, so that its addresses stay in registers (AVX-512: inlined, y takes up to 1.3
// times as long, 2026-11).
template <class A>
struct Convolution {
    const WinogradParams& p;
    const int threads;
    const std::int64_t in = p.shape.in, out = p.shape.out, columns = panels(out);
    const Tiles<A> tiles = Tiles<A>(p.images);
    const std::int64_t blocks = (tiles.count() + kBlock - 1) / kBlock;
    // An item of work is a block of tiles and a group of panels. With few blocks, there are more groups than the cache
    // asks for, so that every thread has work.
    const std::int64_t fit = std::max<std::int64_t>(1, kProducts / (A::kPoints * kBlock * kPanel));
    const std::int64_t groups =
        std::min(columns, std::max((2 * threads + blocks - 1) / blocks, (columns + fit - 1) / fit));
    const std::int64_t most = (columns + groups - 1) / groups;  // panels of a group
    const std::int64_t parts = std::min<std::int64_t>(blocks * groups, threads);
    const std::int64_t channels = round_up(in, kLanes);
    const std::int64_t v_point = kBlock * channels + kApart, m_point = most * kBlock * kPanel + kApart;
    const Buffer u = buffer(A::kWeights * columns * in * kPanel);
    // Each thread has its own factors v [points, tiles, in], products m [points, panels, tiles, 32], and memory for
    // results outside y.
    const Buffer all_v = buffer(parts * A::kPoints * v_point), all_m = buffer(parts * A::kPoints * m_point);
    const Buffer all_outside = buffer(parts * columns * kPanel);
    const Buffer zeros = buffer(channels);

    void run() const {
        std::fill_n(zeros.get(), channels, 0.f);
        transform_weights<A>(p.shape, p.weight + p.begin, u.get(), threads);
        in_parallel(int(parts), [&](int part) {
            float* const v = all_v.get() + part * A::kPoints * v_point;
            float* const m = all_m.get() + part * A::kPoints * m_point;
            float* const outside = all_outside.get() + part * columns * kPanel;
            const std::int64_t begin = blocks * groups * part / parts, end = blocks * groups * (part + 1) / parts;
            for (std::int64_t item = begin, transformed = -1; item < end; ++item) {
                const std::int64_t block = item / groups, group = item % groups, first = block * kBlock;
                const std::int64_t count = std::min(kBlock, tiles.count() - first);
                if (block != transformed) transform_block(first, count, v), transformed = block;
                const std::int64_t from = columns * group / groups, to = columns * (group + 1) / groups;
                multiply_block(v, m, count, from, to);
                write_block(m, first, count, from, to, outside);
            }
        });
    }

    // Transforms `count` tiles of x. The products take whole rows of kRows tiles, so the last tile may be repeated.
    [[gnu::noinline]] void transform_block(std::int64_t first, std::int64_t count, float* v) const {
        const std::int64_t rows = whole_rows(count);
        for (std::int64_t t = 0; t < rows; ++t) {
            typename A::template In<const float*> at;
            tiles.in(first + std::min(t, count - 1), p.x, in, static_cast<const float*>(zeros.get()), at);
            for (std::int64_t c = 0; c < in; c += kLanes) transform_tile<A>(at, c, in, v + t * channels + c, v_point);
        }
    }

    // m = v u, for each point and for the panels from `from` to `to`.
    [[gnu::noinline]] void multiply_block(const float* v, float* m, std::int64_t count, std::int64_t from,
                                          std::int64_t to) const {
        // Each product of kRows tiles fetches its share of the part of u that comes next.
        constexpr std::int64_t kShares = kBlock / kRows, kPart = kDepth * kPanel / kLine,
                               kAhead = (kPart + kShares - 1) / kShares;
        const std::int64_t rows = whole_rows(count);
        for (int k = 0; k < A::kPoints; ++k)
            for (std::int64_t panel = from; panel < to; ++panel)
                for (std::int64_t depth = 0; depth < in; depth += kDepth) {
                    const float* b = u.get() + ((weight_at<A>(k) * columns + panel) * in + depth) * kPanel;
                    for (std::int64_t t = 0; t < rows;)
                        t += multiply(rows - t, v + k * v_point + t * channels + depth, channels, 1, b,
                                      m + k * m_point + ((panel - from) * kBlock + t) * kPanel,
                                      std::min(kDepth, in - depth), depth > 0,
                                      b + kDepth * kPanel + t / kRows * kAhead * kLine, kAhead);
                }
    }

    // Transforms the products to y. Pixels of a tile outside y go to `outside`.
    [[gnu::noinline]] void write_block(const float* m, std::int64_t first, std::int64_t count, std::int64_t from,
                                       std::int64_t to, float* outside) const {
        for (std::int64_t t = 0; t < count; ++t) {
            typename A::template Out<float*> at;
            tiles.out(first + t, p.y, out, outside, at);
            for (std::int64_t c = from * kPanel; c < std::min(to * kPanel, out); c += kLanes) {
                typename A::template Points<VecF> products;
                typename A::template Out<VecF> y;
                const float* from_m = m + ((c / kPanel - from) * kBlock + t) * kPanel + c % kPanel;
                for (int k = 0; k < A::kPoints; ++k) (&products[0][0])[k] = load(from_m + k * m_point);
                transform_output<A>(products, y);
                const VecF bias = p.bias != nullptr ? load_up_to<VecF>(p.bias + c, out - c) : VecF{};
                for (int i = 0; i < A::Down::kOut; ++i)
                    for (int j = 0; j < A::Across::kOut; ++j) store_up_to(at[i][j] + c, out - c, y[i][j] + bias);
            }
        }
    }
};

}  // namespace

void winograd(const WinogradParams& p, int threads) {
    check(p.images, p.shape);
    with_algorithm(p.minimal, [&](auto algorithm) { Convolution<decltype(algorithm)>{p, threads}.run(); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
