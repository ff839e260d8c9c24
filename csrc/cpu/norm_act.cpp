#include "../norm_act.h"

#include <cmath>
#include <vector>

#include "norm_act_rows.h"
#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

using namespace norm_rows;

// Sums of x - shift and (x - shift)^2. shift is the first element of the channel, so that little cancels.
template <class T, class S, class V>
struct StatsTerms : Table<S, V, 1> {
    static constexpr bool kWide = true;  // squares are computed in double: shift may be far from the other elements
    const T* x;
    StatsTerms(const NormActShape& s, const T* x_) : Table<S, V, 1>(s.samples * s.channels), x(x_) {
        for (std::int64_t i = 0; i < s.samples; ++i)
            for (std::int64_t c = 0; c < s.channels; ++c)
                this->at(0, i * s.channels + c) = load_some<V>(x + (i * s.outer * s.channels + c) * s.inner, 1)[0];
    }
    GE_INLINE Pair<V> terms(std::int64_t i, const typename Table<S, V, 1>::Values& values, std::int64_t lanes) const {
        const V u = first(get<V>(x + i, lanes) - values.v[0], lanes);
        return {u, u};
    }
};

template <class T>
void stats(const NormStatsParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    StatsTerms<T, S, typename Wide<T>::Vec> terms(p.shape, static_cast<const T*>(p.x));
    const std::vector<double> total = channel_sums<T>(p.shape, terms, threads);
    const double n = double(p.shape.outer) * double(p.shape.inner);
    for (std::int64_t c = 0; c < terms.stats; ++c) {
        const double mean = total[c] / n, var = total[terms.stats + c] / n - mean * mean;
        static_cast<S*>(p.mean)[c] = S(double(terms.at(0, c)) + mean);
        static_cast<S*>(p.var)[c] = S(var > 0 || var != var ? var : 0);
    }
}

// The columns of the table.
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
    S slope;
    explicit Apply(const NormActParams& p)
        : Table<S, V, 3>(p.shape.samples * p.shape.channels),
          x(static_cast<const T*>(p.x)),
          y(static_cast<T*>(p.y)),
          slope(S(p.slope)) {
        fill(*this, p);
    }
    GE_INLINE void operator()(std::int64_t i, const typename Table<S, V, 3>::Values& values, std::int64_t lanes) const {
        const V z = (get<V>(x + i, lanes) - values.v[kMean]) * values.v[kScale] + values.v[kBias];
        put(y + i, select(z > 0, z, splat<V>(slope) * z), lanes);
    }
};

// With dz = dy * act'(z): the sums of dz and dz * (x - mean), then dx = of_dz * dz + of_x * (x - mean) + offset.
template <class T, class S, class V>
struct Gradient : Table<S, V, 6> {
    static constexpr bool kWide = false;
    using Values = typename Table<S, V, 6>::Values;
    const T *dy, *x;
    T* dx;
    S slope;
    explicit Gradient(const NormActGradParams& p)
        : Table<S, V, 6>(p.shape.samples * p.shape.channels),
          dy(static_cast<const T*>(p.dy)),
          x(static_cast<const T*>(p.x)),
          dx(static_cast<T*>(p.dx)),
          slope(S(p.slope)) {
        fill(*this, p);
    }
    GE_INLINE V dz(std::int64_t i, const Values& values, std::int64_t lanes, V centred) const {
        const V g = get<V>(dy + i, lanes);
        return select(centred * values.v[kScale] + values.v[kBias] > 0, g, splat<V>(slope) * g);
    }
    GE_INLINE Pair<V> terms(std::int64_t i, const Values& values, std::int64_t lanes) const {
        const V centred = get<V>(x + i, lanes) - values.v[kMean];
        return {dz(i, values, lanes, centred), centred};
    }
    GE_INLINE void operator()(std::int64_t i, const Values& values, std::int64_t lanes) const {
        const V centred = get<V>(x + i, lanes) - values.v[kMean];
        put(dx + i, values.v[kOfDz] * dz(i, values, lanes, centred) + values.v[kOfX] * centred + values.v[kOffset],
            lanes);
    }
};

template <class T>
void grad(const NormActGradParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    Gradient<T, S, typename Wide<T>::Vec> gradient(p);
    const std::vector<double> total = channel_sums<T>(p.shape, gradient, threads);
    const double n = double(p.shape.outer) * double(p.shape.inner);
    for (std::int64_t c = 0; c < gradient.stats; ++c) {
        const double sum_dz = total[c], sum_x = total[gradient.stats + c];
        const double r = 1 / std::sqrt(double(static_cast<const S*>(p.var)[c]) + p.eps), scale = gradient.at(kScale, c);
        static_cast<S*>(p.db)[c] = S(sum_dz);
        static_cast<S*>(p.dw)[c] = S(sum_x * r);
        gradient.at(kOfDz, c) = S(scale);
        gradient.at(kOfX, c) = p.constant_stats ? S(0) : S(-scale * r * r * sum_x / n);
        gradient.at(kOffset, c) = p.constant_stats ? S(0) : S(-scale * sum_dz / n);
    }
    for_all<T>(p.shape, gradient, threads);
}

template <class T>
void apply(const NormActParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    for_all<T>(p.shape, Apply<T, S, typename Wide<T>::Vec>(p), threads);
}

}  // namespace

void norm_stats(const NormStatsParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { stats<typename decltype(stored)::T>(p, threads); });
}

void norm_act(const NormActParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { apply<typename decltype(stored)::T>(p, threads); });
}

void norm_act_grad(const NormActGradParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { grad<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
