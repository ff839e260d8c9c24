// The gradient of a convolution by the weight, by minimal filtering. For each pair of points it is a matrix product
// over all tiles: channels in x tiles, times tiles x channels out.
#include "winograd_taps.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

using namespace minimal;

// A sum of products covers so many tiles before it is added to the gradient.
constexpr std::int64_t kSummed = 64;

// A gradient that is finished part by part has so many channels in for each part, which fits into the second-level
// cache.
constexpr std::int64_t kPart = kRows == 3 ? 144 : 128;

// Where no number must be turned, a part has fewer channels in and more panels: what is written at a time lies on fewer
// pages.
constexpr std::int64_t kPartByIn = kRows == 3 ? 48 : 32, kPanelsByIn = 4;
static_assert(kPart % kStrip == 0 && kPartByIn % kStrip == 0);

// So many channels in lie side by side for each tile: pieces of the products divide them.
constexpr std::int64_t kAcross = kRows == 3 ? 48 : 16;

// Tiles are transformed until they make this many numbers, which stay in the cache until they are used. More would be
// no faster, and would show in the memory of a small network.
constexpr std::int64_t kFactors = 1 << 18;

// With more tiles, the factors of a group of panels leave the first-level cache, which costs more than is gained (64
// tiles: 3.5 ms instead of 3.3; 32 tiles: 4.4 instead of 5.3; AVX2, 256 and 512 channels, 2026-11).
constexpr std::int64_t kFewTiles = 32;

// The weight with channels in and out in each other's place.
inline WinogradWeight turned(const WinogradWeight& s) {
    return {s.in, s.out, s.stride_in, s.stride_out, s.stride_y, s.stride_x};
}

// Where channels in lie side by side in dweight and there are few tiles, x and dy change places, and so do "in" and
// "out" below: no number must be turned then. Each sum has the same products in the same order.
template <class A>
struct WeightGradient {
    const WinogradWgradParams& p;
    const int threads;
    const Tiles<A> tiles = Tiles<A>(p.images);
    const bool by_in = p.shape.stride_in == 1 && p.shape.stride_out != 1 && tiles.count() <= kFewTiles;
    const WinogradWeight s = by_in ? turned(p.shape) : p.shape;
    const std::int64_t columns = panels(s.out), rows = strips(s.in) * kStrip, width = columns * kPanel;
    const std::int64_t fit = std::max<std::int64_t>(1, kFactors / (A::kPoints * (rows + width) * kSummed));
    // A gradient that becomes more numbers than all tiles is finished part by part.
    const bool tiles_first = tiles.count() * (rows + width) <= rows * width && columns >= threads;
    const std::int64_t together =
        round_up(tiles_first ? tiles.count() : std::min(fit * kSummed, tiles.count()), kSummed);
    // Tiles of a point that are added at a time. Points that share a weight take turns, in an order that the sums keep.
    const std::int64_t added = A::kWeights == A::kPoints ? tiles.count() : fit * kSummed;
    const std::int64_t v_point = round_up(rows, kAcross) * together + kApart, d_point = width * together + kApart;
    // An item of work is a group of panels and a part of the channels in.
    const std::int64_t together_panels = by_in ? kPanelsByIn : 1, part = by_in ? kPartByIn : kPart;
    const std::int64_t groups = (columns + together_panels - 1) / together_panels, parts = (rows + part - 1) / part;
    const std::int64_t u_weight = (tiles_first ? std::min(rows, part) : rows) * kPanel + kApart,
                       u_panel = A::kWeights * u_weight;
    const Buffer zeros = buffer(std::max(rows, width));

    // The transformed tiles: v of x, or of dy where by_in [points, in / kAcross, tiles, kAcross], and d of dy, or of x
    // [points, out / 32, tiles, 32].
    struct Factors {
        const Buffer v, d;
        explicit Factors(const WeightGradient& of)
            : v(buffer(A::kPoints * of.v_point)), d(buffer(A::kPoints * of.d_point)) {}
    };
    // A part of the gradient: channels in, and panels of channels out.
    struct Piece {
        std::int64_t from, to, first, last;
    };

    void run() const {
        std::fill_n(zeros.get(), std::max(rows, width), 0.f);
        if (tiles_first) return run_tiles_first();
        threads == 2 ? run_halves() : run_gradient_first();
    }

    // Here du is [panels, weights, part, 32], for a group of panels. While they are added up, the memory comes to which
    // the gradient will be written.
    void run_tiles_first() const {
        const Factors factors(*this);
        transform_tiles(factors, 0, tiles.count());
        for_shares(groups * parts, threads, [&](std::int64_t begin, std::int64_t end) {
            const Buffer du = buffer(together_panels * u_panel);
            const auto lines = lines_of_taps<A>(s, part, together_panels * kPanel);
            const std::int64_t pieces = A::kPoints * together_panels * pieces_of(std::min(part, rows));
            for (std::int64_t item = begin; item < end; ++item) {
                const std::int64_t first = item / parts * together_panels, from = item % parts * part;
                const std::int64_t last = std::min(first + together_panels, columns), to = std::min(from + part, rows);
                const float* const taps = p.dweight + first * kPanel * s.stride_out + from * s.stride_in;
                Fetch fetch = {taps, lines.data(), lines.data() + lines.size(),
                               std::int64_t(lines.size()) / pieces + 1};
                for (std::int64_t t = 0; t < tiles.count(); t += added)
                    for (int i = 0; i < A::kPoints; ++i)
                        for (std::int64_t panel = first; panel < last; ++panel)
                            add_point(factors, panel, from, to, i, t, std::min(added, tiles.count() - t), t > 0,
                                      du.get() + (panel - first) * u_panel, lines.empty() ? nullptr : &fetch);
                for (std::int64_t row = from; row < to; row += kStrip)
                    write_strip(first, last, row, du.get() + (row - from) * kPanel);
            }
        });
    }

    // Here du is [panels, weights, in, 32].
    void run_gradient_first() const {
        const Factors factors(*this);
        const Buffer du = buffer(columns * u_panel);
        for (std::int64_t first = 0; first < tiles.count(); first += together) {
            const std::int64_t count = std::min(together, tiles.count() - first);
            transform_tiles(factors, first, count);
            // One thread adds up all points that share a weight.
            for_shares(columns * A::kPoints, threads, [&](std::int64_t begin, std::int64_t end) {
                while (adds(begin % A::kPoints)) ++begin;
                while (adds(end % A::kPoints)) ++end;
                for (std::int64_t item = begin; item < end; ++item) {
                    const std::int64_t panel = item / A::kPoints;
                    add_point(factors, panel, 0, rows, int(item % A::kPoints), 0, count, first > 0,
                              du.get() + panel * u_panel, nullptr);
                }
            });
        }
        write_gradient(du.get());
    }

    // The same on two threads, which have a half of the gradient each. They share no factors: what one core writes and
    // another reads travels between their caches, which takes longer than the transform of one factor in both (64
    // channels, 32x32 pixels, batch 8: 1.1 ms instead of 3.2; AMD EPYC, AVX-512, 2026-11).
    void run_halves() const {
        const Buffer du = buffer(columns * u_panel);
        in_parallel(2, [&](int half) {
            const auto [from, to, first, last] = half_of(half);
            const Factors factors(*this);
            for (std::int64_t tile = 0; tile < tiles.count(); tile += together) {
                const std::int64_t count = std::min(together, tiles.count() - tile);
                transform_pairs(factors, tile, 0, count, {from, to, first, last});
                for (std::int64_t panel = first; panel < last; ++panel)
                    for (int i = 0; i < A::kPoints; ++i)
                        add_point(factors, panel, from, to, i, 0, count, tile > 0,
                                  du.get() + panel * u_panel + from * kPanel, nullptr);
            }
        });
        write_gradient(du.get());
    }

    // The longer side of the gradient is cut.
    Piece half_of(int half) const {
        if (columns > 1 && width >= rows) return {0, rows, columns * half / 2, columns * (half + 1) / 2};
        const std::int64_t middle = round_up(rows / 2, kStrip);
        return {half == 0 ? 0 : middle, half == 0 ? middle : rows, 0, columns};
    }

    // du [panels, weights, in, 32] becomes the gradient.
    void write_gradient(const float* du) const {
        for_shares(groups * strips(s.in), threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t item = begin; item < end; ++item) {
                const std::int64_t first = item / strips(s.in) * together_panels, row = item % strips(s.in) * kStrip;
                write_strip(first, std::min(first + together_panels, columns), row,
                            du + first * u_panel + row * kPanel);
            }
        });
    }

    // v and d of `count` tiles of x and dy.
    void transform_tiles(const Factors& factors, std::int64_t first, std::int64_t count) const {
        for_shares(count, threads, [&](std::int64_t begin, std::int64_t end) {
            transform_pairs(factors, first, begin, end, {0, rows, 0, columns});
        });
    }

    // v and d of tiles at places `begin` to `end`, counted from tile `first` on, as far as a piece of the gradient
    // needs them.
    void transform_pairs(const Factors& factors, std::int64_t first, std::int64_t begin, std::int64_t end,
                         const Piece& piece) const {
        float *const v = factors.v.get(), *const d = factors.d.get();
        const std::int64_t of_d = piece.first * kPanel, to_d = piece.last * kPanel;
        if (by_in) {
            transform_x<kPanel>(first, begin, end, of_d, to_d, d, d_point);
            transform_dy<kAcross>(first, begin, end, piece.from, piece.to, v, v_point);
        } else {
            transform_x<kAcross>(first, begin, end, piece.from, piece.to, v, v_point);
            transform_dy<kPanel>(first, begin, end, of_d, to_d, d, d_point);
        }
    }

    // Transforms channels `from` to `until` of these tiles, with those that pad the factor, to [points, channels /
    // kWide, tiles, kWide].
    template <std::int64_t kWide>
    void transform_x(std::int64_t first, std::int64_t begin, std::int64_t end, std::int64_t from, std::int64_t until,
                     float* to, std::int64_t point) const {
        const float* const outside = zeros.get();
        tiles.in(first + begin, first + end, p.x, p.shape.in, from, until, outside,
                 [&](std::int64_t tile, const auto& at, std::int64_t c, std::int64_t stop) {
                     transform_x_channels<kWide>(at, c, stop, to + (tile - first) * kWide, point);
                 });
    }
    template <std::int64_t kWide>
    void transform_dy(std::int64_t first, std::int64_t begin, std::int64_t end, std::int64_t from, std::int64_t until,
                      float* to, std::int64_t point) const {
        const float* const outside = zeros.get();
        tiles.out(first + begin, first + end, p.dy, p.shape.out, from, until, outside,
                  [&](std::int64_t tile, const auto& at, std::int64_t c, std::int64_t stop) {
                      transform_dy_channels<kWide>(at, c, stop, to + (tile - first) * kWide, point);
                  });
    }

    // The arguments are copies: as far as the compiler knows, the stores may change the members.
    template <std::int64_t kWide>
    [[gnu::noinline]] void transform_x_channels(const typename A::template In<const float*>& at, std::int64_t begin,
                                                std::int64_t end, float* to, std::int64_t point) const {
        const std::int64_t in = p.shape.in, wide = together * kWide;
        for (std::int64_t c = begin; c < end; c += kRegLanes)
            transform_tile<A>(at, std::min(c, in), in, to + c / kWide * wide + c % kWide, point);
    }
    template <std::int64_t kWide>
    [[gnu::noinline]] void transform_dy_channels(const typename A::template Out<const float*>& at, std::int64_t begin,
                                                 std::int64_t end, float* to, std::int64_t point) const {
        const std::int64_t out = p.shape.out, wide = together * kWide;
        for (std::int64_t c = begin; c < end; c += kRegLanes) {
            typename A::template Out<Register> y;
            typename A::template Points<Register> d_y;
            for (int i = 0; i < A::Down::kOut; ++i)
                for (int j = 0; j < A::Across::kOut; ++j) y[i][j] = load_up_to<Register>(at[i][j] + c, out - c);
            transform_output_adjoint<A>(y, d_y);
            float* const place = to + c / kWide * wide + c % kWide;
            GE_UNROLLED
            for (int k = 0; k < A::kPoints; ++k) store(place + k * point, (&d_y[0][0])[k], false);
        }
    }

    static constexpr auto points = points_by_weight<A>();

    // Whether point i, in the order of their weights, has the weight of the point before it.
    static bool adds(std::int64_t i) { return i > 0 && weight_at<A>(points[i]) == weight_at<A>(points[i - 1]); }

    // du += v^T d for point i, channels in from `from` to `to`, and `count` tiles from `first` on. Without `more` they
    // are the first tiles of du.
    [[gnu::noinline]] void add_point(const Factors& factors, std::int64_t panel, std::int64_t from, std::int64_t to,
                                     int i, std::int64_t first, std::int64_t count, bool more, float* du,
                                     Fetch* fetch) const {
        const int k = points[i];
        const float *const from_v = factors.v.get() + k * v_point, *const from_d = factors.d.get() + k * d_point;
        float* const sums = du + weight_at<A>(k) * u_weight - from * kPanel;
        for (std::int64_t t = 0; t < count; t += kSummed)
            for (std::int64_t row = from, most; row < to; row += most) {
                most = std::min(kAcross - row % kAcross, to - row);
                // The products fetch their sums into the cache; where the sums are there, the tiles of the next point.
                const float* const strip = from_v + (row / kAcross * together + first + t) * kAcross;
                const float* const soon = tiles_first ? strip + v_point + row % kAcross * kSummed : sums + row * kPanel;
                multiply(most, strip + row % kAcross, 1, kAcross, from_d + (panel * together + first + t) * kPanel,
                         sums + row * kPanel, std::min(kSummed, count - t), more || t > 0 || adds(i), soon,
                         kRows * (tiles_first ? kSummed : kPanel) / kLine, fetch);
            }
    }

    // Panels `first` to `last` of a strip of dweight, from channel `in` on. du begins with this channel.
    void write_strip(std::int64_t first, std::int64_t last, std::int64_t in, const float* du) const {
        if (side_by_side(s, (last - 1) * kPanel, in))
            return write_taps(TapsAt<A, float>(s, p.dweight, first * kPanel, in, 1), kStrip, last - first, du);
        for (std::int64_t panel = first; panel < last; ++panel) {
            Strip<A> strip;
            write_taps(TapsAt<A, float>(strip), std::min(kStrip, s.in - in), 1, du + (panel - first) * u_panel);
            move_strip(s, p.dweight, panel * kPanel, in, strip);
        }
    }

    [[gnu::noinline]] void write_taps(const TapsAt<A, float> taps, std::int64_t count, std::int64_t across,
                                      const float* du) const {
        const std::int64_t step = u_weight, step_panel = u_panel - kPanel;
        for (std::int64_t i = 0; i < count; ++i) {
            taps.fetch(i, across * kPanel);
            for (std::int64_t lane = 0; lane < across * kPanel; lane += kRegLanes) {
                typename A::template Taps<Register> w;
                typename A::template Weights<Register> u;
                const float* const from = du + lane / kPanel * step_panel + i * kPanel + lane;
                GE_UNROLLED
                for (int k = 0; k < A::kWeights; ++k) (&u[0][0])[k] = load<Register>(from + k * step);
                transform_weight_adjoint<A>(u, w);
                GE_UNROLLED
                for (int k = 0; k < taps.kTaps; ++k) store(taps.at[k] + i * taps.row + lane, (&w[0][0])[k], false);
            }
        }
    }
};

}  // namespace

void winograd_wgrad(const WinogradWgradParams& p, int threads) {
    check(p.images, p.shape);
    with_algorithm(p.minimal, [&](auto algorithm) {
        if constexpr (decltype(algorithm)::kUp)
            throw std::invalid_argument(
                "winograd_wgrad: for a transposed convolution, ask for the gradient of the convolution from dy to x");
        else
            WeightGradient<decltype(algorithm)>{p, threads}.run();
    });
}

}  // namespace GE_ISA
}  // namespace gan_engine
