// Walks over memory [samples, outer, channels, inner]: sums for each statistic, and a function of each element. A
// statistic is one sample and channel; norm_act.h says more about the memory.
#pragma once

#include "../norm_act.h"

#include <cstring>
#include <type_traits>
#include <vector>

#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace norm_rows {

// So many rows of neighbouring channels are read at a time, in the order of memory.
constexpr int kAtOnce = 4;
// sums_of_rows adds so many numbers for each lane in their own type, and then such sums in double.
constexpr int kFewAdded = 16;

// Memory as rows. A row is one (outer, channel) with `inner` numbers of one channel. Where inner is 1, a row is one
// (sample, outer) with `channels` numbers of neighbouring channels.
struct Rows {
    const NormActShape& s;
    const bool neighbours = s.inner == 1;
    const std::int64_t count = s.samples * s.outer * (neighbours ? 1 : s.channels);
    const std::int64_t length = neighbours ? s.channels : s.inner;
    const std::int64_t stats = s.samples * s.channels;

    std::int64_t first_stat(std::int64_t row) const {
        return neighbours ? row / s.outer * s.channels : row % s.channels;
    }
    // The number of rows from `row` to `end` that belong to the sample of `row`.
    std::int64_t in_sample(std::int64_t row, std::int64_t end) const {
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

// v, with 0 in the lanes from `lanes` on.
template <class V>
GE_INLINE V first(V v, std::int64_t lanes) {
    if (lanes == kLanes) return v;
    Element<V> each[kLanes];
    store(each, v, false);
    return load_some<V>(each, lanes);
}

template <class V>
struct Pair {
    V a, b;
};
template <class V, int K>
struct Several {
    V v[K];
};

// body(row, first statistic, number of rows) for several rows of one sample at a time.
template <int at_once = kAtOnce, class Body>
GE_INLINE void side_by_side(const Rows& rows, std::int64_t row, std::int64_t end, const Body& body) {
    while (row < end) {
        const std::int64_t first = rows.first_stat(row), stop = row + rows.in_sample(row, end);
        for (; row + at_once <= stop; row += at_once) body(row, first, std::integral_constant<int, at_once>{});
        for (; row < stop; ++row) body(row, first, std::integral_constant<int, 1>{});
    }
}

struct Sums {
    VecD a{}, ab{};
    template <class V>
    GE_INLINE void add(const Pair<V>& terms) {
        const VecD wide = widen(terms.a);
        a += wide, ab += wide * widen(terms.b);
    }
    GE_INLINE void add(const Sums& other) { a += other.a, ab += other.ab; }
};

// to[k] += number k of v, for the first `lanes` numbers.
GE_INLINE void add_to(double* to, VecD v, std::int64_t lanes) {
    store_up_to(to, lanes, load_up_to<VecD>(to, lanes) + v);
}

// total[c] and total[stats + c]: the numbers of the sums of statistic c.
[[gnu::noinline]] inline void add_lanes(const std::vector<Sums>& sums, double* total) {
    for (std::size_t c = 0; c < sums.size(); ++c) total[c] = sum(sums[c].a), total[sums.size() + c] = sum(sums[c].ab);
}

// Whether the registers hold the sums of even and of odd vectors, so that few additions wait for each other. Narrower
// registers have no room for that, and need more additions for a vector anyway.
constexpr bool kTwoSums = kRegisterBytes >= 64;

// K numbers for each statistic. same_for_all gives them to 16 elements of statistic c; one_for_each gives them to one
// element of each of the statistics c, c + 1, ...
template <class S, class V, int K>
struct Table {
    std::int64_t stats;
    std::vector<S> rows;
    explicit Table(std::int64_t stats_) : stats(stats_), rows(K * stats_) {}
    S& at(int k, std::int64_t c) { return rows[k * stats + c]; }
    struct Values {
        V v[K];
    };
    GE_INLINE Values same_for_all(std::int64_t c) const {
        Values values;
        for (int k = 0; k < K; ++k) values.v[k] = splat<V>(rows[k * stats + c]);
        return values;
    }
    GE_INLINE Values one_for_each(std::int64_t c, std::int64_t lanes) const {
        Values values;
        for (int k = 0; k < K; ++k) values.v[k] = get<V>(rows.data() + k * stats + c, lanes);
        return values;
    }
};

// [2, stats]: the sums of a and a * b for each statistic, in double. terms.terms(offset, values, lanes) gives a and b
// of 16 elements, where `values` are the numbers of the table for their statistics.
template <class T, class Terms>
std::vector<double> channel_sums(const NormActShape& shape, const Terms& terms, int threads) {
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
                const auto values = terms.same_for_all(c);
                Sums even = of_channel[c], others;
                Sums& odd = kTwoSums ? others : even;
                std::int64_t i = 0;
                for (; kTwoSums && i + 2 * kLanes <= whole; i += 2 * kLanes) {
                    even.add(terms.terms(start + i, values, kLanes));
                    odd.add(terms.terms(start + i + kLanes, values, kLanes));
                }
                for (; i < whole; i += kLanes) even.add(terms.terms(start + i, values, kLanes));
                if (rest > 0) odd.add(terms.terms(start + whole, values, rest));
                even.add(others);
                of_channel[c] = even;
            }
            return add_lanes(of_channel, total);
        }
        side_by_side(rows, begin, end, [&](std::int64_t row, std::int64_t first, auto several) {
            const auto column = [&](std::int64_t c, std::int64_t lanes) {
                const auto values = terms.one_for_each(first + c, lanes);
                Sums sums;
                if constexpr (Terms::kWide) {
                    for (int j = 0; j < decltype(several)::value; ++j)
                        sums.add(terms.terms((row + j) * rows.length + c, values, lanes));
                } else {
                    V a{}, ab{};
                    for (int j = 0; j < decltype(several)::value; ++j) {
                        const Pair<V> pair = terms.terms((row + j) * rows.length + c, values, lanes);
                        a += pair.a, ab += pair.a * pair.b;
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

// [K, stats]: K sums for each statistic, in double. terms.terms(offset, values, lanes) gives K numbers of 16 elements.
template <class T, class Terms, int K = Terms::kSums>
std::vector<double> sums_of_rows(const NormActShape& shape, const Terms& terms, int threads) {
    using V = typename Wide<T>::Vec;
    const Rows rows{shape};
    const int parts = rows.parts(threads);
    std::vector<double> partial(K * rows.stats * parts);
    in_parallel(parts, [&](int part) {
        double* total = partial.data() + K * rows.stats * part;
        const std::int64_t begin = rows.count * part / parts, end = rows.count * (part + 1) / parts;
        const auto add = [](Several<V, K>& sums, const Several<V, K>& more) {
            for (int k = 0; k < K; ++k) sums.v[k] += more.v[k];
        };
        if (!rows.neighbours) {
            for (std::int64_t row = begin; row < end; ++row) {
                const std::int64_t c = rows.first_stat(row), last = (row + 1) * rows.length;
                const auto values = terms.same_for_all(c);
                for (std::int64_t i = row * rows.length; i < last;) {
                    const std::int64_t stop = last - i < kFewAdded * kLanes ? last : i + kFewAdded * kLanes;
                    Several<V, K> sums{};
                    for (; i + kLanes <= stop; i += kLanes) add(sums, terms.terms(i, values, kLanes));
                    if (i < stop) add(sums, terms.terms(i, values, stop - i));
                    i = stop;
                    for (int k = 0; k < K; ++k) total[k * rows.stats + c] += sum(sums.v[k]);
                }
            }
            return;
        }
        side_by_side<kFewAdded>(rows, begin, end, [&](std::int64_t row, std::int64_t first, auto several) {
            const auto column = [&](std::int64_t c, std::int64_t lanes) {
                const auto values = terms.one_for_each(first + c, lanes);
                Several<V, K> sums{};
                for (int j = 0; j < decltype(several)::value; ++j)
                    add(sums, terms.terms((row + j) * rows.length + c, values, lanes));
                for (int k = 0; k < K; ++k) add_to(total + k * rows.stats + first + c, widen(sums.v[k]), lanes);
            };
            const std::int64_t whole = rows.length / kLanes * kLanes, rest = rows.length - whole;
            for (std::int64_t c = 0; c < whole; c += kLanes) column(c, kLanes);
            if (rest > 0) column(whole, rest);
        });
    });
    for (int part = 1; part < parts; ++part)
        for (std::int64_t i = 0; i < K * rows.stats; ++i) partial[i] += partial[K * rows.stats * part + i];
    return partial;
}

// Calls map(offset, values, lanes) for all elements, 16 at a time. `values` are the numbers of the table for their
// statistics.
template <class T, class Map>
void for_all(const NormActShape& shape, const Map& map, int threads) {
    const Rows rows{shape};
    const int parts = rows.parts(threads);
    const std::int64_t whole = rows.length / kLanes * kLanes, rest = rows.length - whole;
    in_parallel(parts, [&](int k) {
        const std::int64_t begin = rows.count * k / parts, end = rows.count * (k + 1) / parts;
        if (!rows.neighbours) {
            for (std::int64_t row = begin; row < end; ++row) {
                const auto values = map.same_for_all(rows.first_stat(row));
                const std::int64_t start = row * rows.length;
                for (std::int64_t i = 0; i < whole; i += kLanes) map(start + i, values, kLanes);
                if (rest > 0) map(start + whole, values, rest);
            }
            return;
        }
        side_by_side(rows, begin, end, [&](std::int64_t row, std::int64_t first, auto several) {
            const auto column = [&](std::int64_t c, std::int64_t lanes) {
                const auto values = map.one_for_each(first + c, lanes);
                for (int j = 0; j < decltype(several)::value; ++j) map((row + j) * rows.length + c, values, lanes);
            };
            for (std::int64_t c = 0; c < whole; c += kLanes) column(c, kLanes);
            if (rest > 0) column(whole, rest);
        });
    });
}

}  // namespace norm_rows
}  // namespace GE_ISA
}  // namespace gan_engine
