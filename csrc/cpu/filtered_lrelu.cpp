#include "../filtered_lrelu.h"

#include <algorithm>
#include <vector>

#include "affine.h"
#include "fir_periods.h"
#include "fir_weights.h"
#include "lanes.h"
#include "rings.h"
#include "scratch.h"
#include "threads.h"

// A tile is a rectangle of y in a block of sixteen planes. Rows pass through it one after the other, as vectors:
//
//     x --read--> row --horizontal--> ring --vertical, act--> ring of u --vertical--> row --horizontal--> row --> y
//
// The first filter mostly upsamples, so its horizontal half comes first, on the fewer rows; the second mostly
// downsamples, so its horizontal half comes last. It never upsamples. A filter that is no outer product takes all its
// taps from a ring.
namespace gan_engine {
namespace GE_ISA {
namespace {

using fir::Group;
using fir::Periods;
using fir::Weights;

// The rings of a tile should fit into the second-level cache beside what else it holds.
constexpr std::int64_t kRingBytes = 384 << 10;
constexpr std::int64_t kNarrowest = 16, kFewestRows = 16;  // of y in a tile

// Whether a filter changes nothing.
template <class S>
bool is_identity(const Upfirdn2dParams& p, const Weights<S>& weights) {
    const auto same = [](const FirAxis& a) {
        return a.taps == 1 && a.up == 1 && a.down == 1 && a.pad == 0 && a.in == a.out;
    };
    return same(p.h) && same(p.w) && weights.separable && weights.down[0] * weights.across[0] == 1;
}

// Whether a filter that is no outer product is the same upside down, as radial filters are, and pairs of its rows share
// their products. Downsampling adds the two rows of x that have equal taps. Upsampling by 2 makes two rows of u from
// the same rows of x, with the taps of one upside down in the other: they are P + M and P - M, where P has the sums of
// two rows of x, and M their differences.
template <class S>
bool is_mirrored(const Upfirdn2dParams& p, const Weights<S>& weights) {
    if (weights.separable || !(p.h.up == 1 || (p.h.up == 2 && p.h.down == 1 && p.h.taps % 2 == 0))) return false;
    for (std::int64_t y = 0; y < p.h.taps / 2; ++y) {
        const S* const row = &weights.both[y * p.w.taps];
        if (!std::equal(row, row + p.w.taps, &weights.both[(p.h.taps - 1 - y) * p.w.taps])) return false;
    }
    return true;
}

template <class T>
class Tile {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

  public:
    // Rows [top, bottom) and columns [left, right) of y.
    Tile(const FilteredLreluParams& p_, const Weights<S>& one_, const Weights<S>& two_, std::int64_t top_,
         std::int64_t bottom_, std::int64_t left_, std::int64_t right_)
        : p(p_),
          one(p_.first),
          two(p_.second),
          f(one_),
          g(two_),
          top(top_),
          bottom(bottom_),
          left(left_),
          right(right_),
          act(p_.alpha, p_.gain, p_.clamp),
          derivative(p_.alpha, p_.gain),
          across2(two.w, left, weights_across(g, two), fir::kMostOutputs<V>),
          down2(two.h, top, weights_down(g, two), fir::kMostOutputs<V>),
          u_begin(inside(across2.base, two.w.in)),
          u_end(std::max(u_begin, inside(across2.base + across2.inputs(right), two.w.in))),
          u_top(inside(down2.base, two.h.in)),
          u_bottom(bottom == two.h.out ? two.h.in : inside(down2.first_input(bottom), two.h.in)),
          across1(one.w, u_begin, weights_across(f, one), fir::kMostOutputs<V>),
          down1(one.h, u_top, weights_down(f, one), fir::kMostOutputs<V>),
          passes1(is_identity(one, f)),
          passes2(is_identity(two, g)),
          pairs1(one.h.up == 2 && is_mirrored(one, f)),
          pairs2(two.h.up == 1 && is_mirrored(two, g)),
          linear(p.alpha == 1 && p.gain == 1 && p.clamp < 0) {}

    // Bytes of memory.
    std::int64_t lay_out(char* memory) {
        Pieces<S> pieces{memory};
        const std::int64_t width_x = pitch_of(std::max(across1.inputs(u_end), across1.reach) + across1.step);
        const std::int64_t width_one = one.separable ? pitch_of(across1.periods(u_end) * across1.size) : width_x;
        const std::int64_t width_u = pitch_of(std::max(across2.inputs(right), u_end - across2.base) + across2.step);
        x_row = pieces.take(width_x), elements_x = width_x * kLanes;
        xs = {nullptr, pieces.take(width_one), power_of_two(down1.reach + 1), width_one * kLanes, one.h.in};
        xs.data = pieces.take(xs.slots * width_one);
        us = {nullptr, pieces.take(width_u), power_of_two(down2.reach + down1.size + 1), width_u * kLanes, two.h.in};
        us.data = pieces.take(us.slots * width_u);
        blended = pieces.take(down2.size * width_u), pitch_blended = width_u * kLanes;
        out_row = pieces.take(pitch_of(across2.periods(right) * across2.size));
        paired1 = pieces.take(pairs1 ? one.h.taps / 2 * width_x + width_u : 0);
        paired2 = pieces.take(pairs2 ? two.h.taps / 2 * width_u : 0);
        bits = reinterpret_cast<std::uint8_t*>(pieces.take((u_end - u_begin) / 16 + 1));
        return pieces.taken * std::int64_t(sizeof(S));
    }

    void run(std::int64_t block_) {
        block = block_;
        const Planes<T> to(p.first.n, p.first.c, two.h.out, two.w.out, p.first.channels_last);
        const Planes<T> from(p.first.n, p.first.c, one.h.in, one.w.in, p.first.channels_last);
        bias = p.b == nullptr ? V{} : from.of_planes(static_cast<const S*>(p.b), block);
        clear();
        x_next = inside(down1.base, one.h.in), u_next = down1.origin;
        for (std::int64_t oy = top; oy < bottom; oy += down2.size) {
            const std::int64_t first = down2.base + (oy - top) / down2.size * down2.step;
            while (u_next < inside(first + down2.reach, two.h.in)) make_u(from);
            const std::int64_t rows = std::min(down2.size, bottom - oy);
            if (!passes2 && two.separable) blend(first);
            for (std::int64_t r = 0; r < rows; ++r)
                to.write(static_cast<T*>(p.second.y), block, oy + r, left, right - left, make_y(oy + r, r));
        }
    }

  private:
    const FilteredLreluParams& p;
    const Upfirdn2dParams &one, &two;
    const Weights<S>&f, &g;
    const std::int64_t top, bottom, left, right;
    const Activation<V> act;
    const Derivative<V> derivative;
    const Periods<S> across2, down2;
    const std::int64_t u_begin, u_end, u_top;  // the columns of u that y needs, and the first row
    const std::int64_t u_bottom;               // from here on, the next tile writes the bits
    const Periods<S> across1, down1;
    const bool passes1, passes2, pairs1, pairs2, linear;
    std::int64_t block = 0, x_next = 0, u_next = 0;  // the next rows of x and u
    V bias{};
    Ring<S> xs{}, us{};  // rows of x, filtered across where the filter is separable; rows of u from across2.base on
    S *x_row = nullptr, *blended = nullptr, *out_row = nullptr, *paired1 = nullptr, *paired2 = nullptr;
    std::int64_t elements_x = 0, pitch_blended = 0;
    std::uint8_t* bits = nullptr;  // of a row whose bits the next tile writes
    std::vector<const S*> places;  // the taps of a filter that is no outer product
    std::vector<S> taps;

    static std::int64_t inside(std::int64_t i, std::int64_t size) { return std::clamp<std::int64_t>(i, 0, size); }
    // Any weights will do for an axis of a filter that is not separable: it uses the places alone.
    static std::vector<S> weights_across(const Weights<S>& w, const Upfirdn2dParams& q) {
        return q.separable ? w.across : std::vector<S>(q.w.taps);
    }
    static std::vector<S> weights_down(const Weights<S>& w, const Upfirdn2dParams& q) {
        return q.separable ? w.down : std::vector<S>(q.h.taps);
    }

    // Zeros where no row of x or u reaches.
    void clear() {
        const auto zero = [](S* p, std::int64_t elements) { std::fill(p, p + elements, S(0)); };
        zero(xs.zeros, xs.pitch), zero(us.zeros, us.pitch);
        zero(one.separable ? x_row : xs.data, one.separable ? elements_x : xs.slots * xs.pitch);
        const std::int64_t before = (u_begin - across2.base) * kLanes, behind = (u_end - across2.base) * kLanes;
        for (std::int64_t k = 0; k < us.slots; ++k) {
            zero(us.data + k * us.pitch, before);
            zero(us.data + k * us.pitch + behind, us.pitch - behind);
        }
        for (std::int64_t k = 0; k < down2.size; ++k) {
            zero(blended + k * pitch_blended, before);
            zero(blended + k * pitch_blended + behind, pitch_blended - behind);
        }
    }

    // Columns of x that columns [u_begin, u_end) of u need, from across1.base on.
    void read_x(const Planes<T>& from, std::int64_t iy, S* to) {
        const std::int64_t begin = inside(across1.base, one.w.in);
        const std::int64_t end = inside(across1.base + across1.inputs(u_end), one.w.in);
        if (begin < end)
            from.read(static_cast<const T*>(one.x), block, iy, begin, end - begin, bias,
                      to + (begin - across1.base) * kLanes);
    }

    void make_x(const Planes<T>& from, std::int64_t iy) {
        S* to = xs.row(iy);
        if (!one.separable) return read_x(from, iy, to);
        read_x(from, iy, x_row);
        for (const Group<S>& group : across1.groups)
            fir::sum_group<V>(
                group, across1.step * kLanes, across1.periods(u_end),
                [&](std::int64_t t) GE_INLINED { return x_row + (group.input + t) * kLanes; },
                [&](int k, std::int64_t i, V sum)
                    GE_INLINED { store(to + (i * across1.size + group.output + k) * kLanes, sum, false); });
    }

    // The next rows of u: a period of the first filter.
    void make_u(const Planes<T>& from) {
        const std::int64_t row = u_next;
        u_next += down1.size;
        if (passes1) {
            for (std::int64_t r = std::max(row, u_top); r < std::min(u_next, two.h.in); ++r) {
                S* u = u_row(r);
                from.read(static_cast<const T*>(one.x), block, r, u_begin, u_end - u_begin, bias, u);
                const Line c = line(r);
                for (std::int64_t i = 0; i < u_end - u_begin && !linear; ++i) put(c, i, load<V>(u + i * kLanes));
            }
            return;
        }
        const std::int64_t first = down1.base + (row - down1.origin) / down1.size * down1.step;
        for (x_next = std::max(x_next, first); x_next < inside(first + down1.reach, one.h.in); ++x_next)
            make_x(from, x_next);
        if (!one.separable) {
            if (pairs1) return make_u_of_pair(row);
            for (std::int64_t r = std::max(row, u_top); r < std::min(u_next, two.h.in); ++r) make_u_of_matrix(r);
            return;
        }
        for (const Group<S>& group : down1.groups) make_u_of_group(group, row + group.output, first + group.input);
    }

    S* u_row(std::int64_t r) const { return us.row(r) + (u_begin - across2.base) * kLanes; }

    // A row of u from column u_begin on, and its bits; null outside u.
    struct Line {
        S* to = nullptr;
        std::uint8_t *slope = nullptr, *keep = nullptr;
    };
    Line line(std::int64_t r) const {
        if (r < u_top || r >= two.h.in) return {};
        const std::int64_t first = ((block * two.h.in + r) * two.w.in + u_begin) * 2;
        const bool own = p.derives || r < u_bottom;
        const auto at = [&](std::uint8_t* plane) { return plane == nullptr ? nullptr : own ? plane + first : bits; };
        return {u_row(r), at(p.slope), at(p.keep)};
    }
    // Column i of a line.
    GE_INLINE void put(const Line& c, std::int64_t i, V v) const {
        if (!linear) v = p.derives ? derivative(v, c.slope, c.keep, i * kLanes) : act(v, c.slope, c.keep, i * kLanes);
        store(c.to + i * kLanes, v, false);
    }

    void make_u_of_group(const Group<S>& group, std::int64_t row, std::int64_t first) {
        Line lines[4];
        for (int k = 0; k < group.outputs; ++k) lines[k] = line(row + k);
        const std::int64_t skipped = (u_begin - across1.origin) * kLanes;
        fir::sum_group<V>(
            group, kLanes, u_end - u_begin, [&](std::int64_t t) GE_INLINED { return xs.at(first + t) + skipped; },
            [&](int k, std::int64_t i, V sum) GE_INLINED {
                if (lines[k].to != nullptr) put(lines[k], i, sum);
            });
    }

    // Row r of u by a filter that is no outer product.
    void make_u_of_matrix(std::int64_t r) {
        const Line c = line(r);
        const std::int64_t first = down1.first_input(r);
        for (std::int64_t phase = 0; phase < across1.size; ++phase) {
            const std::int64_t o = across1.origin + phase, from = across1.first_input(o) - across1.base;
            const TapsOf tap(one, f, r, o);
            take_taps(one.h.count(r), one.w.count(o), tap,
                      [&](std::int64_t y) { return xs.at(first + y) + from * kLanes; });
            sum_matrix(across1, o, u_end, [&](std::int64_t i, V sum) GE_INLINED {
                const std::int64_t at = phase + i * across1.size - (u_begin - across1.origin);
                if (at >= 0 && at < u_end - u_begin) put(c, at, sum);
            });
        }
    }

    // Rows `row` and row + 1 of u by a mirrored filter, from sums and differences of pairs of rows of x.
    void make_u_of_pair(std::int64_t row) {
        const Line lines[] = {line(row), line(row + 1)};
        const std::int64_t first = down1.first_input(row), half = one.h.taps / 4, odd = one.h.taps / 2 % 2;
        const std::int64_t columns = across1.inputs(u_end), last = one.h.taps / 2 - 1;
        S* const plus = paired1 + one.h.taps / 2 * xs.pitch;
        for (std::int64_t y = 0; y < half; ++y) {
            S *const sums = paired1 + 2 * y * xs.pitch, *const differences = sums + xs.pitch;
            pair(xs.at(first + y), xs.at(first + last - y), columns, sums, differences);
        }
        for (std::int64_t phase = 0; phase < across1.size; ++phase) {
            const std::int64_t o = across1.origin + phase, from = across1.first_input(o) - across1.base;
            const TapsOf tap(one, f, row, o);
            const auto place = [&](std::int64_t i) { return phase + i * across1.size - (u_begin - across1.origin); };
            take_taps(
                half + odd, one.w.count(o),
                [&](std::int64_t y, std::int64_t x) { return (tap(y, x) + tap(last - y, x)) / 2; },
                [&](std::int64_t y) {
                    return (y < half ? paired1 + 2 * y * xs.pitch : xs.at(first + y)) + from * kLanes;
                });
            sum_matrix(across1, o, u_end, [&](std::int64_t i, V sum) GE_INLINED {
                const std::int64_t at = place(i);
                if (at >= 0 && at < u_end - u_begin) store(plus + at * kLanes, sum, false);
            });
            take_taps(
                half, one.w.count(o),
                [&](std::int64_t y, std::int64_t x) { return (tap(y, x) - tap(last - y, x)) / 2; },
                [&](std::int64_t y) { return paired1 + (2 * y + 1) * xs.pitch + from * kLanes; });
            sum_matrix(across1, o, u_end, [&](std::int64_t i, V minus) GE_INLINED {
                const std::int64_t at = place(i);
                if (at < 0 || at >= u_end - u_begin) return;
                const V sum = load<V>(plus + at * kLanes);
                if (lines[0].to != nullptr) put(lines[0], at, sum + minus);
                if (lines[1].to != nullptr) put(lines[1], at, sum - minus);
            });
        }
    }
    // Sums and, where wanted, differences of two rows.
    static void pair(const S* a, const S* b, std::int64_t columns, S* sums, S* differences) {
        for (std::int64_t i = 0; i < columns * kLanes; i += kLanes) {
            const V one = load<V>(a + i), other = load<V>(b + i);
            store(sums + i, one + other, false);
            if (differences != nullptr) store(differences + i, one - other, false);
        }
    }

    // The taps that row r and column o of the output take.
    struct TapsOf {
        const S* first;
        std::int64_t down, across;
        TapsOf(const Upfirdn2dParams& q, const Weights<S>& w, std::int64_t r, std::int64_t o)
            : first(&w.both[q.h.first_tap(r) * q.w.taps + q.w.first_tap(o)]), down(q.h.up * q.w.taps), across(q.w.up) {}
        S operator()(std::int64_t y, std::int64_t x) const { return first[y * down + x * across]; }
    };
    // The taps of sum_matrix that are not 0. at(y) is where row y of the inputs lies.
    template <class Tap, class At>
    void take_taps(std::int64_t rows, std::int64_t columns, const Tap& tap, const At& at) {
        places.clear(), taps.clear();
        for (std::int64_t y = 0; y < rows; ++y)
            for (std::int64_t x = 0; x < columns; ++x)
                if (const S weight = tap(y, x); weight != 0)
                    places.push_back(at(y) + x * kLanes), taps.push_back(weight);
    }
    template <class Done>
    GE_INLINE void sum_matrix(const Periods<S>& across, std::int64_t o, std::int64_t end, const Done& done) {
        const std::int64_t n = (end - o + across.size - 1) / across.size;
        fir::sum_positions<V, 1>(
            taps.data(), std::int64_t(taps.size()), across.step * kLanes, n,
            [&](std::int64_t t) GE_INLINED { return places[t]; },
            [&](int, std::int64_t i, V sum) GE_INLINED { done(i, sum); });
    }

    // The vertical half of the second filter, for a period of rows of y.
    void blend(std::int64_t first) {
        const std::int64_t skipped = (u_begin - across2.base) * kLanes;
        for (const Group<S>& group : down2.groups)
            fir::sum_group<V>(
                group, kLanes, u_end - u_begin,
                [&](std::int64_t t) GE_INLINED { return us.at(first + group.input + t) + skipped; },
                [&](int k, std::int64_t i, V sum) GE_INLINED {
                    store(blended + (group.output + k) * pitch_blended + skipped + i * kLanes, sum, false);
                });
    }

    // Row oy of y, which is row r of its period.
    const S* make_y(std::int64_t oy, std::int64_t r) {
        if (passes2) return us.row(oy);
        if (!two.separable) {
            const std::int64_t first = down2.first_input(oy), paired = pairs2 ? two.h.taps / 2 : 0;
            for (std::int64_t y = 0; y < paired; ++y)
                pair(us.at(first + y), us.at(first + two.h.taps - 1 - y), across2.inputs(right), paired2 + y * us.pitch,
                     nullptr);
            for (std::int64_t phase = 0; phase < across2.size; ++phase) {
                const std::int64_t o = left + phase, from = across2.first_input(o) - across2.base;
                const TapsOf tap(two, g, oy, o);
                take_taps(two.h.count(oy) - paired, two.w.count(o), tap, [&](std::int64_t y) {
                    return (y < paired ? paired2 + y * us.pitch : us.at(first + y)) + from * kLanes;
                });
                sum_matrix(across2, o, right, [&](std::int64_t i, V sum) GE_INLINED {
                    store(out_row + (phase + i * across2.size) * kLanes, sum, false);
                });
            }
            return out_row;
        }
        const S* row = blended + r * pitch_blended;
        for (const Group<S>& group : across2.groups)
            fir::sum_group<V>(
                group, across2.step * kLanes, across2.periods(right),
                [&](std::int64_t t) GE_INLINED { return row + (group.input + t) * kLanes; },
                [&](int k, std::int64_t i, V sum)
                    GE_INLINED { store(out_row + (i * across2.size + group.output + k) * kLanes, sum, false); });
        return out_row;
    }
};

// y is cut into strips of columns whose rings fit into the cache, and into rows where threads want more items. A thread
// has all strips of its rows, because neighbouring strips write some of the same bits.

template <class T>
void run(const FilteredLreluParams& asked, int threads) {
    using S = typename Wide<T>::Scalar;
    const Weights<S> one(asked.first), two(asked.second);
    FilteredLreluParams p = asked;
    p.first.separable = one.separable, p.second.separable = two.separable;
    const std::int64_t h = p.second.h.out, w = p.second.w.out;
    const std::int64_t blocks = Planes<T>(p.first.n, p.first.c, h, w, p.first.channels_last).blocks();
    std::int64_t strips = 1;
    while (w / (2 * strips) >= kNarrowest &&
           Tile<T>(p, one, two, 0, h, 0, (w + strips - 1) / strips).lay_out(nullptr) > kRingBytes)
        strips *= 2;
    const int most = threads_for(p.first.n * p.first.c * p.second.h.in * p.second.w.in, threads);
    const std::int64_t wanted = most == 1 ? 1 : (4 * most + blocks - 1) / blocks;
    const std::int64_t cuts = std::clamp<std::int64_t>(h / kFewestRows, 1, wanted), items = blocks * cuts;
    const int parts = int(std::min<std::int64_t>(most, items));
    in_parallel(parts, [&](int part) {
        for (std::int64_t item = items * part / parts; item < items * (part + 1) / parts; ++item) {
            const std::int64_t cut = item % cuts, top = h * cut / cuts, bottom = h * (cut + 1) / cuts;
            for (std::int64_t k = 0; k < strips; ++k) {
                const std::int64_t left = w * k / strips, right = w * (k + 1) / strips;
                Tile<T> tile(p, one, two, top, bottom, left, right);
                const Buffer memory = buffer(tile.lay_out(nullptr) / 4);
                tile.lay_out(reinterpret_cast<char*>(memory.get()));
                tile.run(item / cuts);
            }
        }
    });
}

}  // namespace

void filtered_lrelu(const FilteredLreluParams& p, int threads) {
    with_dtype(p.first.dtype, [&](auto stored) { run<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
