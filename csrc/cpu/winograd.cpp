// Convolutions by minimal filtering. For each pair of points of an algorithm of minimal.h, the products of all tiles
// and channels are a matrix product: tiles x channels in, times channels in x channels out.
#include "winograd_taps.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

using namespace minimal;

// Transforms the taps of `rows` channels in, for a panel. The numbers of weight k go to `to` + k * point: [rows, 32].
template <class A>
[[gnu::noinline]] void transform_taps(const TapsAt<A, const float> taps, std::int64_t rows, float* to,
                                      std::int64_t point) {
    for (std::int64_t i = 0; i < rows; ++i) {
        taps.fetch(i, kPanel);
        for (std::int64_t lane = 0; lane < kPanel; lane += kRegLanes) {
            typename A::template Taps<Register> w;
            typename A::template Weights<Register> u;
            GE_UNROLLED
            for (int k = 0; k < taps.kTaps; ++k) (&w[0][0])[k] = load<Register>(taps.at[k] + i * taps.row + lane);
            transform_weight<A>(w, u);
            GE_UNROLLED
            for (int k = 0; k < A::kWeights; ++k) store(to + i * kPanel + lane + k * point, (&u[0][0])[k], false);
        }
    }
}

// The same for channels in from `from` to `to`, at most kRun, of a panel of the weight. `run` is for what is moved.
template <class A>
void transform_rows(const WinogradWeight& s, const float* weight, std::int64_t panel, std::int64_t from,
                    std::int64_t to, float* u, std::int64_t point, float* run) {
    const std::int64_t out = panel * kPanel;
    if (moves_to_runs(s) && s.out - out >= kPanel) {
        const std::int64_t rows = (to - from) / kStrip * kStrip;
        move_run<A>(s, weight, out, from, rows, run);
        transform_taps<A>(TapsAt<A, const float>(run, kRunTap), rows, u, point);
        from += rows, u += rows * kPanel;
    }
    for (std::int64_t in = from; in < to; in += kStrip, u += kStrip * kPanel) {
        if (side_by_side(s, out, in)) {
            transform_taps<A>(TapsAt<A, const float>(s, weight, out, in, kStrip), kStrip, u, point);
            continue;
        }
        Strip<A> strip;
        move_strip(s, weight, out, in, strip);
        transform_taps<A>(TapsAt<A, const float>(strip), std::min(kStrip, to - in), u, point);
    }
}

// A block of tiles is multiplied at a time: its factors, kPoints x kBlock x channels, fit into the second- and
// third-level caches, and the weight is read once for the whole block.
constexpr std::int64_t kBlock = kRows == 3 ? 36 : 32;

// The products of a block, 512 KiB, must stay in the second-level cache until they become y. Larger blocks are split
// into groups of channels out.
constexpr std::int64_t kProducts = 1 << 17;

// More numbers than this leave the caches before they are read. A weight that becomes more numbers, or more than the
// tiles become, is transformed part by part while the transformed tiles wait: a part is read where it is written, in
// the second-level cache.
constexpr std::int64_t kWaiting = 4 << 20;

// So many panels take turns, part by part of the channels in, while their products fit into kProducts: a part of the
// tiles serves all of them while it is in the second-level cache. With turns, parts of 64 channels (kDepth) and fetched
// weights (multiply_part), y and dx take 3.1 ms together instead of 3.5 (AVX2, 512 channels, 4x4 pixels, batch 8,
// channels_last, two threads of a Zen 4, 2026-11). AVX-512 gains nothing by any of them.
constexpr std::int64_t kTurns = kRows == 3 ? 4 : 1;

// Each stage is a function of its own, so that its addresses stay in registers (AVX-512: inlined, y takes up to 1.3
// times as long, 2026-11).
template <class A>
struct Convolution {
    // A longer sum is computed part by part. Rounding errors grow with the length of a sum. One part of the weights
    // fits into the first-level cache, and a part for all points into the second-level cache. With AVX2 the part of the
    // next point fits beside it.
    static constexpr std::int64_t kDepth = kRows == 3 || A::kWeights > 64 ? 64 : 128;
    static_assert(kDepth <= kRun);

    const WinogradParams& p;
    const int threads;
    const std::int64_t in = p.shape.in, out = p.shape.out, columns = panels(out);
    const Tiles<A> tiles = Tiles<A>(p.images);
    const std::int64_t blocks = (tiles.count() + kBlock - 1) / kBlock;
    const bool tiles_first =
        columns >= threads && (tiles.count() <= out || A::kWeights * columns * in * kPanel > kWaiting);
    // An item of work is a block of tiles and a group of panels. With few blocks, there are more groups than the cache
    // asks for, so that every thread has work.
    const std::int64_t fit = std::max<std::int64_t>(1, kProducts / (A::kPoints * kBlock * kPanel));
    const std::int64_t groups =
        tiles_first ? columns
                    : std::min(columns, std::max((2 * threads + blocks - 1) / blocks, (columns + fit - 1) / fit));
    const std::int64_t most = (columns + groups - 1) / groups;  // panels of a group
    const std::int64_t part = std::min(round_up(in, kLanes), kDepth), channels = round_up(in, part);
    const std::int64_t v_point = kBlock * channels + kApart, m_point = most * kBlock * kPanel + kApart;
    const std::int64_t u_point = (tiles_first ? std::min(in, kDepth) : columns * in) * kPanel + kApart;
    const std::int64_t run_size = moves_to_runs(p.shape) ? Strip<A>::kTaps * kRunTap : 1;
    const Buffer zeros = buffer(channels);

    void run() const {
        std::fill_n(zeros.get(), channels, 0.f);
        tiles_first ? run_tiles_first() : run_weight_first();
    }

    // Each thread has its own factors v [points, parts of the channels in, tiles, part], products m [points, panels,
    // tiles, 32], and memory for results outside y. The weight u is [weights, panels, in, 32].
    void run_weight_first() const {
        const Buffer u = buffer(A::kWeights * u_point);
        for_shares(columns * strips(in), threads, [&](std::int64_t begin, std::int64_t end) {
            const Buffer run = buffer(run_size);
            for (std::int64_t item = begin, strips_here; item < end; item += strips_here) {
                const std::int64_t panel = item / strips(in), strip = item % strips(in);
                strips_here = std::min({kRun / kStrip, strips(in) - strip, end - item});
                transform_rows<A>(p.shape, p.weight + p.begin, panel, strip * kStrip,
                                  std::min((strip + strips_here) * kStrip, in),
                                  u.get() + (panel * in + strip * kStrip) * kPanel, u_point, run.get());
            }
        });
        for_shares(blocks * groups, threads, [&](std::int64_t begin, std::int64_t end) {
            const Buffer v = buffer(A::kPoints * v_point), m = buffer(A::kPoints * m_point);
            const Buffer outside = buffer(columns * kPanel);
            for (std::int64_t item = begin, transformed = -1; item < end; ++item) {
                const std::int64_t block = item / groups, group = item % groups;
                if (block != transformed)
                    transform_tiles(block, 0, whole_rows(tiles_of(block)), v.get()), transformed = block;
                const std::int64_t from = first_panel(group), to = first_panel(group + 1);
                multiply_block(v.get(), u.get() + from * in * kPanel, m.get(), block, to - from);
                write_block(m.get(), block, from, to, outside.get());
            }
        });
    }

    // Here u is [weights, kDepth, 32], and m [panels in turns, blocks, points, tiles, 32], or of one panel and block
    // where a sum has one part. While a part is multiplied, the taps of the next part come from memory (512 channels,
    // 4x4 pixels, batch 8: y takes 3.1 ms instead of 3.5; AVX2, one thread, 2026-11).
    void run_tiles_first() const {
        const bool parts = in > kDepth;
        const std::int64_t v_size = A::kPoints * v_point, m_size = A::kPoints * m_point;
        const std::int64_t together = std::clamp<std::int64_t>(kWaiting / v_size, 1, blocks);
        const Buffer v = buffer(together * v_size);
        for (std::int64_t first = 0; first < blocks; first += together) {
            const std::int64_t count = std::min(together, blocks - first);
            const std::int64_t rows = (count - 1) * kBlock + whole_rows(tiles_of(first + count - 1));
            for_shares(rows, threads, [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t t = begin, to; t < end; t = to) {
                    const std::int64_t b = t / kBlock;
                    to = std::min((b + 1) * kBlock, end);
                    transform_tiles(first + b, t - b * kBlock, to - b * kBlock, v.get() + b * v_size);
                }
            });
            const std::int64_t pieces = A::kPoints * pieces_of(rows);
            const bool fetch_weights = kRows == 3 && count == 1;
            const std::int64_t in_turns = std::clamp<std::int64_t>(kProducts / (count * m_size), 1, kTurns);
            for_shares(columns, threads, [&](std::int64_t begin, std::int64_t end) {
                const Buffer u = buffer(A::kWeights * u_point), m = buffer((parts ? in_turns * count : 1) * m_size);
                const Buffer run = buffer(run_size);
                const Buffer outside = buffer(columns * kPanel);
                const auto lines = lines_of_taps<A>(p.shape, kDepth, kPanel);
                for (std::int64_t from = begin, to; from < end; from = to) {
                    to = std::min(from + in_turns, end);
                    for (std::int64_t depth = 0; depth < in; depth += kDepth)
                        for (std::int64_t panel = from; panel < to; ++panel) {
                            transform_rows<A>(p.shape, p.weight + p.begin, panel, depth, std::min(depth + kDepth, in),
                                              u.get(), u_point, run.get());
                            Fetch fetch = next_taps(panel, depth, from, to, end, lines, pieces);
                            Fetch* const fetched = fetch.next == fetch.end ? nullptr : &fetch;
                            for (std::int64_t b = 0; b < count; ++b) {
                                float* const products = m.get() + (parts ? (panel - from) * count + b : 0) * m_size;
                                multiply_part(v.get() + b * v_size, u.get(), products, first + b, depth, fetch_weights,
                                              fetched);
                                if (depth + kDepth >= in)
                                    write_block(products, first + b, panel, panel + 1, outside.get());
                            }
                        }
                }
            });
        }
    }

    // What fetches the taps that come after those of channels in from `depth` on: panels `from` to `to` take turns, and
    // the last ones end at `end`.
    Fetch next_taps(std::int64_t panel, std::int64_t depth, std::int64_t from, std::int64_t to, std::int64_t end,
                    const std::vector<std::int32_t>& lines, std::int64_t pieces) const {
        if (++panel == to) panel = from, depth += kDepth;
        if (depth >= in) panel = to, depth = 0;
        if (panel == end || lines.empty()) return {};
        const float* const taps = p.weight + p.begin + panel * kPanel * p.shape.stride_out + depth * p.shape.stride_in;
        return {taps, lines.data(), lines.data() + lines.size(), std::int64_t(lines.size()) / pieces + 1};
    }

    std::int64_t first_panel(std::int64_t group) const { return columns * group / groups; }
    std::int64_t tiles_of(std::int64_t block) const { return std::min(kBlock, tiles.count() - block * kBlock); }

    // Transforms tiles of x, of a block. The products take whole rows of tiles, so the last tile may be repeated.
    void transform_tiles(std::int64_t block, std::int64_t from, std::int64_t to, float* v) const {
        const std::int64_t first = block * kBlock, whole = std::min(to, tiles_of(block));
        const float* const outside = zeros.get();
        tiles.in(first + from, first + whole, p.x, in, 0, in, outside,
                 [&](std::int64_t tile, const auto& at, std::int64_t begin, std::int64_t end) {
                     transform_channels(at, begin, end, v, tile - first);
                 });
        for (std::int64_t t = std::max(from, whole); t < to; ++t)
            tiles.in(first + whole - 1, first + whole, p.x, in, 0, in, outside,
                     [&](std::int64_t, const auto& at, std::int64_t begin, std::int64_t end) {
                         transform_channels(at, begin, end, v, t);
                     });
    }

    // Transforms channels of a tile, to place t of v.
    [[gnu::noinline]] void transform_channels(const typename A::template In<const float*>& at, std::int64_t begin,
                                              std::int64_t end, float* v, std::int64_t t) const {
        for (std::int64_t c = begin; c < end; c += kRegLanes)
            transform_tile<A>(at, c, in, v + (c / part * kBlock + t) * part + c % part, v_point);
    }

    // m = v u, for each point and for `count` panels.
    [[gnu::noinline]] void multiply_block(const float* v, const float* u, float* m, std::int64_t block,
                                          std::int64_t count) const {
        // Each product of kRows tiles fetches its share of the part of u that comes next.
        constexpr std::int64_t kShares = kBlock / kRows, kPart = kDepth * kPanel / kLine,
                               kAhead = (kPart + kShares - 1) / kShares;
        for (int k = 0; k < A::kPoints; ++k)
            for (std::int64_t panel = 0; panel < count; ++panel)
                for (std::int64_t depth = 0; depth < in; depth += kDepth) {
                    const float* const b = u + weight_at<A>(k) * u_point + (panel * in + depth) * kPanel;
                    multiply_point(v + k * v_point, b, m + k * m_point + panel * kBlock * kPanel, block, depth,
                                   b + kDepth * kPanel, kAhead, nullptr);
                }
    }

    // The same for one panel, and for a part of the channels in. A factor of the next point is fetched meanwhile: the
    // tiles, or the weights where a part of the tiles stays in the second-level cache, as that of a block alone does
    // with AVX2 (512 channels, 4x4 pixels, batch 8: y takes 1.6 ms instead of 1.7, two threads of a Zen 4; tiles that
    // are not fetched: 512 channels, 32x32 pixels, batch 4: 63 ms instead of 54; 2026-11).
    [[gnu::noinline]] void multiply_part(const float* v, const float* u, float* m, std::int64_t block,
                                         std::int64_t depth, bool fetch_weights, Fetch* fetch) const {
        const std::int64_t pieces = pieces_of(whole_rows(tiles_of(block)));
        for (int k = 0; k < A::kPoints; ++k) {
            const float* const next = fetch_weights ? u + weight_at<A>(std::min(k + 1, A::kPoints - 1)) * u_point
                                                    : v + (k + 1) * v_point + depth * kBlock;
            const std::int64_t ahead = fetch_weights ? kDepth * kPanel / kLine / pieces + 1 : kRows * part / kLine;
            multiply_point(v + k * v_point, u + weight_at<A>(k) * u_point, m + k * m_point, block, depth, next, ahead,
                           fetch);
        }
    }

    // Each product of kRows tiles fetches `ahead` lines from `soon` on, and its share of `fetch` unless this is null.
    GE_INLINE void multiply_point(const float* v, const float* u, float* m, std::int64_t block, std::int64_t depth,
                                  const float* soon, std::int64_t ahead, Fetch* fetch) const {
        multiply(whole_rows(tiles_of(block)), v + depth * kBlock, part, 1, u, m, std::min(kDepth, in - depth),
                 depth > 0, soon, ahead, fetch);
    }

    // Transforms the products to y. Pixels of a tile outside y go to `outside`.
    void write_block(const float* m, std::int64_t block, std::int64_t from, std::int64_t to, float* outside) const {
        const std::int64_t first = block * kBlock;
        tiles.out(first, first + tiles_of(block), p.y, out, from * kPanel, std::min(to * kPanel, out), outside,
                  [&](std::int64_t tile, const auto& at, std::int64_t begin, std::int64_t end) {
                      write_channels(at, begin, end, m - from * kBlock * kPanel, tile - first);
                  });
    }

    // Channels `begin` to `end` of a tile of y, from place t of the products.
    [[gnu::noinline]] void write_channels(const typename A::template Out<float*>& at, std::int64_t begin,
                                          std::int64_t end, const float* m, std::int64_t t) const {
        for (std::int64_t c = begin; c < end; c += kRegLanes) {
            typename A::template Points<Register> products;
            typename A::template Out<Register> y;
            const float* from_m = m + (c / kPanel * kBlock + t) * kPanel + c % kPanel;
            GE_UNROLLED
            for (int k = 0; k < A::kPoints; ++k) (&products[0][0])[k] = load<Register>(from_m + k * m_point);
            transform_output<A>(products, y);
            const Register bias = p.bias != nullptr ? load_up_to<Register>(p.bias + c, out - c) : Register{};
            for (int i = 0; i < A::Down::kOut; ++i)
                for (int j = 0; j < A::Across::kOut; ++j) store_up_to(at[i][j] + c, out - c, y[i][j] + bias);
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
