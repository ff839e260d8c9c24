// Vectors of sixteen numbers, for every instruction set: one register, or two halves that are vectors again.
//
// Operators and comparisons work lane by lane. A mask has lanes of 0 or -1; select(mask, a, b) chooses between lanes.
#pragma once

#include "registers.h"

namespace gan_engine {
namespace GE_ISA {

inline constexpr int kLanes = 16;

template <class S, int n, bool fits = (sizeof(S) * n <= kRegisterBytes)>
struct VecOf {
    using type = Native<S, n>;
};
template <class S, int n>
struct VecOf<S, n, false> {
    using type = Two<typename VecOf<S, n / 2>::type>;
};
template <class S, int n>
using Vec = typename VecOf<S, n>::type;

using VecF = Vec<float, kLanes>;
using VecD = Vec<double, kLanes>;

// The operators of Two. A number beside a vector stands for a vector of that number.
#define GE_OPERATOR(op)                                                                        \
    template <class P>                                                                         \
    GE_INLINE auto operator op(Two<P> a, Two<P> b) {                                           \
        return Two<decltype(a.low op b.low)>{a.low op b.low, a.high op b.high};                \
    }                                                                                          \
    template <class P, class S, class = std::enable_if_t<std::is_arithmetic_v<S>>>             \
    GE_INLINE auto operator op(Two<P> a, S s) {                                                \
        return Two<decltype(a.low op a.low)>{a.low op Element<P>(s), a.high op Element<P>(s)}; \
    }                                                                                          \
    template <class P, class S, class = std::enable_if_t<std::is_arithmetic_v<S>>>             \
    GE_INLINE auto operator op(S s, Two<P> a) {                                                \
        return Two<decltype(a.low op a.low)>{Element<P>(s) op a.low, Element<P>(s) op a.high}; \
    }
GE_OPERATOR(+)
GE_OPERATOR(-)
GE_OPERATOR(*)
GE_OPERATOR(/)
GE_OPERATOR(&)
GE_OPERATOR(|)
GE_OPERATOR(<<)
GE_OPERATOR(>>)
GE_OPERATOR(<)
GE_OPERATOR(<=)
GE_OPERATOR(>)
GE_OPERATOR(>=)
GE_OPERATOR(==)
GE_OPERATOR(!=)
#undef GE_OPERATOR
template <class P>
GE_INLINE Two<P> operator-(Two<P> a) {
    return {-a.low, -a.high};
}
template <class P>
GE_INLINE Two<P> operator~(Two<P> a) {
    return {~a.low, ~a.high};
}
template <class P, class B>
GE_INLINE Two<P>& operator+=(Two<P>& a, B b) {
    return a = a + b;
}
template <class P, class B>
GE_INLINE Two<P>& operator-=(Two<P>& a, B b) {
    return a = a - b;
}
template <class P, class B>
GE_INLINE Two<P>& operator*=(Two<P>& a, B b) {
    return a = a * b;
}

// Whether V is Two of something.
template <class V>
inline constexpr bool kTwo = false;
template <class P>
inline constexpr bool kTwo<Two<P>> = true;

// Lane k of a where mask is set, else of b.
template <class M, class V>
GE_INLINE V select(M mask, V a, V b) {
    if constexpr (kTwo<V>) {
        return {select(mask.low, a.low, b.low), select(mask.high, a.high, b.high)};
    } else {
        return mask ? a : b;
    }
}

template <class V, class S>
GE_INLINE V splat(S s) {
    if constexpr (kTwo<V>) {
        const auto half = splat<decltype(V::low)>(s);
        return {half, half};
    } else {
        return static_cast<Element<V>>(s) - V{};  // not s + V{}, which turns -0 into 0
    }
}

// The numbers of v as Element<To>, lane by lane; and the bits of v as type To.
template <class To, class V>
GE_INLINE To convert(V v) {
    if constexpr (kTwo<V>) {
        using Half = decltype(To::low);
        return {convert<Half>(v.low), convert<Half>(v.high)};
    } else {
        return __builtin_convertvector(v, To);
    }
}
template <class To, class V>
GE_INLINE To reinterpret(V v) {
    if constexpr (kTwo<V>) {
        using Half = decltype(To::low);
        return {reinterpret<Half>(v.low), reinterpret<Half>(v.high)};
    } else {
        return (To)v;
    }
}

// Numbers of float as double.
GE_INLINE VecD widen(VecD v) { return v; }
template <class V, class = std::enable_if_t<std::is_same_v<Element<V>, float>>>
GE_INLINE auto widen(V v) {
    if constexpr (kTwo<V>) {
        using D = decltype(widen(v.low));
        return Two<D>{widen(v.low), widen(v.high)};
    } else {
        return OnRegister<V>::widened(v);
    }
}

// The types of computations on numbers that memory holds as T.
template <class T>
struct Wide {
    using Scalar = float;
    using Vec = VecF;
};
template <>
struct Wide<double> {
    using Scalar = double;
    using Vec = VecD;
};

// with_dtype calls run(Stored<T>()), where memory holds the numbers of `dtype` as T.
template <class Number>
struct Stored {
    using T = Number;
};
template <class Run>
inline void with_dtype(DType dtype, const Run& run) {
    switch (dtype) {
        case DType::kFloat32: return run(Stored<float>());
        case DType::kFloat64: return run(Stored<double>());
        case DType::kBFloat16: return run(Stored<BFloat16>());
        case DType::kFloat16: return run(Stored<Float16>());
    }
}

// The numbers at p. Without V: sixteen of them.
template <class V, class T>
GE_INLINE V load(const T* p) {
    if constexpr (kTwo<V>) {
        using Half = decltype(V::low);
        return {load<Half>(p), load<Half>(p + kLanesOf<Half>)};
    } else {
        return OnRegister<V>::load(p);
    }
}
template <class T>
GE_INLINE typename Wide<T>::Vec load(const T* p) {
    return load<typename Wide<T>::Vec>(p);
}

// Keeps GCC from reading a vector from memory again for each of its uses. AVX2 reads two registers in the time of two
// multiplications, so a sum that reads more than it multiplies waits for memory.
template <class V>
GE_INLINE void read_once([[maybe_unused]] V& v) {
    if constexpr (kTwo<V>) {
        read_once(v.low), read_once(v.high);
    } else {
#if defined(__AVX2__)
        asm("" : "+v"(v));
#endif
    }
}

// `stream` writes around the caches; then the address must be aligned to the number of bytes written.
template <class T, class V>
GE_INLINE void store(T* p, V v, bool stream) {
    if constexpr (kTwo<V>) {
        store(p, v.low, stream);
        store(p + kLanesOf<V> / 2, v.high, stream);
    } else {
        OnRegister<V>::store(p, v, stream);
    }
}

// load_some: the first n < kLanesOf<V> numbers at p, and 0 in the other lanes. store_some writes n lanes. With n <= 0
// they touch no memory.
template <class V, class T>
GE_INLINE V load_some(const T* p, std::int64_t n) {
    if constexpr (!std::is_same_v<T, Element<V>>) {
        T buffer[kLanesOf<V>] = {};
        if (n > 0) std::memcpy(buffer, p, std::size_t(n) * sizeof(T));
        return load<V>(buffer);
    } else if constexpr (kTwo<V>) {
        using Half = decltype(V::low);
        return {load_some<Half>(p, n), load_some<Half>(p + kLanesOf<Half>, n - kLanesOf<Half>)};
    } else {
        return OnRegister<V>::load_some(p, n);
    }
}
template <class V, class T>
GE_INLINE void store_some(T* p, V v, std::int64_t n) {
    if constexpr (!std::is_same_v<T, Element<V>>) {
        T buffer[kLanesOf<V>];
        store(buffer, v, false);
        if (n > 0) std::memcpy(p, buffer, std::size_t(n) * sizeof(T));
    } else if constexpr (kTwo<V>) {
        store_some(p, v.low, n);
        store_some(p + kLanesOf<V> / 2, v.high, n - kLanesOf<V> / 2);
    } else {
        OnRegister<V>::store_some(p, v, n);
    }
}

// The first min(n, kLanesOf<V>) numbers at p. With n <= 0, store_up_to writes nothing.
template <class V, class T>
GE_INLINE V load_up_to(const T* p, std::int64_t n) {
    return n >= kLanesOf<V> ? load<V>(p) : load_some<V>(p, n);
}
template <class V, class T>
GE_INLINE void store_up_to(T* p, std::int64_t n, V v) {
    n >= kLanesOf<V> ? store(p, v, false) : store_some(p, v, n);
}

// f(number) for each lane, one after the other.
template <class V, class F>
GE_INLINE V for_each_lane(V v, const F& f) {
    Element<V> lanes[kLanesOf<V>];
    store(lanes, v, false);
    for (Element<V>& lane : lanes) lane = f(lane);
    return load<V>(lanes);
}

// A mask as bits: lane k is bit k.
template <class M>
GE_INLINE std::uint16_t pack(M m) {
    if constexpr (kTwo<M>) {
        return std::uint16_t(pack(m.low) | pack(m.high) << kLanesOf<M> / 2);
    } else {
        return std::uint16_t(OnMask<M>::pack(m));
    }
}
// Lane k of a where bit first + k is set, else of b.
template <int first = 0, class V>
GE_INLINE V select_bits(std::uint16_t bits, V a, V b) {
    if constexpr (kTwo<V>) {
        constexpr int half = kLanesOf<V> / 2;
        return {select_bits<first>(bits, a.low, b.low), select_bits<first + half>(bits, a.high, b.high)};
    } else {
        return OnMask<MaskOf<V>>::template select<first>(bits, a, b);
    }
}

// The sum of all lanes, in double: of lanes k and k + 8, then of k and k + 4, then of k and k + 2.
template <class V>
GE_INLINE double sum(V v) {
    const auto wide = widen(v);
    const auto eight = wide.low + wide.high;
    if constexpr (kTwo<std::remove_const_t<decltype(eight)>>) {
        const auto four = eight.low + eight.high;
        return (four[0] + four[2]) + (four[1] + four[3]);
    } else {
        return ((eight[0] + eight[4]) + (eight[2] + eight[6])) + ((eight[1] + eight[5]) + (eight[3] + eight[7]));
    }
}

// v, limited to [low, high]; NaN stays NaN.
template <class V>
GE_INLINE V clamped(V v, V low, V high) {
    if constexpr (kTwo<V>) {
        return {clamped(v.low, low.low, high.low), clamped(v.high, low.high, high.high)};
    } else {
        return OnRegister<V>::clamped(v, low, high);
    }
}

template <class V>
GE_INLINE V root(V v) {
    if constexpr (kTwo<V>) {
        return {root(v.low), root(v.high)};
    } else {
        return OnRegister<V>::root(v);
    }
}

template <class V>
GE_INLINE V absolute(V v) {
    return select(v < 0, -v, v);
}

}  // namespace GE_ISA
}  // namespace gan_engine
