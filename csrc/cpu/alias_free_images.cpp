#include "../alias_free_activation.h"

#include <algorithm>
#include <vector>

#include "alias_free_taps.h"
#include "lanes.h"
#include "scratch.h"
#include "snake.h"
#include "threads.h"

// A tile is a rectangle of an image in a block of sixteen planes. A pixel is a vector, with a lane for each plane. Rows
// pass through the tile one after the other. Row s of x becomes two rows of u, each as two streams of columns:
//
//     x --> ring --split down--> lines --split across, h--> streams --merge across--> rings --merge down--> line --> y
//
// So rows of u are never kept, and the rings have the width of x. The gradient has dy beside x, and the second gradient
// has dy and v.
namespace gan_engine {
namespace GE_ISA {
namespace {

using alias_free::Edges;
using alias_free::kReach;
using alias_free::kWindow;
using alias_free::Taps;

constexpr std::int64_t kSlots = 8;                           // of a ring: kWindow rows, and a power of two
constexpr std::int64_t kStrip = 64;                          // the least columns of a tile where rows are cut
constexpr std::int64_t kFewestRows = 32, kFewestBlocks = 8;  // a tile of fewer blocks is cut into rows, for threads

// The pieces of an image depend on its shape alone, because sums are added up piece by piece.
std::int64_t strips_of(std::int64_t w) { return std::max<std::int64_t>(1, w / kStrip); }
std::int64_t cuts_of(std::int64_t planes, std::int64_t h) {
    const std::int64_t blocks = std::max<std::int64_t>(1, (planes + kLanes - 1) / kLanes);
    return std::clamp<std::int64_t>(h / kFewestRows, 1, (kFewestBlocks + blocks - 1) / blocks);
}

// What the three kernels read and write; what an order lacks is null. y is d_dy of the second order.
struct Pointers {
    const void *dy, *v, *v_alpha, *v_b;
    void *y, *dx, *sums;
};

template <class S>
struct Filters {
    Edges<S> up, down, up_adjoint, down_adjoint;

    explicit Filters(const AliasFreeImages& p)
        : up(Edges<S>::split(p.fu, 2, false)),
          down(Edges<S>::merge(p.fd, 1, false)),
          up_adjoint(Edges<S>::merge(p.fu, 2, true)),
          down_adjoint(Edges<S>::split(p.fd, 1, true)) {}
};

template <class T, int order>
class Tile {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    static constexpr int kInputs = order + 1, kOutputs = order == 2 ? 2 : 1;
    // Columns that are summed together share the loads of their inputs.
    static constexpr int kRegisters = int(sizeof(V)) / kRegisterBytes;
    static constexpr int kAtOnce = std::clamp((kRegisterBytes == 64 && order < 2 ? 4 : 2) / kRegisters, 1, 4);

  public:
    // Rows [top, bottom) and columns [left, right) of y.
    Tile(const AliasFreeImages& p_, const Pointers& to_, const Filters<S>& f_, std::int64_t top_, std::int64_t bottom_,
         std::int64_t left_, std::int64_t right_)
        : p(p_),
          to(to_),
          planes(p_.n, p_.c, p_.h, p_.w, p_.channels_last),
          top(top_),
          bottom(bottom_),
          left(left_),
          right(right_),
          begin(std::max<std::int64_t>(0, left_ - kReach)),
          end(std::min(p_.w, right_ + kReach)),
          columns(end - begin + 2 * kReach) {
        inputs[0] = {static_cast<const T*>(p.x), &f_.up, true};
        if constexpr (order > 0) inputs[1] = {static_cast<const T*>(to.dy), &f_.down_adjoint, false};
        if constexpr (order > 1) inputs[2] = {static_cast<const T*>(to.v), &f_.up, true};
        if constexpr (order != 1) outputs[0] = {static_cast<T*>(to.y), &f_.down, true};
        if constexpr (order > 0) outputs[kOutputs - 1] = {static_cast<T*>(to.dx), &f_.up_adjoint, false};
        memory = buffer(lay_out(nullptr) * std::int64_t(sizeof(S)) / 4);
        std::fill_n(memory.get(), lay_out(reinterpret_cast<S*>(memory.get())) * std::int64_t(sizeof(S)) / 4, 0.f);
        find_segments();
    }

    void run(std::int64_t block_, std::int64_t piece, std::int64_t pieces) {
        block = block_;
        snake = {of_channels(p.alpha), of_channels(p.b)};
        v_alpha = of_channels(to.v_alpha), v_b = of_channels(to.v_b);
        of_alpha = of_b = VecD{};
        const std::int64_t first = std::max<std::int64_t>(0, top - kReach), behind = std::min(p.h, bottom + kReach);
        for (Input& in : inputs) in.next = std::max<std::int64_t>(0, first - kReach);
        for (std::int64_t s = first, m = top; s < behind; ++s) {
            for (Input& in : inputs) split_rows(in, s);
            for (int row : {0, 1}) {
                for (const Segment& segment : segments) activate(row, segment, s >= top && s < bottom);
                for (const Output& out : outputs) merge_columns(out, row, s);
            }
            for (; m < bottom && (m + kReach <= s || s + 1 == p.h); ++m)
                for (const Output& out : outputs) merge_rows(out, m);
        }
        if constexpr (order > 0) {
            S* sums = static_cast<S*>(to.sums) + piece * p.n * p.c;
            planes.put_planes(sums, block, order == 1 ? of_alpha * widen(snake.b) : of_alpha);
            planes.put_planes(sums + pieces * p.n * p.c, block, of_b);
        }
    }

  private:
    struct Input {
        const T* from;
        const Edges<S>* edges;
        bool repeats;  // the border; otherwise zeros lie outside
        S *ring, *zeros;
        S* lines[2];        // the even and the odd row of u, from column begin - kReach of x on
        std::int64_t next;  // the next row to read
    };
    struct Output {
        T* to;
        const Edges<S>* edges;
        bool repeats;
        S* lines[2];  // even and odd columns of a row of u, from column begin - kReach of x on
        S* rings[2];  // even and odd rows of u, merged across
        S* zeros;
    };
    // Columns [from, to) of u have the same taps. Those of other tiles do not count in the sums.
    struct Segment {
        std::int64_t from, to;
        bool counts;
    };

    const AliasFreeImages& p;
    const Pointers& to;
    const Planes<T> planes;
    const std::int64_t top, bottom, left, right;
    const std::int64_t begin, end;  // the columns of both streams that y needs
    const std::int64_t columns;     // of x
    std::int64_t pitch = 0;         // elements between the rows of a ring
    Input inputs[kInputs];
    Output outputs[kOutputs];
    S* line = nullptr;  // of y
    Buffer memory;
    std::vector<Segment> segments;
    std::int64_t block = 0;
    Snake<V> snake{};
    V v_alpha{}, v_b{};
    VecD of_alpha{}, of_b{};  // an image has many elements to sum

    V of_channels(const void* numbers) const {
        return numbers == nullptr ? V{} : planes.of_planes(static_cast<const S*>(numbers), block);
    }

    // Elements of memory. Without memory it counts.
    std::int64_t lay_out(S* at) {
        std::int64_t taken = 0;
        pitch = (columns | 1) * kLanes;  // odd, so that the rows of a column do not share a set of the cache
        const auto take = [&](std::int64_t elements) {
            taken += elements;
            return at == nullptr ? nullptr : at + taken - elements;
        };
        S* const zeros = take(pitch);
        for (Input& in : inputs) {
            in.zeros = zeros, in.ring = take(kSlots * pitch);
            for (S*& l : in.lines) l = take(pitch);
        }
        for (Output& out : outputs) {
            out.zeros = zeros;
            for (S*& l : out.lines) l = take(pitch);
            for (S*& ring : out.rings) ring = take(kSlots * pitch);
        }
        line = take(pitch + kLanes * kLanes);
        return taken;
    }

    void find_segments() {
        std::int64_t cuts[] = {begin, 1, left, right, p.w - 1, end};
        for (std::int64_t& cut : cuts) cut = std::clamp(cut, begin, end);
        std::sort(std::begin(cuts), std::end(cuts));
        for (int k = 0; k < 5; ++k)
            if (cuts[k] < cuts[k + 1]) segments.push_back({cuts[k], cuts[k + 1], cuts[k] >= left && cuts[k] < right});
    }

    // body(i, number of positions) for i = from, ..., to - 1, some at once.
    template <class Body>
    static GE_INLINE void each(std::int64_t from, std::int64_t to, const Body& body) {
        std::int64_t i = from;
        for (; i + kAtOnce <= to; i += kAtOnce) body(i, std::integral_constant<int, kAtOnce>());
        for (; i < to; ++i) body(i, std::integral_constant<int, 1>());
    }

    // Row r of x, with kReach columns on both sides.
    [[gnu::noinline]] void read(const Input& in, std::int64_t r) const {
        S* const row = in.ring + r % kSlots * pitch;
        const std::int64_t first = std::max<std::int64_t>(0, begin - kReach), behind = std::min(p.w, end + kReach);
        const std::int64_t before = first - (begin - kReach), count = behind - first;
        planes.read(in.from, block, r, first, count, V{}, row + before * kLanes);
        if (in.repeats) repeat(row, before, row + before * kLanes, before + count, row + (before + count - 1) * kLanes);
    }
    // Columns before `first` become `low`, and columns from `behind` on become `high`.
    void repeat(S* row, std::int64_t first, const S* low, std::int64_t behind, const S* high) const {
        const V lowest = load<V>(low), highest = load<V>(high);
        for (std::int64_t i = 0; i < first; ++i) store(row + i * kLanes, lowest, false);
        for (std::int64_t i = behind; i < columns; ++i) store(row + i * kLanes, highest, false);
    }

    // Rows 2s and 2s + 1 of u, before the filter across.
    [[gnu::noinline]] void split_rows(Input& in, std::int64_t s) const {
        for (; in.next < std::min(p.h, s + kReach + 1); ++in.next) read(in, in.next);
        const S* rows[kWindow];
        for (int t = 0; t < kWindow; ++t) {
            const std::int64_t r = s - kReach + t, inside = std::clamp<std::int64_t>(r, 0, p.h - 1);
            rows[t] = r == inside || in.repeats ? in.ring + inside % kSlots * pitch : in.zeros;
        }
        const Taps<S>& taps = in.edges->at(s, p.h);
        each(0, columns, [&](std::int64_t i, auto count) GE_INLINED {
            V even[count()], odd[count()];
            alias_free::split([&](int t) GE_INLINED { return rows[t] + i * kLanes; }, taps, even, odd);
            for (int j = 0; j < count(); ++j) {
                store(in.lines[0] + (i + j) * kLanes, even[j], false);
                store(in.lines[1] + (i + j) * kLanes, odd[j], false);
            }
        });
    }

    // Columns of both streams of one row of u, and h of them.
    [[gnu::noinline]] void activate(int row, const Segment& segment, bool counts) {
        const Snake<V> h = snake;
        const V along_alpha = v_alpha, along_b = v_b;
        V sum_alpha{}, sum_b{};
        const Taps<S>& up = inputs[0].edges->of[0];
        const Taps<S>& down = inputs[order > 0].edges->at(segment.from, p.w);
        each(segment.from - begin, segment.to - begin, [&](std::int64_t i, auto count) GE_INLINED {
            V u[2][count()], a[2][count()], w[2][count()], part_alpha{}, part_b{};
            const auto at = [&](int k) GE_INLINED {
                const S* const from = inputs[k].lines[row] + i * kLanes;
                return [=](int t) GE_INLINED { return from + t * kLanes; };
            };
            alias_free::split(at(0), up, u[0], u[1]);
            if constexpr (order > 0) alias_free::split(at(1), down, a[0], a[1]);
            if constexpr (order > 1) alias_free::split(at(2), up, w[0], w[1]);
            for (int stream = 0; stream < 2; ++stream)
                for (int j = 0; j < count(); ++j) {
                    const std::int64_t place = (i + j + kReach) * kLanes;
                    V q, g;
                    if constexpr (order == 0) q = h(u[stream][j]);
                    if constexpr (order == 1) g = h.gradient(u[stream][j], a[stream][j], part_alpha, part_b);
                    if constexpr (order == 2)
                        h.second(u[stream][j], w[stream][j], a[stream][j], along_alpha, along_b, q, g, part_alpha,
                                 part_b);
                    if constexpr (order != 1) store(outputs[0].lines[stream] + place, q, false);
                    if constexpr (order > 0) store(outputs[kOutputs - 1].lines[stream] + place, g, false);
                }
            sum_alpha += part_alpha, sum_b += part_b;  // of so few each that errors grow less
        });
        if (segment.counts && counts) of_alpha += widen(sum_alpha), of_b += widen(sum_b);
    }

    // Both streams of a row of u become a row of the ring.
    [[gnu::noinline]] void merge_columns(const Output& out, int row, std::int64_t s) const {
        S* const to = out.rings[row] + s % kSlots * pitch;
        if (out.repeats)
            for (S* const l : out.lines)
                repeat(l, begin == 0 ? kReach : 0, out.lines[0] + kReach * kLanes,
                       end == p.w ? columns - kReach : columns, out.lines[1] + (columns - kReach - 1) * kLanes);
        const std::int64_t cuts[] = {left, std::min(right, std::max<std::int64_t>(left, 1)),
                                     std::max<std::int64_t>(left, std::min(right, p.w - 1)), right};
        for (int k = 0; k < 3; ++k) {
            if (cuts[k] >= cuts[k + 1]) continue;
            const Taps<S>& taps = out.edges->at(cuts[k], p.w);
            each(cuts[k], cuts[k + 1], [&](std::int64_t m, auto count) GE_INLINED {
                const std::int64_t i = m - begin;  // where column m - kReach lies
                V sums[count()];
                alias_free::merge([&](int t) GE_INLINED { return out.lines[0] + (i + 1 + t) * kLanes; },
                                  [&](int t) GE_INLINED { return out.lines[1] + (i + t) * kLanes; }, taps, sums);
                for (int j = 0; j < count(); ++j) store(to + (m - left + j) * kLanes, sums[j], false);
            });
        }
    }

    // Row m of y.
    [[gnu::noinline]] void merge_rows(const Output& out, std::int64_t m) const {
        const S *even[alias_free::kHalves], *odd[alias_free::kHalves];
        const auto row = [&](int stream, std::int64_t s) -> const S* {
            if (s >= 0 && s < p.h) return out.rings[stream] + s % kSlots * pitch;
            if (!out.repeats) return out.zeros;
            return s < 0 ? out.rings[0] : out.rings[1] + (p.h - 1) % kSlots * pitch;
        };
        for (int i = 0; i < alias_free::kHalves; ++i) even[i] = row(0, m - 2 + i), odd[i] = row(1, m - 3 + i);
        const Taps<S>& taps = out.edges->at(m, p.h);
        each(0, right - left, [&](std::int64_t i, auto count) GE_INLINED {
            V sums[count()];
            alias_free::merge([&](int t) GE_INLINED { return even[t] + i * kLanes; },
                              [&](int t) GE_INLINED { return odd[t] + i * kLanes; }, taps, sums);
            for (int j = 0; j < count(); ++j) store(line + (i + j) * kLanes, sums[j], false);
        });
        planes.write(out.to, block, m, left, right - left, line);
    }
};

template <int order>
void run(const AliasFreeImages& p, const Pointers& to, int threads) {
    with_dtype(p.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        const Filters<typename Wide<T>::Scalar> filters(p);
        const std::int64_t cuts = cuts_of(p.n * p.c, p.h), strips = strips_of(p.w), pieces = cuts * strips;
        const std::int64_t blocks = Planes<T>(p.n, p.c, p.h, p.w, p.channels_last).blocks(), items = pieces * blocks;
        const int parts = int(std::min<std::int64_t>(threads_for(4 * p.n * p.c * p.h * p.w, threads), items));
        in_parallel(parts, [&](int part) {
            const std::int64_t behind = items * (part + 1) / parts;
            for (std::int64_t item = items * part / parts; item < behind;) {
                const std::int64_t piece = item / blocks, cut = piece / strips, k = piece % strips;
                Tile<T, order> tile(p, to, filters, p.h * cut / cuts, p.h * (cut + 1) / cuts, p.w * k / strips,
                                    p.w * (k + 1) / strips);
                for (; item < std::min(behind, (piece + 1) * blocks); ++item) tile.run(item % blocks, piece, pieces);
            }
        });
    });
}

}  // namespace

void alias_free_images(const AliasFreeImageParams& p, int threads) {
    Pointers to{};
    to.y = p.y;
    run<0>(p.of, to, threads);
}

void alias_free_images_grad(const AliasFreeImageGradParams& p, int threads) {
    Pointers to{};
    to.dy = p.dy, to.dx = p.dx, to.sums = p.sums;
    run<1>(p.of, to, threads);
}

void alias_free_images_second(const AliasFreeImageSecondParams& p, int threads) {
    Pointers to{};
    to.dy = p.dy, to.v = p.v, to.v_alpha = p.v_alpha, to.v_b = p.v_b;
    to.y = p.d_dy, to.dx = p.d_x, to.sums = p.sums;
    run<2>(p.of, to, threads);
}

// The pieces of an image of h x w pixels, where there are `planes` planes.
int alias_free_images_slots(std::int64_t planes, std::int64_t h, std::int64_t w, int) {
    return int(cuts_of(planes, h) * strips_of(w));
}

}  // namespace GE_ISA
}  // namespace gan_engine
