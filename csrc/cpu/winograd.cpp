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

// Transforms strip `row` of a panel of the weight. The numbers of weight k go to `to` + k * point: [in, 32].
template <class A>
[[gnu::noinline]] void transform_strip(const WinogradWeight& s, const float* weight, std::int64_t panel,
                                       std::int64_t row, float* to, std::int64_t point) {
    const std::int64_t in = row * kStrip;
    typename A::template Taps<Strip> taps = {};
    for_taps<A>(s, weight, panel * kPanel, in, taps, [](float w, float& tap) { tap = w; });
    for (std::int64_t i = 0; i < std::min(kStrip, s.in - in); ++i)
        for (std::int64_t lane = 0; lane < kPanel; lane += kRegLanes) {
            typename A::template Taps<Register> w;
            typename A::template Weights<Register> u;
            for (int y = 0; y < A::Down::kTaps; ++y)
                for (int x = 0; x < A::Across::kTaps; ++x) w[y][x] = load_bytes<Register>(&taps[y][x][i][lane]);
            transform_weight<A>(w, u);
            for (int k = 0; k < A::kWeights; ++k)
                store_channels(to + (in + i) * kPanel + lane + k * point, kRegLanes, (&u[0][0])[k]);
        }
}

// A block of tiles is multiplied at a time: its factors, kPoints x kBlock x channels, fit into the second- and
// third-level caches, and the weight is read once for the whole block.
constexpr std::int64_t kBlock = kRows == 6 ? 36 : 32;

// The products of a block, 512 KiB, must stay in the second-level cache until they become y. Larger blocks are split
// into groups of channels out.
constexpr std::int64_t kProducts = 1 << 17;

// More numbers than this leave the caches before they are read. A weight that becomes more numbers is transformed group
// by group, while the transformed tiles wait. 512 channels in and out, 8x8 pixels, batch 8, milliseconds of y: 19
// before and 13 after (AVX2), 13 and 8.6 (AVX-512, one thread, 2026-11).
constexpr std::int64_t kWaiting = 4 << 20;

// Each stage is a function of its own, so that its addresses stay in registers (AVX-512: inlined, y takes up to 1.3
// times as long, 2026-11).
template <class A>
struct Convolution {
    const WinogradParams& p;
    const int threads;
    const std::int64_t in = p.shape.in, out = p.shape.out, columns = panels(out);
    const Tiles<A> tiles = Tiles<A>(p.images);
    const std::int64_t blocks = (tiles.count() + kBlock - 1) / kBlock;
    const bool tiles_first = A::kWeights * columns * in * kPanel > kWaiting&& columns >= threads;
    // An item of work is a block of tiles and a group of panels. With few blocks, there are more groups than the cache
    // asks for, so that every thread has work.
    const std::int64_t fit = std::max<std::int64_t>(1, kProducts / (A::kPoints * kBlock * kPanel));
    const std::int64_t shared = tiles_first ? 1 : blocks;
    const std::int64_t groups =
        std::min(columns, std::max((2 * threads + shared - 1) / shared, (columns + fit - 1) / fit));
    const std::int64_t most = (columns + groups - 1) / groups;  // panels of a group
    const std::int64_t channels = round_up(in, kLanes);
    const std::int64_t v_point = kBlock * channels + kApart, m_point = most * kBlock * kPanel + kApart;
    const std::int64_t u_point = (tiles_first ? most : columns) * in * kPanel + kApart;
    const Buffer zeros = buffer(channels);

    void run() const {
        std::fill_n(zeros.get(), channels, 0.f);
        tiles_first ? run_tiles_first() : run_weight_first();
    }

    // Each thread has its own factors v [points, tiles, in], products m [points, panels, tiles, 32], and memory for
    // results outside y. The weight u is [weights, panels, in, 32].
    void run_weight_first() const {
        const Buffer u = buffer(A::kWeights * u_point);
        for_shares(columns * strips(in), threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t item = begin; item < end; ++item) {
                const std::int64_t panel = item / strips(in);
                transform_strip<A>(p.shape, p.weight + p.begin, panel, item % strips(in), u.get() + panel * in * kPanel,
                                   u_point);
            }
        });
        for_shares(blocks * groups, threads, [&](std::int64_t begin, std::int64_t end) {
            const Buffer v = buffer(A::kPoints * v_point), m = buffer(A::kPoints * m_point);
            const Buffer outside = buffer(columns * kPanel);
            for (std::int64_t item = begin, transformed = -1; item < end; ++item) {
                const std::int64_t block = item / groups, group = item % groups;
                if (block != transformed) transform_block(block, v.get()), transformed = block;
                const std::int64_t from = first_panel(group), to = first_panel(group + 1);
                multiply_block(v.get(), u.get() + from * in * kPanel, m.get(), block, to - from);
                write_block(m.get(), block, from, to, outside.get());
            }
        });
    }

    void run_tiles_first() const {
        const std::int64_t size = A::kPoints * v_point;
        const std::int64_t together = std::clamp<std::int64_t>(kWaiting / size, 1, blocks);
        const Buffer v = buffer(together * size);
        for (std::int64_t first = 0; first < blocks; first += together) {
            const std::int64_t count = std::min(together, blocks - first);
            for_shares(count, threads, [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t b = begin; b < end; ++b) transform_block(first + b, v.get() + b * size);
            });
            for_shares(groups, threads, [&](std::int64_t begin, std::int64_t end) {
                const Buffer u = buffer(A::kWeights * u_point), m = buffer(A::kPoints * m_point);
                const Buffer outside = buffer(columns * kPanel);
                for (std::int64_t group = begin; group < end; ++group) {
                    const std::int64_t from = first_panel(group), to = first_panel(group + 1);
                    for (std::int64_t panel = from; panel < to; ++panel)
                        for (std::int64_t row = 0; row < strips(in); ++row)
                            transform_strip<A>(p.shape, p.weight + p.begin, panel, row,
                                               u.get() + (panel - from) * in * kPanel, u_point);
                    for (std::int64_t b = 0; b < count; ++b) {
                        multiply_block(v.get() + b * size, u.get(), m.get(), first + b, to - from);
                        write_block(m.get(), first + b, from, to, outside.get());
                    }
                }
            });
        }
    }

    std::int64_t first_panel(std::int64_t group) const { return columns * group / groups; }
    std::int64_t tiles_of(std::int64_t block) const { return std::min(kBlock, tiles.count() - block * kBlock); }

    // Transforms a block of tiles of x. The products take whole rows of tiles, so the last tile may be repeated.
    [[gnu::noinline]] void transform_block(std::int64_t block, float* v) const {
        const std::int64_t count = tiles_of(block), rows = whole_rows(count);
        for (std::int64_t t = 0; t < rows; ++t) {
            typename A::template In<const float*> at;
            tiles.in(block * kBlock + std::min(t, count - 1), p.x, in, static_cast<const float*>(zeros.get()), at);
            for (std::int64_t c = 0; c < in; c += kRegLanes)
                transform_tile<A>(at, c, in, v + t * channels + c, v_point);
        }
    }

    // m = v u, for each point and for `count` panels.
    [[gnu::noinline]] void multiply_block(const float* v, const float* u, float* m, std::int64_t block,
                                          std::int64_t count) const {
        // Each product of kRows tiles fetches its share of the part of u that comes next.
        constexpr std::int64_t kShares = kBlock / kRows, kPart = kDepth * kPanel / kLine,
                               kAhead = (kPart + kShares - 1) / kShares;
        const std::int64_t rows = whole_rows(tiles_of(block));
        for (int k = 0; k < A::kPoints; ++k)
            for (std::int64_t panel = 0; panel < count; ++panel)
                for (std::int64_t depth = 0; depth < in; depth += kDepth) {
                    const float* b = u + weight_at<A>(k) * u_point + (panel * in + depth) * kPanel;
                    for (std::int64_t t = 0; t < rows;)
                        t += multiply(rows - t, v + k * v_point + t * channels + depth, channels, 1, b,
                                      m + k * m_point + (panel * kBlock + t) * kPanel, std::min(kDepth, in - depth),
                                      depth > 0, b + kDepth * kPanel + t / kRows * kAhead * kLine, kAhead);
                }
    }

    // Transforms the products to y. Pixels of a tile outside y go to `outside`.
    [[gnu::noinline]] void write_block(const float* m, std::int64_t block, std::int64_t from, std::int64_t to,
                                       float* outside) const {
        for (std::int64_t t = 0; t < tiles_of(block); ++t) {
            typename A::template Out<float*> at;
            tiles.out(block * kBlock + t, p.y, out, outside, at);
            for (std::int64_t c = from * kPanel; c < std::min(to * kPanel, out); c += kRegLanes) {
                typename A::template Points<Register> products;
                typename A::template Out<Register> y;
                const float* from_m = m + ((c / kPanel - from) * kBlock + t) * kPanel + c % kPanel;
                for (int k = 0; k < A::kPoints; ++k) (&products[0][0])[k] = load_bytes<Register>(from_m + k * m_point);
                transform_output<A>(products, y);
                const Register bias = p.bias != nullptr ? load_channels(p.bias + c, out - c) : Register{};
                for (int i = 0; i < A::Down::kOut; ++i)
                    for (int j = 0; j < A::Across::kOut; ++j) store_channels(at[i][j] + c, out - c, y[i][j] + bias);
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
