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

// So many channels in lie side by side for each tile: pieces of the products divide them.
constexpr std::int64_t kAcross = kRows == 3 ? 48 : 16;

// Tiles are transformed until they make this many numbers, which stay in the cache until they are used. More would be
// no faster, and would show in the memory of a small network.
constexpr std::int64_t kFactors = 1 << 18;

template <class A>
struct WeightGradient {
    const WinogradWgradParams& p;
    const int threads;
    const WinogradWeight& s = p.shape;
    const Tiles<A> tiles = Tiles<A>(p.images);
    const std::int64_t columns = panels(s.out), rows = strips(s.in) * kStrip, width = columns * kPanel;
    const std::int64_t fit = std::max<std::int64_t>(1, kFactors / (A::kPoints * (rows + width) * kSummed));
    // A gradient that becomes more numbers than all tiles is finished part by part.
    const bool tiles_first = tiles.count() * (rows + width) <= rows * width && columns >= threads;
    const std::int64_t together =
        round_up(tiles_first ? tiles.count() : std::min(fit * kSummed, tiles.count()), kSummed);
    // Tiles of a point that are added at a time. Points that share a weight take turns, in an order that the sums keep.
    const std::int64_t added = A::kWeights == A::kPoints ? tiles.count() : fit * kSummed;
    const std::int64_t v_point = round_up(rows, kAcross) * together + kApart, d_point = width * together + kApart;
    const std::int64_t u_weight = (tiles_first ? std::min(rows, kPart) : rows) * kPanel + kApart,
                       u_panel = A::kWeights * u_weight;
    const Buffer v = buffer(A::kPoints * v_point);  // x: [points, in / kAcross, tiles, kAcross]
    const Buffer d = buffer(A::kPoints * d_point);  // dy: [points, out / 32, tiles, 32]
    const Buffer zeros = buffer(std::max(rows, width));

    void run() const {
        std::fill_n(zeros.get(), std::max(rows, width), 0.f);
        tiles_first ? run_tiles_first() : run_gradient_first();
    }

    // Here du is [weights, kPart, 32], for a part of a panel.
    void run_tiles_first() const {
        transform_tiles(0, tiles.count());
        for_shares(columns, threads, [&](std::int64_t begin, std::int64_t end) {
            const Buffer du = buffer(u_panel);
            for (std::int64_t panel = begin; panel < end; ++panel)
                for (std::int64_t from = 0; from < rows; from += kPart) {
                    const std::int64_t to = std::min(from + kPart, rows);
                    for (std::int64_t t = 0; t < tiles.count(); t += added)
                        for (int i = 0; i < A::kPoints; ++i)
                            add_point(panel, from, to, i, t, std::min(added, tiles.count() - t), t > 0, du.get());
                    for (std::int64_t row = from; row < to; row += kStrip)
                        write_strip(panel, row, du.get() + (row - from) * kPanel);
                }
        });
    }

    // Here du is [panels, weights, in, 32].
    void run_gradient_first() const {
        const Buffer du = buffer(columns * u_panel);
        for (std::int64_t first = 0; first < tiles.count(); first += together) {
            const std::int64_t count = std::min(together, tiles.count() - first);
            transform_tiles(first, count);
            // One thread adds up all points that share a weight.
            for_shares(columns * A::kPoints, threads, [&](std::int64_t begin, std::int64_t end) {
                while (adds(begin % A::kPoints)) ++begin;
                while (adds(end % A::kPoints)) ++end;
                for (std::int64_t item = begin; item < end; ++item) {
                    const std::int64_t panel = item / A::kPoints;
                    add_point(panel, 0, rows, int(item % A::kPoints), 0, count, first > 0, du.get() + panel * u_panel);
                }
            });
        }
        for_shares(columns * strips(s.in), threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t item = begin; item < end; ++item) {
                const std::int64_t panel = item / strips(s.in), row = item % strips(s.in) * kStrip;
                write_strip(panel, row, du.get() + panel * u_panel + row * kPanel);
            }
        });
    }

    // v and d of `count` tiles of x and dy.
    void transform_tiles(std::int64_t first, std::int64_t count) const {
        const float* outside = zeros.get();
        // Copies: as far as the compiler knows, the stores below may change the members.
        const std::int64_t panel_size = together * kPanel, v_step = v_point, d_step = d_point, end_of_d = width;
        for_shares(count, threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) {
                typename A::template In<const float*> in;
                typename A::template Out<const float*> out;
                tiles.in(first + t, p.x, s.in, outside, in), tiles.out(first + t, p.dy, s.out, outside, out);
                for (std::int64_t c = 0; c < rows; c += kRegLanes)
                    transform_tile<A>(in, std::min(c, s.in), s.in,
                                      v.get() + (c / kAcross * together + t) * kAcross + c % kAcross, v_step);
                for (std::int64_t c = 0; c < end_of_d; c += kRegLanes) {
                    typename A::template Out<Register> y;
                    typename A::template Points<Register> to;
                    for (int i = 0; i < A::Down::kOut; ++i)
                        for (int j = 0; j < A::Across::kOut; ++j)
                            y[i][j] = load_up_to<Register>(out[i][j] + c, s.out - c);
                    transform_output_adjoint<A>(y, to);
                    float* at = d.get() + c / kPanel * panel_size + t * kPanel + c % kPanel;
                    GE_UNROLLED
                    for (int k = 0; k < A::kPoints; ++k) store(at + k * d_step, (&to[0][0])[k], false);
                }
            }
        });
    }

    static constexpr auto points = points_by_weight<A>();

    // Whether point i, in the order of their weights, has the weight of the point before it.
    static bool adds(std::int64_t i) { return i > 0 && weight_at<A>(points[i]) == weight_at<A>(points[i - 1]); }

    // du += v^T d for point i, channels in from `from` to `to`, and `count` tiles from `first` on. Without `more` they
    // are the first tiles of du.
    [[gnu::noinline]] void add_point(std::int64_t panel, std::int64_t from, std::int64_t to, int i, std::int64_t first,
                                     std::int64_t count, bool more, float* du) const {
        const int k = points[i];
        const float *const from_v = v.get() + k * v_point, *const from_d = d.get() + k * d_point;
        float* const sums = du + weight_at<A>(k) * u_weight - from * kPanel;
        for (std::int64_t t = 0; t < count; t += kSummed)
            for (std::int64_t row = from, most; row < to; row += most) {
                most = std::min(kAcross - row % kAcross, to - row);
                // The products fetch their sums into the cache; where the sums are there, the tiles of the next point.
                const float* const strip = from_v + (row / kAcross * together + first + t) * kAcross;
                const float* const soon = tiles_first ? strip + v_point + row % kAcross * kSummed : sums + row * kPanel;
                multiply(most, strip + row % kAcross, 1, kAcross, from_d + (panel * together + first + t) * kPanel,
                         sums + row * kPanel, std::min(kSummed, count - t), more || t > 0 || adds(i), soon,
                         kRows * (tiles_first ? kSummed : kPanel) / kLine);
            }
    }

    // A strip of dweight, from channel `in` on. du begins with this channel.
    [[gnu::noinline]] void write_strip(std::int64_t panel, std::int64_t in, const float* du) const {
        Strip<A> strip;
        for (std::int64_t i = 0; i < std::min(kStrip, s.in - in); ++i)
            for (std::int64_t lane = 0; lane < kPanel; lane += kRegLanes) {
                typename A::template Taps<Register> w;
                typename A::template Weights<Register> u;
                GE_UNROLLED
                for (int k = 0; k < A::kWeights; ++k)
                    (&u[0][0])[k] = load<Register>(du + k * u_weight + i * kPanel + lane);
                transform_weight_adjoint<A>(u, w);
                for (int k = 0; k < Strip<A>::kTaps; ++k) store(strip.taps[i][k] + lane, (&w[0][0])[k], false);
            }
        move_strip(s, p.dweight, panel * kPanel, in, strip);
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
