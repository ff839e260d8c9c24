#include "../bias_act.h"

#include <type_traits>
#include <vector>

#include "affine.h"
#include "bias_act_channels.h"
#include "smooth.h"
#include "threads.h"
#include "vec.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// Larger outputs leave the last-level cache before they are read, so they are written around it (measured in
// docs/performance.md, "Thresholds of the C++ kernels").
constexpr std::int64_t kStreamBytes = 24 << 20;

// The loops are compiled once for each piecewise linear activation, and once for all smooth activations together. A
// smooth activation takes so much arithmetic that a function call for each vector costs nothing beside it.
enum class Kind { kLinear, kRelu, kLRelu, kSmooth };

// The numbers of a call, for each lane. They are made where a loop begins: the compiler then sees that all registers of
// such a vector are equal, and keeps one.
template <class V>
struct Constants {
    V alpha, gain, clamp, inverse_gain;

    template <class Params>
    GE_INLINE explicit Constants(const Params& p)
        : alpha(splat<V>(p.alpha)),
          gain(splat<V>(p.gain)),
          clamp(splat<V>(p.clamp)),
          inverse_gain(splat<V>(p.gain != 0 ? 1 / p.gain : 0)) {}
};

template <class T, Kind kind>
struct Forward {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const BiasActParams p;  // a copy: the stores below cannot change it, so it stays in registers
    const bool clamps = p.clamp >= 0;
    const bool stream = p.n * std::int64_t(sizeof(T)) > kStreamBytes&& std::uintptr_t(p.y) % 64 == 0;

    // y of elements i to i + 15.
    GE_INLINE V vector(const Constants<V>& k, V x, std::int64_t i, V bias) const {
        const V z = x + bias;
        // relu passes NaN on, and its slope at NaN is 1, as in PyTorch.
        if (p.slope != nullptr) put_bits(p.slope, i, pack(kind == Kind::kRelu ? ~(z <= 0) : z > 0));
        V v = z;
        if constexpr (kind == Kind::kRelu) v = select(z < 0, V{}, z);
        if constexpr (kind == Kind::kLRelu) v = select(z > 0, z, k.alpha * z);
        if constexpr (kind == Kind::kSmooth) v = smooth(p.act, z);
        v = v * k.gain;
        if (clamps) {
            if (p.keep != nullptr) put_bits(p.keep, i, pack((v <= k.clamp) & (v >= -k.clamp)));
            v = clamped(v, -k.clamp, k.clamp);
        }
        return v;
    }

    template <Spread spread>
    void run(const Channels& channels, std::int64_t i, std::int64_t stop) const {
        const Forward pass = *this;
        const Constants<V> constants(p);
        const T* x = static_cast<const T*>(p.x);
        T* y = static_cast<T*>(p.y);
        std::int64_t c = channels.channel_of(i);
        V bias = biases<spread, V>(static_cast<const S*>(p.b), channels, i, c);
        for (; i + kLanes <= stop; i += kLanes) {
            store(y + i, pass.vector(constants, load(x + i), i, bias), pass.stream);
            if constexpr (spread == Spread::kConsecutive) {
                c = c + kLanes < channels.count ? c + kLanes : 0;
                if (p.b != nullptr) bias = load(static_cast<const S*>(p.b) + c);
            }
        }
        if (i < stop) store_some(y + i, pass.vector(constants, load_some<V>(x + i, stop - i), i, bias), stop - i);
    }
};

template <class T, Kind kind>
struct Backward {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const BiasActGradParams p;
    double* sums;  // of this thread, [channels], or null
    const bool stream = p.n * std::int64_t(sizeof(T)) > kStreamBytes&& std::uintptr_t(p.dx) % 64 == 0;

    // dx of elements i to i + 15. saved() reads what the forward pass saved of them.
    template <class Saved>
    GE_INLINE V vector(const Constants<V>& k, V dy, const Saved& saved, std::int64_t i, V d_db, V bias) const {
        V v = (dy + d_db) * k.gain;
        if constexpr (kind == Kind::kSmooth) {
            const bool from_x = p.act == Act::kSwish || p.clamp >= 0;
            const V s = from_x ? saved() + bias : saved() * k.inverse_gain;
            const V t = from_x ? smooth(p.act, s) : s;
            v = v * smooth_slope(p.act, p.act == Act::kSwish ? s : t);
            if (p.clamp >= 0) v = select(absolute(t * k.gain) <= k.clamp, v, V{});
        } else {
            if constexpr (kind == Kind::kRelu) v = select_bits(get_bits(p.slope, i), v, V{});
            if constexpr (kind == Kind::kLRelu) v = select_bits(get_bits(p.slope, i), v, k.alpha * v);
            if (p.keep != nullptr) v = select_bits(get_bits(p.keep, i), v, V{});
        }
        return v;
    }

    template <Spread spread>
    void run(const Channels& channels, std::int64_t i, std::int64_t stop) const {
        const T* dy = static_cast<const T*>(p.dy);
        const T* saved = static_cast<const T*>(p.saved);
        T* dx = static_cast<T*>(p.dx);
        const S* b = static_cast<const S*>(p.b);
        const S* db = static_cast<const S*>(p.d_db);
        std::int64_t c = channels.channel_of(i);
        V bias = biases<spread, V>(b, channels, i, c), d_db = biases<spread, V>(db, channels, i, c);
        const Backward pass = *this;
        const Constants<V> constants(p);
        VecD total{};
        V recent{};  // the sum of the last few vectors, not yet in total
        // The sums of the last rows of channels, not yet in `sums`.
        std::vector<S> rows(spread == Spread::kConsecutive && sums != nullptr ? channels.count : 0);
        int in_rows = 0;
        const auto settle = [&] {
            for (std::size_t k = 0; k < rows.size(); ++k) sums[k] += rows[k], rows[k] = 0;
            in_rows = 0;
        };
        const auto next = [&] {
            const V v = pass.vector(constants, load(dy + i), [&] { return load(saved + i); }, i, d_db, bias);
            store(dx + i, v, pass.stream);
            return v;
        };
        while (spread == Spread::kConstant && i + kLanes <= stop) {
            const std::int64_t eighth = (i / (8 * kLanes) + 1) * 8 * kLanes, end = eighth < stop ? eighth : stop;
            for (; i + kLanes <= end; i += kLanes) recent += next();
            if (i == eighth) total += widen(recent), recent = V{};
        }
        for (; spread != Spread::kConstant && i + kLanes <= stop; i += kLanes) {
            const V v = next();
            if constexpr (spread == Spread::kConsecutive) {
                if (sums != nullptr) store(rows.data() + c, load(rows.data() + c) + v, false);
                c += kLanes;
                if (c == channels.count) {
                    c = 0;
                    if (++in_rows == 8) settle();
                }
                if (b != nullptr) bias = load(b + c);
                if (db != nullptr) d_db = load(db + c);
            } else if (sums != nullptr) {
                add_up(channels, i, c, widen(v), kLanes);
            }
        }
        if (spread == Spread::kConsecutive) settle();
        if (i < stop) {
            const std::int64_t left = stop - i;
            const V v = pass.vector(
                constants, load_some<V>(dy + i, left), [&] { return load_some<V>(saved + i, left); }, i, d_db, bias);
            store_some(dx + i, v, left);
            if (sums != nullptr) add_up(channels, i, c, widen(v), int(left));
        }
        if (sums != nullptr && spread == Spread::kConstant)
            sums[channels.channel_of(stop - 1)] += sum(total) + sum(recent);
    }

    void add_up(const Channels& channels, std::int64_t i, std::int64_t c, VecD v, int lanes) const {
        double each[kLanes];
        store(each, v, false);
        std::int64_t left = channels.inner - i % channels.inner;
        for (int k = 0; k < lanes; ++k, --left) {
            if (left == 0) left = channels.inner, c = c + 1 < channels.count ? c + 1 : 0;
            sums[c] += each[k];
        }
    }
};

// A function of its own: its scalar code would take registers from the other loops.
template <class Pass>
[[gnu::noinline]] void run_mixed(const Pass& pass, const Channels& channels, std::int64_t i, std::int64_t stop) {
    pass.template run<Spread::kMixed>(channels, i, stop);
}

// Runs `pass`, a Forward or a Backward, over elements [begin, end).
template <class Pass>
void sweep(const Pass& pass, const Channels& channels, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end;) {
        const std::int64_t stop = channels.run_end(i, end);
        if (channels.spread == Spread::kConstant) pass.template run<Spread::kConstant>(channels, i, stop);
        if (channels.spread == Spread::kConsecutive) pass.template run<Spread::kConsecutive>(channels, i, stop);
        if (channels.spread == Spread::kMixed) run_mixed(pass, channels, i, stop);
        i = stop;
    }
    fence();
}

// Share k of `parts` shares of n elements. Shares begin at whole vectors.
struct Share {
    std::int64_t begin, end;
    Share(std::int64_t n, int k, int parts) {
        const std::int64_t vectors = (n + kLanes - 1) / kLanes;
        begin = vectors * k / parts * kLanes;
        end = vectors * (k + 1) / parts * kLanes;
        if (end > n) end = n;
    }
};

// Not inlined into the dispatch on types: GCC then inlines the loops below as it does those of the gradient.
template <class T, Kind kind>
[[gnu::noinline]] void forward(const BiasActParams& p, int threads) {
    const Channels channels(p.n, p.inner, p.channels, p.b != nullptr);
    const Forward<T, kind> pass{p};
    const int parts = threads_for(p.n, threads);
    in_parallel(parts, [&](int k) {
        const Share share(p.n, k, parts);
        sweep(pass, channels, share.begin, share.end);
    });
}

template <class T, Kind kind>
void backward(const BiasActGradParams& p, int threads) {
    using S = typename Wide<T>::Scalar;
    const bool reduce = p.slots > 0;
    const Channels channels(p.n, p.inner, p.channels, reduce || p.d_db != nullptr || p.b != nullptr);
    const int parts = reduce ? int(p.slots) : threads_for(p.n, threads);
    std::vector<double> sums(reduce ? p.slots * p.channels : 0);
    in_parallel(parts, [&](int k) {
        const Share share(p.n, k, parts);
        sweep(Backward<T, kind>{p, reduce ? &sums[k * p.channels] : nullptr}, channels, share.begin, share.end);
    });
    for (std::size_t i = 0; i < sums.size(); ++i) static_cast<S*>(p.partial)[i] = S(sums[i]);
}

// Calls run with the kind of an activation, as a constant.
template <class Run>
void with_kind(Act act, const Run& run) {
    switch (act) {
        case Act::kLinear: return run(std::integral_constant<Kind, Kind::kLinear>());
        case Act::kRelu: return run(std::integral_constant<Kind, Kind::kRelu>());
        case Act::kLRelu: return run(std::integral_constant<Kind, Kind::kLRelu>());
        default: return run(std::integral_constant<Kind, Kind::kSmooth>());
    }
}

}  // namespace

void bias_act(const BiasActParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) {
        with_kind(p.act, [&](auto kind) { forward<typename decltype(stored)::T, kind()>(p, threads); });
    });
}

void bias_act_grad(const BiasActGradParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) {
        with_kind(p.act, [&](auto kind) { backward<typename decltype(stored)::T, kind()>(p, threads); });
    });
}

// A slot of partial sums for each thread, or fewer if the sums would take more memory than the tensor.
int bias_act_grad_slots(std::int64_t n, std::int64_t, std::int64_t channels, int threads) {
    const std::int64_t affordable = channels > 0 ? n / (8 * channels) : 1;
    const int parts = threads_for(n, threads);
    return affordable < 1 ? 1 : affordable < parts ? int(affordable) : parts;
}

}  // namespace GE_ISA
}  // namespace gan_engine
