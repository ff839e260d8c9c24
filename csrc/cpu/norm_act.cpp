#include "../norm_act.h"

#include <cmath>
#include <vector>

#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// Rows of neighbouring channels are read so many at a time, in the order in which they lie in memory.
constexpr std::int64_t kAtOnce = 4;

// A walk over memory in rows: one (outer, channel) of `inner` numbers of one channel, or, where inner is 1, one
// (sample, outer) of `channels` numbers of neighbouring channels.
struct Rows {
    const NormActShape& s;
    const bool neighbours = s.inner == 1;
    const std::int64_t count = s.samples * s.outer * (neighbours ? 1 : s.channels);
    const std::int64_t length = neighbours ? s.channels : s.inner;
    const std::int64_t stats = s.samples * s.channels;

    std::int64_t first_stat(std::int64_t row) const {
        return neighbours ? row / s.outer * s.channels : row % s.channels;
    }
    // How many rows from `row` on, before `end`, belong to the same sample.
    std::int64_t same(std::int64_t row, std::int64_t end) const {
        const std::int64_t stop = (row / s.outer + 1) * s.outer;
        return (stop < end ? stop : end) - row;
    }
    int parts(int threads) const {
        const int most = threads_for(count * length, threads);
        return count < most ? int(count) : most;
    }
};

template <class V, class T>
GE_INLINE V get(const T* p, std::int64_t lanes) {
    return lanes == kLanes ? load(p) : load_some<V>(p, lanes);
}
template <class V, class T>
GE_INLINE void put(T* p, V v, std::int64_t lanes) {
    lanes == kLanes ? store(p, v, false) : store_some(p, v, lanes);
}

template <class V>
struct Pair {
    V a, b;
};

// body(row, first stat, number of rows), several rows of one sample at a time.
template <class Body>
GE_INLINE void side_by_side(const Rows& rows, std::int64_t row, std::int64_t end, const Body& body) {
    while (row < end) {
        const std::int64_t first = rows.first_stat(row), stop = row + rows.same(row, end);
        for (; row + kAtOnce <= stop; row += kAtOnce) body(row, first, std::integral_constant<int, kAtOnce>{});
        for (; row < stop; ++row) body(row, first, std::integral_constant<int, 1>{});
    }
}

// Sixteen doubles as two registers: a vector of all sixteen would live in memory (GCC 12), 4 times as slow to add to.
using Eight = double __attribute__((vector_size(64)));
struct Doubles {
    Eight low{}, high{};
};

GE_INLINE Doubles widen(VecF v) {
#if defined(__AVX512DQ__)
    return {(Eight)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)),
            (Eight)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1))};
#else
    float __attribute__((vector_size(32))) half[2];
    std::memcpy(half, &v, sizeof v);
    return {__builtin_convertvector(half[0], Eight), __builtin_convertvector(half[1], Eight)};
#endif
}
GE_INLINE Doubles widen(VecD v) {
    Doubles d;
    std::memcpy(&d, &v, sizeof v);
    return d;
}

struct Sums {
    Doubles a, ab;
    template <class V>
    GE_INLINE void add(const Pair<V>& terms) {
        const Doubles wide = widen(terms.a), by = widen(terms.b);
        a.low += wide.low, a.high += wide.high;
        ab.low += wide.low * by.low, ab.high += wide.high * by.high;
    }
    void add(const Sums& other) {
        a.low += other.a.low, a.high += other.a.high;
        ab.low += other.ab.low, ab.high += other.ab.high;
    }
};

inline double across(const Doubles& d) {
    VecD v;
    std::memcpy(&v, &d, sizeof v);
    return sum(v);
}

// to[lane] += d's, for the first of them.
inline void add_to(double* to, const Doubles& d, std::int64_t lanes) {
    double v[kLanes];
    std::memcpy(v, &d, sizeof v);
    for (int k = 0; k < lanes; ++k) to[k] += v[k];
}

// [2, stats]: the sums of a and of a * b in double, where pass.terms(offset, values, lanes) gives a and b of 16
// elements.
template <class T, class Pass>
std::vector<double> sums(const NormActShape& shape, const Pass& pass, int threads) {
    using V = typename Wide<T>::Vec;
    const Rows rows{shape};
    const int parts = rows.parts(threads);
    std::vector<double> partial(2 * rows.stats * parts);
    const std::int64_t whole = rows.length / kLanes * kLanes, rest = rows.length - whole;
    in_parallel(parts, [&](int k) {
        double* total = partial.data() + 2 * rows.stats * k;
        const std::int64_t begin = rows.count * k / parts, end = rows.count * (k + 1) / parts;
        if (!rows.neighbours) {
            std::vector<Sums> of_channel(rows.stats);
            for (std::int64_t row = begin; row < end; ++row) {
                const std::int64_t c = rows.first_stat(row), start = row * rows.length;
                const auto of = pass.splat_of(c);
                Sums even = of_channel[c], odd;
                std::int64_t i = 0;
                for (; i + 2 * kLanes <= whole; i += 2 * kLanes) {
                    even.add(pass.terms(start + i, of, kLanes));
                    odd.add(pass.terms(start + i + kLanes, of, kLanes));
                }
                if (i < whole) even.add(pass.terms(start + i, of, kLanes));
                if (rest > 0) odd.add(pass.terms(start + whole, of, rest));
                even.add(odd);
                of_channel[c] = even;
            }
            for (std::int64_t c = 0; c < rows.stats; ++c) {
                total[c] = across(of_channel[c].a);
                total[rows.stats + c] = across(of_channel[c].ab);
            }
            return;
        }
        side_by_side(rows, begin, end, [&](std::int64_t row, std::int64_t first, auto several) {
            const auto column = [&](std::int64_t c, std::int64_t lanes) {
                const auto of = pass.from(first + c, lanes);
                Sums sums;
                if constexpr (Pass::kWide) {
                    for (int j = 0; j < decltype(several)::value; ++j)
                        sums.add(pass.terms((row + j) * rows.length + c, of, lanes));
                } else {
                    V a{}, ab{};
                    for (int j = 0; j < decltype(several)::value; ++j) {
                        const Pair<V> terms = pass.terms((row + j) * rows.length + c, of, lanes);
                        a += terms.a, ab += terms.a * terms.b;
                    }
                    sums = {widen(a), widen(ab)};
                }
                add_to(total + first + c, sums.a, lanes);
                add_to(total + rows.stats + first + c, sums.ab, lanes);
            };
            for (std::int64_t c = 0; c < whole; c += kLanes) column(c, kLanes);
            if (rest > 0) column(whole, rest);
        });
    });
    for (int k = 1; k < parts; ++k)
        for (std::int64_t i = 0; i < 2 * rows.stats; ++i) partial[i] += partial[2 * rows.stats * k + i];
    return partial;
}

// map(offset, stat(s), lanes) for all elements, 16 at a time.
template <class T, class Map>
void each(const NormActShape& shape, const Map& map, int threads) {
    const Rows rows{shape};
    const int parts = rows.parts(threads);
    const std::int64_t whole = rows.length / kLanes * kLanes, rest = rows.length - whole;
    in_parallel(parts, [&](int k) {
        const std::int64_t begin = rows.count * k / parts, end = rows.count * (k + 1) / parts;
        if (!rows.neighbours) {
            for (std::int64_t row = begin; row < end; ++row) {
                const auto of = map.splat_of(rows.first_stat(row));
                const std::int64_t start = row * rows.length;
                for (std::int64_t i = 0; i < whole; i += kLanes) map(start + i, of, kLanes);
                if (rest > 0) map(start + whole, of, rest);
            }
            return;
        }
        side_by_side(rows, begin, end, [&](std::int64_t row, std::int64_t first, auto several) {
            const auto column = [&](std::int64_t c, std::int64_t lanes) {
                const auto of = map.from(first + c, lanes);
                for (int j = 0; j < decltype(several)::value; ++j) map((row + j) * rows.length + c, of, lanes);
            };
            for (std::int64_t c = 0; c < whole; c += kLanes) column(c, kLanes);
            if (rest > 0) column(whole, rest);
        });
    });
}

// Rows of K numbers for each stat, given to 16 elements of one stat, or to those of 16 neighbouring ones.
template <class S, class V, int K>
struct Table {
    std::int64_t stats;
    std::vector<S> rows;
    explicit Table(std::int64_t stats_) : stats(stats_), rows(K * stats_) {}
    S& at(int k, std::int64_t c) { return rows[k * stats + c]; }
    struct Values {
        V v[K];
    };
    GE_INLINE Values splat_of(std::int64_t c) const {
        Values values;
        for (int k = 0; k < K; ++k) values.v[k] = splat<V>(rows[k * stats + c]);
        return values;
    }
    GE_INLINE Values from(std::int64_t c, std::int64_t lanes) const {
        Values values;
        for (int k = 0; k < K; ++k) values.v[k] = get<V>(rows.data() + k * stats + c, lanes);
        return values;
    }
};

// Sums of x - shift and (x - shift)^2, where shift is the channel's first element, so that little cancels.
template <class T, class S, class V>
struct StatsTerms : Table<S, V, 1> {
    static constexpr bool kWide = true;  // squares are taken in double: that first element may lie far from the rest
    const T* x;
    StatsTerms(const NormActShape& s, const T* x_) : Table<S, V, 1>(s.samples * s.channels), x(x_) {
        for (std::int64_t i = 0; i < s.samples; ++i)
            for (std::int64_t c = 0; c < s.channels; ++c)
                this->at(0, i * s.channels + c) = load_some<V>(x + (i * s.outer * s.channels + c) * s.inner, 1)[0];
    }
    GE_INLINE Pair<V> terms(std::int64_t i, const typename Table<S, V, 1>::Values& of, std::int64_t lanes) const {
        V u = get<V>(x + i, lanes) - of.v[0];
        for (int k = int(lanes); k < kLanes; ++k) u[k] = 0;
        return {u, u};
    }
};

template <class T>
void stats(const NormStatsParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    StatsTerms<T, S, typename Wide<T>::Vec> terms(p.shape, static_cast<const T*>(p.x));
    const std::vector<double> total = sums<T>(p.shape, terms, threads);
    const double n = double(p.shape.outer) * double(p.shape.inner);
    for (std::int64_t c = 0; c < terms.stats; ++c) {
        const double mean = total[c] / n, var = total[terms.stats + c] / n - mean * mean;
        static_cast<S*>(p.mean)[c] = S(double(terms.at(0, c)) + mean);
        static_cast<S*>(p.var)[c] = S(var > 0 || var != var ? var : 0);
    }
}

enum { kMean, kScale, kBias, kOfDz, kOfX, kOffset };

template <class P, class TableOf>
void fill(TableOf& table, const P& p) {
    using S = std::remove_reference_t<decltype(table.at(0, 0))>;
    for (std::int64_t c = 0; c < table.stats; ++c) {
        const std::int64_t feature = c % p.shape.features;
        table.at(kMean, c) = static_cast<const S*>(p.mean)[c];
        table.at(kScale, c) =
            S(double(static_cast<const S*>(p.w)[feature]) / std::sqrt(double(static_cast<const S*>(p.var)[c]) + p.eps));
        table.at(kBias, c) = static_cast<const S*>(p.b)[feature];
    }
}

template <class T, class S, class V>
struct Apply : Table<S, V, 3> {
    const T* x;
    T* y;
    V slope;
    explicit Apply(const NormActParams& p)
        : Table<S, V, 3>(p.shape.samples * p.shape.channels),
          x(static_cast<const T*>(p.x)),
          y(static_cast<T*>(p.y)),
          slope(splat<V>(S(p.slope))) {
        fill(*this, p);
    }
    GE_INLINE void operator()(std::int64_t i, const typename Table<S, V, 3>::Values& of, std::int64_t lanes) const {
        const V z = (get<V>(x + i, lanes) - of.v[kMean]) * of.v[kScale] + of.v[kBias];
        put(y + i, z > 0 ? z : slope * z, lanes);
    }
};

// dz = dy * act'(z); its sums alone and with x - mean; then dx = of_dz * dz + of_x * (x - mean) + offset.
template <class T, class S, class V>
struct Grad : Table<S, V, 6> {
    static constexpr bool kWide = false;
    using Values = typename Table<S, V, 6>::Values;
    const T *dy, *x;
    T* dx;
    V slope;
    explicit Grad(const NormActGradParams& p)
        : Table<S, V, 6>(p.shape.samples * p.shape.channels),
          dy(static_cast<const T*>(p.dy)),
          x(static_cast<const T*>(p.x)),
          dx(static_cast<T*>(p.dx)),
          slope(splat<V>(S(p.slope))) {
        fill(*this, p);
    }
    GE_INLINE V dz(std::int64_t i, const Values& of, std::int64_t lanes, V centred) const {
        const V g = get<V>(dy + i, lanes);
        return centred * of.v[kScale] + of.v[kBias] > 0 ? g : slope * g;
    }
    GE_INLINE Pair<V> terms(std::int64_t i, const Values& of, std::int64_t lanes) const {
        const V centred = get<V>(x + i, lanes) - of.v[kMean];
        return {dz(i, of, lanes, centred), centred};
    }
    GE_INLINE void operator()(std::int64_t i, const Values& of, std::int64_t lanes) const {
        const V centred = get<V>(x + i, lanes) - of.v[kMean];
        put(dx + i, of.v[kOfDz] * dz(i, of, lanes, centred) + of.v[kOfX] * centred + of.v[kOffset], lanes);
    }
};

template <class T>
void grad(const NormActGradParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    Grad<T, S, typename Wide<T>::Vec> pass(p);
    const std::vector<double> total = sums<T>(p.shape, pass, threads);
    const double n = double(p.shape.outer) * double(p.shape.inner);
    for (std::int64_t c = 0; c < pass.stats; ++c) {
        const double of_z = total[c], of_x = total[pass.stats + c];
        const double r = 1 / std::sqrt(double(static_cast<const S*>(p.var)[c]) + p.eps), scale = pass.at(kScale, c);
        static_cast<S*>(p.db)[c] = S(of_z);
        static_cast<S*>(p.dw)[c] = S(of_x * r);
        pass.at(kOfDz, c) = S(scale);
        pass.at(kOfX, c) = p.constant_stats ? S(0) : S(-scale * r * r * of_x / n);
        pass.at(kOffset, c) = p.constant_stats ? S(0) : S(-scale * of_z / n);
    }
    each<T>(p.shape, pass, threads);
}

template <class T>
void apply(const NormActParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    each<T>(p.shape, Apply<T, S, typename Wide<T>::Vec>(p), threads);
}

}  // namespace

#define GE_WITH_TYPE(function, p, threads)                            \
    switch (p.dtype) {                                                \
        case DType::kFloat32: return function<float>(p, threads);     \
        case DType::kFloat64: return function<double>(p, threads);    \
        case DType::kBFloat16: return function<BFloat16>(p, threads); \
        case DType::kFloat16: return function<Float16>(p, threads);   \
    }

void norm_stats(const NormStatsParams& p, int threads) { GE_WITH_TYPE(stats, p, threads) }
void norm_act(const NormActParams& p, int threads) { GE_WITH_TYPE(apply, p, threads) }
void norm_act_grad(const NormActGradParams& p, int threads) { GE_WITH_TYPE(grad, p, threads) }

}  // namespace GE_ISA
}  // namespace gan_engine
