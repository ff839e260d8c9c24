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
        first = channels_last ? ((row.image * h + row.y) * w + row.x) * line + row.channel / 8
                              : ((row.image * channels + row.channel) * h + row.y) * line;
        step = channels_last ? line : 0;
    }
};

// The filter, and behind it scale_bias_act.
template <class T, bool channels_last>
struct Forward final : fir::Ends<typename Wide<T>::Scalar> {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const Upfirdn2dActParams& p;
    const Activation<V> act;

    Forward(const Upfirdn2dActParams& p_, int) : p(p_), act(p_.alpha, p_.gain, p_.clamp) {
        if constexpr (std::is_same_v<T, S>)
            this->x = static_cast<const S*>(p.fir.x), this->y = static_cast<S*>(p.fir.y);
    }
    void in(const Row& row, bool, S* to, std::int64_t step) override {
        fir::widen_row<T, channels_last>(p.fir, row, to, step);
    }
    void out(const Row& row, S* made, std::int64_t step) override {
        const std::int64_t c = p.fir.c, h = p.fir.h.out, w = p.fir.w.out;
        const fir::Place<channels_last> place(row, c, h, w);
        const Bytes<channels_last> bytes(row, c, h, w);
        const Side<S> scale{offset<S>(p.scale, row.image * c + row.channel), 1}, b{offset<S>(p.b, row.channel), 0};
        const Side<S> noise{offset<S>(p.noise, p.noise_n > 1 ? place.pixel : row.y * w + row.x), 0};
        fir::for_runs<channels_last>(row, [&](std::int64_t k, std::int64_t n) {
            T* y = static_cast<T*>(p.fir.y) + place.element + k * place.step;
            std::uint8_t* slope = offset<std::uint8_t>(p.slope, bytes.first + k * bytes.step);
            std::uint8_t* keep = offset<std::uint8_t>(p.keep, bytes.first + k * bytes.step);
            const Side<S>& along = channels_last ? b : noise;  // for each element of the run
            const V factor = splat<V>(scale.one(0)), summand = splat<V>(channels_last ? noise.one(k) : b.one(0));
            for (std::int64_t i = 0; i < n; i += kLanes) {
                const V v = load_up_to<V>(made + k * step + i, n - i);
                const V z = v * (channels_last ? scale.some(i, n - i) : factor) + along.some(i, n - i) + summand;
                store_up_to(y + i, n - i, act(z, slope, keep, i));
            }
        });
    }
};

// The sums of a row over its pixels, for each channel, and over its channels, for each pixel. One of the two sums runs
// along a run, the other across runs. Both are added to what the memory holds.
template <class S, bool channels_last>
struct Sums {
    using V = typename Wide<S>::Vec;
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
            if (across != nullptr) store_up_to(across + i, left, load_up_to<VecD>(across + i, left) + widen(v));
        }
        void end() const {
            if (along != nullptr) *along += sum(total);
        }
    };
    GE_INLINE Run run(std::int64_t k) const {
        if (!channels_last) return {of_channels, of_pixels, nullptr, V{}};
        return {offset<double>(of_pixels, k), nullptr, of_channels != nullptr ? block : nullptr, V{}};
    }
    void done(std::int64_t channels) const {
        if (!channels_last || of_channels == nullptr) return;
        for (std::int64_t c = 0; c < channels; ++c) of_channels[c] += block[c], block[c] = 0;
    }
};

// The derivative, then the transposed filter, and behind it the scale.
template <class T, bool channels_last>
struct Backward final : fir::Ends<typename Wide<T>::Scalar> {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const Upfirdn2dActGradParams& p;
    const std::int64_t slot;
    const Derivative<V> derivative;
    S block_in[fir::kMostChannels] = {}, block_out[fir::kMostChannels] = {};

    Backward(const Upfirdn2dActGradParams& p_, int slot_) : p(p_), slot(slot_), derivative(p_.alpha, p_.gain) {
        this->reads_all = true;
        if constexpr (std::is_same_v<T, S>) {
            this->y = static_cast<S*>(p.fir.y);
            this->finishes = p.scale != nullptr || p.x != nullptr;
        }
    }
    void in(const Row& row, bool own, S* to, std::int64_t step) override {
        const std::int64_t c = p.fir.c, h = p.fir.h.in, w = p.fir.w.in, image = slot * p.fir.n + row.image;
        const fir::Place<channels_last> place(row, c, h, w);
        const Bytes<channels_last> bytes(row, c, h, w);
        const Sums<S, channels_last> sums{offset<double>(own ? p.db : nullptr, image * c + row.channel),
                                          offset<double>(own ? p.d_noise : nullptr, (image * h + row.y) * w), block_in};
        fir::for_runs<channels_last>(row, [&](std::int64_t k, std::int64_t n) {
            const T* dy = static_cast<const T*>(p.fir.x) + place.element + k * place.step;
            const std::uint8_t* slope = offset<std::uint8_t>(p.slope, bytes.first + k * bytes.step);
            const std::uint8_t* keep = offset<std::uint8_t>(p.keep, bytes.first + k * bytes.step);
            auto run = sums.run(k);
            for (std::int64_t i = 0; i < n; i += kLanes) {
                const V dz = derivative(load_up_to<V>(dy + i, n - i), slope, keep, i);
                run.add(i, n - i, dz);
                store(to + k * step + i, dz, false);
            }
            run.end();
        });
        sums.done(row.channels);
    }
    void out(const Row& row, S* made, std::int64_t step) override {
        const std::int64_t c = p.fir.c, image = slot * p.fir.n + row.image;
        const fir::Place<channels_last> place(row, c, p.fir.h.out, p.fir.w.out);
        const Side<S> scale{offset<S>(p.scale, row.image * c + row.channel), 1};
        const Sums<S, channels_last> products{offset<double>(p.d_scale, image * c + row.channel), nullptr, block_out};
        fir::for_runs<channels_last>(row, [&](std::int64_t k, std::int64_t n) {
            T* dx = offset<T>(p.fir.y, place.element + k * place.step);
            const T* x = offset<T>(p.x, place.element + k * place.step);
            const V factor = splat<V>(scale.one(0));
            auto run = products.run(k);
            for (std::int64_t i = 0; i < n; i += kLanes) {
                const V g = load_up_to<V>(made + k * step + i, n - i);
                if (x != nullptr) run.add(i, n - i, g * load_up_to<V>(x + i, n - i));
                if (dx != nullptr) store_up_to(dx + i, n - i, g * (channels_last ? scale.some(i, n - i) : factor));
            }
            run.end();
        });
        products.done(row.channels);
    }
};

template <template <class, bool> class Ends, class Params>
void run(const Params& p, int threads) {
    with_dtype(p.fir.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        const int parts = fir::parts(p.fir, threads);
        in_parallel(parts, [&](int part) {
            if (p.fir.channels_last) {
                Ends<T, true> ends(p, part);
                fir::filter(p.fir, part, parts, ends);
            } else {
                Ends<T, false> ends(p, part);
                fir::filter(p.fir, part, parts, ends);
            }
        });
    });
}

}  // namespace

void upfirdn2d_act(const Upfirdn2dActParams& p, int threads) { run<Forward>(p, threads); }

void upfirdn2d_act_grad(const Upfirdn2dActGradParams& p, int threads) { run<Backward>(p, threads); }

int upfirdn2d_act_grad_slots(std::int64_t images, std::int64_t in, std::int64_t out, int threads) {
    return threads_for(images * std::max(in, out), threads);
}

}  // namespace GE_ISA
}  // namespace gan_engine
