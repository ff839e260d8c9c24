#include "norm_act_rows.h"

#include <cmath>

namespace gan_engine {
namespace GE_ISA {
namespace {

using namespace norm_rows;

// The columns of the table. With c = x - mean and dz = dy * act'(z):
//
//   d_dy = act'(z) (scale v + dy_of_c c + dy_offset)     d_x = of_dz dz + of_v v + of_c c + offset
enum { kMean, kScale, kBias, kDyOfC, kDyOffset, kOfDz, kOfV, kOfC, kOffset, kColumns };

// The sums of the first pass.
enum { kDz, kDzC, kV, kVC, kVDz, kNumSums };

template <class T, class S, class V>
struct Second : Table<S, V, kColumns> {
    static constexpr int kSums = kNumSums;
    using Values = typename Table<S, V, kColumns>::Values;
    const T *dy, *x, *v;
    T *d_dy, *d_x;
    S slope;

    explicit Second(const NormActSecondParams& p)
        : Table<S, V, kColumns>(p.shape.samples * p.shape.channels),
          dy(static_cast<const T*>(p.dy)),
          x(static_cast<const T*>(p.x)),
          v(static_cast<const T*>(p.v)),
          d_dy(static_cast<T*>(p.d_dy)),
          d_x(static_cast<T*>(p.d_x)),
          slope(S(p.slope)) {}

    struct Element {
        V c, slope, dz, v;
    };
    GE_INLINE Element element(std::int64_t i, const Values& values, std::int64_t lanes) const {
        const V c = get<V>(x + i, lanes) - values.v[kMean];
        const V m = select(c * values.v[kScale] + values.v[kBias] > 0, splat<V>(1), splat<V>(slope));
        return {c, m, m * get<V>(dy + i, lanes), get<V>(v + i, lanes)};
    }
    // dy and v are 0 beside the lanes, so c may be anything there.
    GE_INLINE Several<V, kSums> terms(std::int64_t i, const Values& values, std::int64_t lanes) const {
        const Element e = element(i, values, lanes);
        return {{e.dz, e.dz * e.c, e.v, e.v * e.c, e.v * e.dz}};
    }
    GE_INLINE void operator()(std::int64_t i, const Values& values, std::int64_t lanes) const {
        const Element e = element(i, values, lanes);
        const V from_dx = values.v[kScale] * e.v + values.v[kDyOfC] * e.c + values.v[kDyOffset];
        put(d_dy + i, e.slope * from_dx, lanes);
        const V of_two = values.v[kOfDz] * e.dz + values.v[kOfV] * e.v;
        put(d_x + i, of_two + values.v[kOfC] * e.c + values.v[kOffset], lanes);
    }
};

template <class T>
void second(const NormActSecondParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    Second<T, S, typename Wide<T>::Vec> second(p);
    const auto number = [](const void* numbers, std::int64_t i) {
        return numbers == nullptr ? 0.0 : double(static_cast<const S*>(numbers)[i]);
    };
    const auto r_of = [&](std::int64_t c) { return 1 / std::sqrt(number(p.var, c) + p.eps); };
    for (std::int64_t c = 0; c < second.stats; ++c) {
        second.at(kMean, c) = S(number(p.mean, c));
        second.at(kScale, c) = S(number(p.w, c % p.shape.features) * r_of(c));
        second.at(kBias, c) = S(number(p.b, c % p.shape.features));
    }
    const std::vector<double> total = sums_of_rows<T>(p.shape, second, threads);
    const double n = double(p.shape.outer) * double(p.shape.inner);
    for (std::int64_t c = 0; c < second.stats; ++c) {
        const auto mean = [&](int k) { return total[k * second.stats + c] / n; };
        const std::int64_t feature = c % p.shape.features;
        const double r = r_of(c), w = number(p.w, feature), v_w = number(p.v_w, feature), v_b = number(p.v_b, feature);
        // The mean of v (dz - its mean - its part along c), and what is left of v_w: of_dz and of_v are r times these.
        double along = mean(kVDz), of_dz = v_w, of_v = 0;
        second.at(kDyOfC, c) = S(v_w * r), second.at(kDyOffset, c) = S(v_b);
        second.at(kOfC, c) = second.at(kOffset, c) = S(0);
        if (!p.constant_stats) {
            const double dz_c = r * r * mean(kDzC), v_c = r * r * mean(kVC);
            along -= mean(kV) * mean(kDz) + v_c * mean(kDzC);
            of_dz -= w * v_c, of_v -= w * dz_c;
            second.at(kDyOfC, c) = S(v_w * r - w * r * v_c);
            second.at(kDyOffset, c) = S(v_b - w * r * mean(kV));
            second.at(kOfC, c) = S(-r * (of_dz * dz_c + of_v * v_c) - r * r * r * w * along);
            second.at(kOffset, c) = S(-r * (of_dz * mean(kDz) + of_v * mean(kV)));
        }
        second.at(kOfDz, c) = S(r * of_dz), second.at(kOfV, c) = S(r * of_v);
        static_cast<S*>(p.d_w)[c] = S(r * n * along);
    }
    for_all<T>(p.shape, second, threads);
}

}  // namespace

void norm_act_second(const NormActSecondParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { second<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
