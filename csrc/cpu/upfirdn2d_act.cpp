#include "../upfirdn2d_act.h"

#include "affine.h"
#include "fir.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// The mask bits of a row of an image [h, w]: the first byte, and `step` bytes from a run to the next.
template <bool channels_last>
struct Bytes {
    std::int64_t first, step;

    Bytes(const Row& row, std::int64_t channels, std::int64_t h, std::int64_t w) {
        const std::int64_t line = mask_bytes(channels_last ? channels : w);
        first = channels_last ? (row.image * h + row.y) * w * line + row.channel / 8
                              : ((row.image * channels + row.channel) * h + row.y) * line;
        step = channels_last ? line : 0;
    }
};

// The ends of the filter that apply scale_bias_act to its results.
template <class Number, bool channels_last>
struct Forward {
    using T = Number;
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    static constexpr bool kReadsAll = false;
    const Upfirdn2dActParams& p;
    Activation<V> act;

    Forward(const Upfirdn2dActParams& p_, int) : p(p_), act(p_.alpha, p_.gain, p_.clamp) {}
    fir::Untouched<V> in(const Row&, bool) const { return {}; }

    struct Run {
        T* y;
        std::uint8_t *slope, *keep;
        Side<S> scale, shift;  // for each element of the run
        V factor, summand;     // for the whole run
        Activation<V> act;
        GE_INLINE void operator()(std::int64_t i, std::int64_t left, V v) const {
            if (left <= 0) return;
            const V z = v * (channels_last ? scale.some(i, left) : factor) + shift.some(i, left) + summand;
            store_up_to(y + i, left, act(z, slope, keep, i));
        }
        void end() const {}
    };
    struct Out {
        T* y;
        std::uint8_t *slope, *keep;
        std::int64_t step, step_bytes;
        Side<S> scale, b, noise;
        const Activation<V>& act;
        Run run(std::int64_t k) const {
            return {y + k * step,
                    offset<std::uint8_t>(slope, k * step_bytes),
                    offset<std::uint8_t>(keep, k * step_bytes),
                    scale,
                    channels_last ? b : noise,
                    splat<V>(scale.one(0)),
                    splat<V>(channels_last ? noise.one(k) : b.one(0)),
                    act};
        }
        void done() const {}
    };
    Out out(const Row& row) const {
        const std::int64_t c = p.fir.c, h = p.fir.h.out, w = p.fir.w.out;
        const fir::Place<channels_last> place(row, c, h, w);
        const Bytes<channels_last> bytes(row, c, h, w);
        return Out{static_cast<T*>(p.fir.y) + place.element,
                   offset<std::uint8_t>(p.slope, bytes.first),
                   offset<std::uint8_t>(p.keep, bytes.first),
                   place.step,
                   bytes.step,
                   {offset<S>(p.scale, row.image * c + row.channel), 1},
                   {offset<S>(p.b, row.channel), 0},
                   {offset<S>(p.noise, p.noise_n > 1 ? place.pixel : row.y * w), 0},
                   act};
    }
};

// The sums of a row over its pixels, for each channel, and over its channels, for each pixel. One of the two sums runs
// along a run, the other across runs. Both are added to what the memory holds.
template <class S, class V, bool channels_last>
struct Sums {
    double *of_channels, *of_pixels;  // or null
    S* block;                         // room for a block of channels, all 0

    struct Run {
        double* along;
        double* across;  // of pixels
        S* block;        // of channels
        V total;
        GE_INLINE void add(std::int64_t i, std::int64_t left, V v) {
            if (along != nullptr) total += v;
            if (block != nullptr) store(block + i, load(block + i) + v, false);
            if (across == nullptr) return;
            const VecD wide = widen(v);
            store_up_to(across + i, left, load_up_to<VecD>(across + i, left) + wide);
        }
        void end() const {
            if (along != nullptr) *along += sum(total);
        }
    };
    Run run(std::int64_t k) const {
        if (!channels_last) return {of_channels, of_pixels, nullptr, V{}};
        return {offset<double>(of_pixels, k), nullptr, of_channels != nullptr ? block : nullptr, V{}};
    }
    void done(std::int64_t channels) const {
        if (!channels_last || of_channels == nullptr) return;
        for (std::int64_t c = 0; c < channels; ++c) of_channels[c] += block[c], block[c] = 0;
    }
};

// The derivative on the way into the transposed filter, and the scale on the way out.
template <class Number, bool channels_last>
struct Backward {
    using T = Number;
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    static constexpr bool kReadsAll = true;
    const Upfirdn2dActGradParams& p;
    std::int64_t slot;
    Derivative<V> derivative;
    S block_in[fir::kMostChannels] = {}, block_out[fir::kMostChannels] = {};
    using SumsOf = Sums<S, V, channels_last>;

    Backward(const Upfirdn2dActGradParams& p_, int slot_) : p(p_), slot(slot_), derivative(p_.alpha, p_.gain) {}

    struct RunIn {
        const std::uint8_t *slope, *keep;
        Derivative<V> derivative;
        typename SumsOf::Run sums;
        GE_INLINE V operator()(std::int64_t i, std::int64_t left, V dy) {
            if (left <= 0) return dy;
            const V dz = derivative(dy, slope, keep, i);
            sums.add(i, left, dz);
            return dz;
        }
        void end() const { sums.end(); }
    };
    struct In {
        const std::uint8_t *slope, *keep;
        std::int64_t step_bytes, channels;
        const Derivative<V>& derivative;
        SumsOf sums;
        RunIn run(std::int64_t k) const {
            return {offset<std::uint8_t>(slope, k * step_bytes), offset<std::uint8_t>(keep, k * step_bytes), derivative,
                    sums.run(k)};
        }
        void done() const { sums.done(channels); }
    };
    In in(const Row& row, bool own) {
        const std::int64_t c = p.fir.c, h = p.fir.h.in, w = p.fir.w.in, image = slot * p.fir.n + row.image;
        const Bytes<channels_last> bytes(row, c, h, w);
        double* db = offset<double>(own ? p.db : nullptr, image * c + row.channel);
        double* d_noise = offset<double>(own ? p.d_noise : nullptr, (image * h + row.y) * w);
        return In{offset<std::uint8_t>(p.slope, bytes.first),
                  offset<std::uint8_t>(p.keep, bytes.first),
                  bytes.step,
                  row.channels,
                  derivative,
                  {db, d_noise, block_in}};
    }

    struct RunOut {
        T* dx;
        const T* x;
        Side<S> scale;
        V factor;
        typename SumsOf::Run products;
        GE_INLINE void operator()(std::int64_t i, std::int64_t left, V g) {
            if (left <= 0) return;
            if (x != nullptr) products.add(i, left, g * load_up_to<V>(x + i, left));
            if (dx != nullptr) store_up_to(dx + i, left, g * (channels_last ? scale.some(i, left) : factor));
        }
        void end() const { products.end(); }
    };
    struct Out {
        T* dx;
        const T* x;
        std::int64_t step, channels;
        Side<S> scale;
        SumsOf products;
        RunOut run(std::int64_t k) const {
            return {offset<T>(dx, k * step), offset<T>(x, k * step), scale, splat<V>(scale.one(0)), products.run(k)};
        }
        void done() const { products.done(channels); }
    };
    Out out(const Row& row) {
        const std::int64_t c = p.fir.c, image = slot * p.fir.n + row.image;
        const fir::Place<channels_last> place(row, c, p.fir.h.out, p.fir.w.out);
        double* d_scale = offset<double>(p.d_scale, image * c + row.channel);
        return Out{offset<T>(p.fir.y, place.element),
                   offset<T>(p.x, place.element),
                   place.step,
                   row.channels,
                   {offset<S>(p.scale, row.image * c + row.channel), 1},
                   {d_scale, nullptr, block_out}};
    }
};

template <template <class, bool> class Ends, class T, class Params>
void with_layout(const Params& p, int threads) {
    const int parts = fir::parts(p.fir, threads);
    in_parallel(parts, [&](int part) {
        p.fir.channels_last ? fir::filter<fir::Interleaved>(p.fir, part, parts, Ends<T, true>(p, part))
                            : fir::filter<fir::Planar>(p.fir, part, parts, Ends<T, false>(p, part));
    });
}

template <template <class, bool> class Ends, class Params>
void run(const Params& p, int threads) {
    with_dtype(p.fir.dtype, [&](auto stored) { with_layout<Ends, typename decltype(stored)::T>(p, threads); });
}

}  // namespace

void upfirdn2d_act(const Upfirdn2dActParams& p, int threads) { run<Forward>(p, threads); }

void upfirdn2d_act_grad(const Upfirdn2dActGradParams& p, int threads) { run<Backward>(p, threads); }

int upfirdn2d_act_grad_slots(std::int64_t images, std::int64_t in, std::int64_t out, int threads) {
    return threads_for(images * std::max(in, out), threads);
}

}  // namespace GE_ISA
}  // namespace gan_engine
