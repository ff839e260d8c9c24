// The gradient of a convolution by the weight, by minimal filtering. For each pair of points it is a matrix product
// over all tiles: channels in x tiles, times tiles x channels out.
#include "winograd_tiles.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

using namespace minimal;

// A sum of products covers so many tiles before it is added to the gradient.
constexpr std::int64_t kSummed = 64;

// Tiles are transformed until they make this many numbers, which stay in the cache until they are used. More would be
// no faster, and would show in the memory of a small network.
constexpr std::int64_t kFactors = 1 << 18;

template <class A>
struct WeightGradient {
    const WinogradWgradParams& p;
    const int threads;
    const WinogradWeight& s = p.shape;
    const Tiles<A> tiles = Tiles<A>(p.images);
    const std::int64_t columns = panels(s.out), rows = strips(s.in) * kStrip;
    const std::int64_t fit = std::max<std::int64_t>(1, kFactors / (A::kPoints * (rows + columns * kPanel) * kSummed));
    const std::int64_t together = std::min(fit * kSummed, round_up(tiles.count(), kSummed));  // tiles at a time
    const std::int64_t v_point = rows * together + kApart, d_point = columns * kPanel * together + kApart;
    const Buffer v = buffer(A::kPoints * v_point);                    // x: [points, in / 16, tiles, 16]
    const Buffer d = buffer(A::kPoints * d_point);                    // dy: [points, out / 32, tiles, 32]
    const Buffer du = buffer(A::kWeights * columns * rows * kPanel);  // [out / 32, weights, in, 32]
    const Buffer zeros = buffer(std::max(rows, columns* kPanel));

    void run() const {
        std::fill_n(zeros.get(), std::max(rows, columns * kPanel), 0.f);
        for (std::int64_t first = 0; first < tiles.count(); first += together) {
            const std::int64_t count = std::min(together, tiles.count() - first);
            transform_tiles(first, count);
            add_products(first, count);
        }
        write_gradient();
    }

    // v and d of `count` tiles of x and dy.
    void transform_tiles(std::int64_t first, std::int64_t count) const {
        const float* outside = zeros.get();
        // Copies: as far as the compiler knows, the stores below may change the members.
        const std::int64_t panel_size = together * kPanel, v_step = v_point, d_step = d_point, width = columns * kPanel;
        for_shares(count, threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t t = begin; t < end; ++t) {
                typename A::template In<const float*> in;
                typename A::template Out<const float*> out;
                tiles.in(first + t, p.x, s.in, outside, in), tiles.out(first + t, p.dy, s.out, outside, out);
                for (std::int64_t c = 0; c < s.in; c += kLanes)
                    transform_tile<A>(in, c, s.in, v.get() + c * together + t * kLanes, v_step);
                for (std::int64_t c = 0; c < width; c += kLanes) {
                    typename A::template Out<VecF> y;
                    typename A::template Points<VecF> to;
                    for (int i = 0; i < A::Down::kOut; ++i)
                        for (int j = 0; j < A::Across::kOut; ++j)
                            y[i][j] = c < s.out ? load_up_to<VecF>(out[i][j] + c, s.out - c) : VecF{};
                    transform_output_adjoint<A>(y, to);
                    float* at = d.get() + c / kPanel * panel_size + t * kPanel + c % kPanel;
                    for (int k = 0; k < A::kPoints; ++k) store(at + k * d_step, (&to[0][0])[k], false);
                }
            }
        });
    }

    // du += v^T d, for each point. One thread adds up all points that share a weight.
    void add_products(std::int64_t first, std::int64_t count) const {
        constexpr auto points = points_by_weight<A>();
        // Whether an item has the weight of the item before it.
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
                    for (std::int64_t i = 0; i < rows;)
                        i += multiply(kStrip - i % kStrip,
                                      v.get() + k * v_point + (i / kLanes * together + t) * kLanes + i % kLanes, 1,
                                      kLanes, d.get() + k * d_point + (panel * together + t) * kPanel,
                                      sums + i * kPanel, std::min(kSummed, count - t), first + t > 0 || adds(item),
                                      sums + i * kPanel, kRows * kPanel / kLine);
            }
        });
    }

    // dweight from du.
    void write_gradient() const {
        for_shares(columns * strips(s.in), threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t item = begin; item < end; ++item) {
                const std::int64_t panel = item / strips(s.in), in = item % strips(s.in) * kStrip;
                typename A::template Taps<Strip> taps;
                for (std::int64_t i = 0; i < std::min(kStrip, s.in - in); ++i)
                    for (std::int64_t lane = 0; lane < kPanel; lane += kLanes) {
                        typename A::template Taps<VecF> w;
                        typename A::template Weights<VecF> u;
                        const float* sums = du.get() + (panel * A::kWeights * rows + in + i) * kPanel + lane;
                        for (int k = 0; k < A::kWeights; ++k) (&u[0][0])[k] = load(sums + k * rows * kPanel);
                        transform_weight_adjoint<A>(u, w);
                        for (int y = 0; y < A::Down::kTaps; ++y)
                            for (int x = 0; x < A::Across::kTaps; ++x) store(&taps[y][x][i][lane], w[y][x], false);
                    }
                for_taps<A>(s, p.dweight, panel * kPanel, in, taps, [](float& w, float tap) { w = tap; });
            }
        });
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
