#include "../scale_bias_act.h"

#include <algorithm>
#include <vector>

#include "affine.h"
#include "threads.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// body(image, slot, first row, end) for every image and slot. The slots share the rows of an image.
template <class Body>
void over_rows(std::int64_t n, std::int64_t rows, std::int64_t cols, std::int64_t slots, int threads,
               const Body& body) {
    const int parts = threads_for(n * rows * cols, threads);
    const std::int64_t items = n * slots;
    in_parallel(parts, [&](int part) {
        for (std::int64_t i = items * part / parts; i < items * (part + 1) / parts; ++i) {
            const std::int64_t slot = i % slots;
            body(i / slots, slot, rows * slot / slots, rows * (slot + 1) / slots);
        }
    });
}

// The slots of an image: with few images, enough that each thread has at least 4 pairs of image and slot.
std::int64_t slots_for(std::int64_t n, std::int64_t rows, std::int64_t cols, int threads) {
    const std::int64_t parts = threads_for(n * rows * cols, threads);
    return parts == 1 || n == 0 ? 1 : std::min(rows, (4 * parts + n - 1) / n);
}

template <class T, bool channels_last>
void forward(const ScaleBiasActParams& params, int threads) {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const std::int64_t slots = slots_for(params.n, params.rows, params.cols, threads);
    const auto body = [&params](std::int64_t n, std::int64_t, std::int64_t r, std::int64_t end) {
        const ScaleBiasActParams p = params;  // a copy: the stores below cannot change it, so it stays in registers
        const std::int64_t channels = channels_last ? p.cols : p.rows, pixels = channels_last ? p.rows : p.cols;
        const std::int64_t line = mask_bytes(p.cols);
        const Activation<V> act(p.alpha, p.gain, p.clamp);
        const Side<S> scale{offset<S>(p.scale, n * channels), 1}, b{static_cast<const S*>(p.b), 0};
        const Side<S> noise{offset<S>(p.noise, p.noise_n > 1 ? n * pixels : 0), 0};
        for (; r < end; ++r) {
            const std::int64_t row = n * p.rows + r;
            const T* x = static_cast<const T*>(p.x) + row * p.cols;
            T* y = static_cast<T*>(p.y) + row * p.cols;
            std::uint8_t* slope = offset<std::uint8_t>(p.slope, row * line);
            std::uint8_t* keep = offset<std::uint8_t>(p.keep, row * line);
            const V scale_r = splat<V>(scale.one(channels_last ? 0 : r));
            const V shift_r = splat<V>(channels_last ? noise.one(r) : b.one(r));
            for_columns(p.cols, [&](std::int64_t i, auto left) {
                V factor = scale_r;
                if constexpr (channels_last) factor = scale.some(i, left);
                const V z = load_up_to<V>(x + i, left) * factor + (channels_last ? b : noise).some(i, left) + shift_r;
                store_up_to(y + i, left, act(z, slope, keep, i));
            });
        }
    };
    over_rows(params.n, params.rows, params.cols, slots, threads, body);
}

template <class T, bool channels_last>
[[gnu::noinline]] void backward(const ScaleBiasActGradParams& params, int threads) {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const auto body = [&params](std::int64_t n, std::int64_t slot, std::int64_t r, std::int64_t end) {
        const ScaleBiasActGradParams p = params;  // a copy, as above
        const std::int64_t channels = channels_last ? p.cols : p.rows;
        const std::int64_t line = mask_bytes(p.cols), padded = (p.cols + kLanes - 1) / kLanes * kLanes;
        const Derivative<V> derivative(p.alpha, p.gain);
        void* const across = channels_last ? p.db : p.d_noise;  // sums along columns
        void* const along = channels_last ? p.d_noise : p.db;   // sums along rows
        std::vector<double> all_sums(across != nullptr ? padded : 0);
        std::vector<double> all_products(channels_last && p.d_scale != nullptr ? padded : 0);
        double *const sums = all_sums.data(), *const products = all_products.data();
        const bool adds = along != nullptr || across != nullptr || p.d_scale != nullptr;
        const Side<S> scale{offset<S>(p.scale, n * channels), 1};
        for (; r < end; ++r) {
            const std::int64_t row = n * p.rows + r;
            const T* dy = static_cast<const T*>(p.dy) + row * p.cols;
            const T* x = offset<T>(p.x, row * p.cols);
            T* dx = offset<T>(p.dx, row * p.cols);
            const std::uint8_t* slope = offset<std::uint8_t>(p.slope, row * line);
            const std::uint8_t* keep = offset<std::uint8_t>(p.keep, row * line);
            const V scale_r = splat<V>(scale.one(channels_last ? 0 : r));
            VecD sum_r{}, product_r{};
            for_columns(p.cols, [&](std::int64_t i, auto left) {
                const V v = derivative(load_up_to<V>(dy + i, left), slope, keep, i);
                V factor = scale_r;
                if constexpr (channels_last) factor = scale.some(i, left);
                if (dx != nullptr) store_up_to(dx + i, left, v * factor);
                if (!adds) return;
                const VecD wide = widen(v);
                if (along != nullptr) sum_r += wide;
                if (across != nullptr) store(sums + i, load(sums + i) + wide, false);
                if (p.d_scale == nullptr) return;
                const VecD u = widen(load_up_to<V>(x + i, left));
                if (channels_last) store(products + i, load(products + i) + wide * u, false);
                if (!channels_last) product_r += wide * u;
            });
            if (along != nullptr) static_cast<S*>(along)[row] = S(sum(sum_r));
            if (!channels_last && p.d_scale != nullptr) static_cast<S*>(p.d_scale)[row] = S(sum(product_r));
        }
        const std::int64_t at = (slot * p.n + n) * p.cols;
        if (across != nullptr) std::copy_n(sums, p.cols, static_cast<S*>(across) + at);
        if (channels_last && p.d_scale != nullptr) std::copy_n(products, p.cols, static_cast<S*>(p.d_scale) + at);
    };
    over_rows(params.n, params.rows, params.cols, params.slots, threads, body);
}

template <class T, bool channels_last>
[[gnu::noinline]] void second(const ScaleBiasActSecondParams& params, int threads) {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const auto body = [&params](std::int64_t n, std::int64_t slot, std::int64_t r, std::int64_t end) {
        const ScaleBiasActSecondParams p = params;  // a copy, as above
        const std::int64_t channels = channels_last ? p.cols : p.rows, pixels = channels_last ? p.rows : p.cols;
        const std::int64_t line = mask_bytes(p.cols), padded = (p.cols + kLanes - 1) / kLanes * kLanes;
        const Derivative<V> derivative(p.alpha, p.gain);
        std::vector<double> all_products(channels_last && p.d_scale != nullptr ? padded : 0);
        double* const products = all_products.data();
        const Side<S> scale{offset<S>(p.scale, n * channels), 1}, v_scale{offset<S>(p.v_scale, n * channels), 0};
        const Side<S> v_b{static_cast<const S*>(p.v_b), 0};
        const Side<S> v_noise{offset<S>(p.v_noise, p.noise_n > 1 ? n * pixels : 0), 0};
        for (; r < end; ++r) {
            const std::int64_t row = n * p.rows + r, start = row * p.cols;
            const T *dy = offset<T>(p.dy, start), *x = offset<T>(p.x, start), *v_x = offset<T>(p.v_x, start);
            T *d_dy = offset<T>(p.d_dy, start), *d_x = offset<T>(p.d_x, start);
            const std::uint8_t* slope = offset<std::uint8_t>(p.slope, row * line);
            const std::uint8_t* keep = offset<std::uint8_t>(p.keep, row * line);
            const V scale_r = splat<V>(scale.one(channels_last ? 0 : r));
            const V v_scale_r = splat<V>(v_scale.one(channels_last ? 0 : r));
            const V shift_r = splat<V>(channels_last ? v_noise.one(r) : v_b.one(r));
            VecD product_r{};
            for_columns(p.cols, [&](std::int64_t i, auto left) {
                V factor = scale_r, v_factor = v_scale_r;
                if constexpr (channels_last) factor = scale.some(i, left), v_factor = v_scale.some(i, left);
                V v{};
                if (v_x != nullptr) v = load_up_to<V>(v_x + i, left);
                if (d_dy != nullptr) {
                    V z = v * factor;
                    if (x != nullptr) z += load_up_to<V>(x + i, left) * v_factor;
                    z += (channels_last ? v_b : v_noise).some(i, left) + shift_r;
                    store_up_to(d_dy + i, left, derivative(z, slope, keep, i));
                }
                if (dy == nullptr) return;
                const V dz = derivative(load_up_to<V>(dy + i, left), slope, keep, i);
                if (d_x != nullptr) store_up_to(d_x + i, left, dz * v_factor);
                if (p.d_scale == nullptr) return;
                if (channels_last) store(products + i, load(products + i) + widen(dz) * widen(v), false);
                if (!channels_last) product_r += widen(dz) * widen(v);
            });
            if (!channels_last && p.d_scale != nullptr) static_cast<S*>(p.d_scale)[row] = S(sum(product_r));
        }
        if (channels_last && p.d_scale != nullptr)
            std::copy_n(products, p.cols, static_cast<S*>(p.d_scale) + (slot * p.n + n) * p.cols);
    };
    over_rows(params.n, params.rows, params.cols, params.slots, threads, body);
}

template <bool channels_last>
void forward(const ScaleBiasActParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { forward<typename decltype(stored)::T, channels_last>(p, threads); });
}

template <bool channels_last>
void backward(const ScaleBiasActGradParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { backward<typename decltype(stored)::T, channels_last>(p, threads); });
}

template <bool channels_last>
void second(const ScaleBiasActSecondParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { second<typename decltype(stored)::T, channels_last>(p, threads); });
}

}  // namespace

void scale_bias_act(const ScaleBiasActParams& p, int threads) {
    p.channels_last ? forward<true>(p, threads) : forward<false>(p, threads);
}

void scale_bias_act_grad(const ScaleBiasActGradParams& p, int threads) {
    p.channels_last ? backward<true>(p, threads) : backward<false>(p, threads);
}

void scale_bias_act_second(const ScaleBiasActSecondParams& p, int threads) {
    p.channels_last ? second<true>(p, threads) : second<false>(p, threads);
}

int scale_bias_act_grad_slots(std::int64_t n, std::int64_t rows, std::int64_t cols, int threads) {
    return int(slots_for(n, rows, cols, threads));
}

}  // namespace GE_ISA
}  // namespace gan_engine
