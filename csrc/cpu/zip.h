// Numbers of two vectors in another order.
#pragma once

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

// The order of the numbers of two registers a and b of n numbers, where number n + k is number k of b.
struct Evens {
    static constexpr int from(int k, int) { return 2 * k; }
};
struct Odds {
    static constexpr int from(int k, int) { return 2 * k + 1; }
};
struct Low {
    static constexpr int from(int k, int n) { return k / 2 + k % 2 * n; }
};
struct High {
    static constexpr int from(int k, int n) { return n / 2 + k / 2 + k % 2 * n; }
};

template <class Order, class R, int... k>
GE_INLINE R pick(R a, R b, std::integer_sequence<int, k...>) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, Order::from(k, sizeof...(k))...);
#else
    return __builtin_shuffle(a, b, MaskOf<R>{Order::from(k, sizeof...(k))...});
#endif
}
template <class Order, class R>
GE_INLINE R pick(R a, R b) {
    return pick<Order>(a, b, std::make_integer_sequence<int, kLanesOf<R>>());
}

// One of two rows of a matrix after blocks of b x b numbers beside its diagonal changed places.
template <int b, bool last>
struct Exchanged {
    static constexpr int from(int k, int n) {
        if (last) return (k & b) == 0 ? k + b : k + n;
        return (k & b) == 0 ? k : k - b + n;
    }
};

// Numbers of a and b in turns, one or two at a time, within parts of four numbers: those of the first or second half of
// each part.
template <int numbers, bool second>
struct WithinFours {
    static constexpr int from(int k, int n) {
        const int place = k % 4, of_b = numbers == 1 ? place % 2 : place / 2;
        return k - place + (second ? 2 : 0) + (numbers == 1 ? place / 2 : place % 2) + (of_b ? n : 0);
    }
};

// v[i][k] becomes v[k][i] in registers: blocks beside the diagonal change places, half as large in each round. Where a
// register has parts of 16 bytes, each instruction of the last two rounds stays within them.
template <class R, int b = kLanesOf<R> / 2>
GE_INLINE void transpose_square(R (&v)[kLanesOf<R>]) {
    constexpr int n = kLanesOf<R>;
    if constexpr (b == 2 && sizeof(v[0][0]) == 4) {
        for (int i = 0; i < n; i += 4) {
            const R low_0 = pick<WithinFours<1, false>>(v[i], v[i + 1]);
            const R high_0 = pick<WithinFours<1, true>>(v[i], v[i + 1]);
            const R low_2 = pick<WithinFours<1, false>>(v[i + 2], v[i + 3]);
            const R high_2 = pick<WithinFours<1, true>>(v[i + 2], v[i + 3]);
            v[i] = pick<WithinFours<2, false>>(low_0, low_2), v[i + 1] = pick<WithinFours<2, true>>(low_0, low_2);
            v[i + 2] = pick<WithinFours<2, false>>(high_0, high_2);
            v[i + 3] = pick<WithinFours<2, true>>(high_0, high_2);
        }
    } else {
        for (int i = 0; i < n; ++i)
            if ((i & b) == 0) {
                const R first = pick<Exchanged<b, false>>(v[i], v[i + b]);
                v[i + b] = pick<Exchanged<b, true>>(v[i], v[i + b]), v[i] = first;
            }
        if constexpr (b > 1) transpose_square<R, b / 2>(v);
    }
}

// a and b are one sequence of numbers: those at even places, and those at odd places.
template <class Order, class V>
GE_INLINE V separated(V a, V b) {
    if constexpr (kTwo<V>) {
        return {separated<Order>(a.low, a.high), separated<Order>(b.low, b.high)};
    } else {
        return pick<Order>(a, b);
    }
}
template <class V>
GE_INLINE V evens(V a, V b) {
    return separated<Evens>(a, b);
}
template <class V>
GE_INLINE V odds(V a, V b) {
    return separated<Odds>(a, b);
}

// The sequence a0 b0 a1 b1 ...: its first half, and its last half.
template <class Order, class V>
GE_INLINE V interleaved(V a, V b) {
    if constexpr (!kTwo<V>) {
        return pick<Order>(a, b);
    } else if constexpr (std::is_same_v<Order, Low>) {
        return {interleaved<Low>(a.low, b.low), interleaved<High>(a.low, b.low)};
    } else {
        return {interleaved<Low>(a.high, b.high), interleaved<High>(a.high, b.high)};
    }
}
template <class V>
GE_INLINE V interleave_low(V a, V b) {
    return interleaved<Low>(a, b);
}
template <class V>
GE_INLINE V interleave_high(V a, V b) {
    return interleaved<High>(a, b);
}

}  // namespace GE_ISA
}  // namespace gan_engine
