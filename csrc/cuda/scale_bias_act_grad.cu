#include "../scale_bias_act.h"

#include <algorithm>
#include <iterator>

#include "bands.h"

namespace gan_engine {
namespace cuda {
namespace {

// Multiplies 8 neighbours by the derivative m, which their mask bits give.
template <class S>
struct Derivative {
    S gain, gain_below;  // gain_below: of numbers below 0

    template <class Params>
    explicit Derivative(const Params& p) : gain(S(p.gain)), gain_below(S(p.gain * p.alpha)) {}

    __device__ __forceinline__ void multiply(S (&v)[8], unsigned slope, unsigned keep) const {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const S product = v[k] * (slope >> k & 1 ? gain : gain_below);
            v[k] = keep >> k & 1 ? product : S(0);
        }
    }
};

__device__ __forceinline__ unsigned bits(const std::uint8_t* plane, std::int64_t byte) {
    return plane == nullptr ? 0xff : plane[byte];
}

template <class S>
__device__ __forceinline__ void store_rows(S* to, const Band& band, const double* sums) {
#pragma unroll 1
    for (int r = int(threadIdx.x); r < band.rows; r += kBandThreads) to[band.start + r] = S(sums[r]);
}

template <class T, bool kLast, bool kWhole>
__global__ void __launch_bounds__(kBandThreads)
    backward(ScaleBiasActGradParams p, Derivative<Wide<T>> derivative, Bands plan) {
    using S = Wide<T>;
    __shared__ double sums[kMostBand], products[kMostBand];  // of rows
    for (int r = int(threadIdx.x); r < kMostBand; r += kBandThreads) sums[r] = products[r] = 0;
    __syncthreads();
    const Band band(p, plan);
    S *d_scale = static_cast<S*>(p.d_scale), *db = static_cast<S*>(p.db), *d_noise = static_cast<S*>(p.d_noise);
    S *row_sums = kLast ? d_noise : db, *column_sums = kLast ? db : d_noise;
    Broadcast<S, kLast, kWhole> scale(p.scale, band.image * (kLast ? p.cols : p.rows), 1);

    for (std::int64_t block = 0; block < p.cols; block += plan.lanes * 8) {
        const std::int64_t column = block + band.lane * 8;
        const int columns = int(min(std::int64_t(8), p.cols - column));
        if (columns > 0) scale.at_columns(column, columns);
        S sum[8] = {}, product[8] = {};
        band.each_row(column, mask_bytes(p.cols), [&](int r, std::int64_t at, std::int64_t byte, bool inside) {
            S v[8] = {}, x[8] = {};
            if (inside) {
                load_eight<kWhole>(v, static_cast<const T*>(p.dy) + at, columns);
                if (d_scale != nullptr) load_eight<kWhole>(x, static_cast<const T*>(p.x) + at, columns);
                derivative.multiply(v, bits(p.slope, byte), bits(p.keep, byte));
            }
#pragma unroll
            for (int k = 0; k < 8; ++k) sum[k] += v[k], x[k] *= v[k], product[k] += x[k];
            if (row_sums != nullptr) band.add_to_row(sums, r, v);
            if (!kLast && d_scale != nullptr) band.add_to_row(products, r, x);
            if (inside && p.dx != nullptr) {
                scale.at_row(band.first + r);
#pragma unroll
                for (int k = 0; k < 8; ++k) v[k] *= scale[k];
                store_eight<kWhole>(static_cast<T*>(p.dx) + at, v, columns);
            }
        });
        if (column_sums != nullptr) band.store_columns(column_sums, p.n, block, sum);
        if (kLast && d_scale != nullptr) band.store_columns(d_scale, p.n, block, product);
    }
    __syncthreads();
    if (row_sums != nullptr) store_rows(row_sums, band, sums);
    if (!kLast && d_scale != nullptr) store_rows(d_scale, band, products);
}

template <class T, bool kLast, bool kWhole>
__global__ void __launch_bounds__(kBandThreads)
    second(ScaleBiasActSecondParams p, Derivative<Wide<T>> derivative, Bands plan) {
    using S = Wide<T>;
    __shared__ double products[kMostBand];  // of rows
    for (int r = int(threadIdx.x); r < kMostBand; r += kBandThreads) products[r] = 0;
    __syncthreads();
    const Band band(p, plan);
    S* d_scale = static_cast<S*>(p.d_scale);
    const std::int64_t channels = kLast ? p.cols : p.rows, pixels = kLast ? p.rows : p.cols;
    Broadcast<S, kLast, kWhole> scale(p.scale, band.image * channels, 1);
    Broadcast<S, kLast, kWhole> v_scale(p.v_scale, band.image * channels, 0), v_b(p.v_b, 0, 0);
    Broadcast<S, !kLast, kWhole> v_noise(p.v_noise, p.noise_n > 1 ? band.image * pixels : 0, 0);

    for (std::int64_t block = 0; block < p.cols; block += plan.lanes * 8) {
        const std::int64_t column = block + band.lane * 8;
        const int columns = int(min(std::int64_t(8), p.cols - column));
        if (columns > 0) {
            scale.at_columns(column, columns), v_scale.at_columns(column, columns);
            v_b.at_columns(column, columns), v_noise.at_columns(column, columns);
        }
        S product[8] = {};
        band.each_row(column, mask_bytes(p.cols), [&](int r, std::int64_t at, std::int64_t byte, bool inside) {
            S v[8] = {}, z[8] = {};
            if (inside) {
                const unsigned slope = bits(p.slope, byte), keep = bits(p.keep, byte);
                const std::int64_t row = band.first + r;
                scale.at_row(row), v_scale.at_row(row), v_b.at_row(row), v_noise.at_row(row);
                if (p.v_x != nullptr) load_eight<kWhole>(v, static_cast<const T*>(p.v_x) + at, columns);
                if (p.d_dy != nullptr) {
                    if (p.v_scale != nullptr) load_eight<kWhole>(z, static_cast<const T*>(p.x) + at, columns);
#pragma unroll
                    for (int k = 0; k < 8; ++k) z[k] = scale[k] * v[k] + v_scale[k] * z[k] + v_b[k] + v_noise[k];
                    derivative.multiply(z, slope, keep);
                    store_eight<kWhole>(static_cast<T*>(p.d_dy) + at, z, columns);
                }
                if (p.dy != nullptr) {
                    load_eight<kWhole>(z, static_cast<const T*>(p.dy) + at, columns);
                    derivative.multiply(z, slope, keep);
#pragma unroll
                    for (int k = 0; k < 8; ++k) v[k] *= z[k], product[k] += v[k], z[k] *= v_scale[k];
                    if (p.d_x != nullptr) store_eight<kWhole>(static_cast<T*>(p.d_x) + at, z, columns);
                }
            }
            if (!kLast && d_scale != nullptr) band.add_to_row(products, r, v);
        });
        if (kLast && d_scale != nullptr) band.store_columns(d_scale, p.n, block, product);
    }
    __syncthreads();
    if (!kLast && d_scale != nullptr) store_rows(d_scale, band, products);
}

template <class T, bool kLast>
void run(const ScaleBiasActGradParams& p, std::uintptr_t stream) {
    const Bands plan(p.n, p.rows, p.cols);
    const bool whole =
        p.cols % 8 == 0 && is_aligned(p.dy) && is_aligned(p.dx) && is_aligned(p.x) && is_aligned(p.scale);
    const auto kernel = whole ? backward<T, kLast, true> : backward<T, kLast, false>;
    launch("scale_bias_act_grad", kernel, p.n * plan.slots, kBandThreads, stream, p, Derivative<Wide<T>>(p), plan);
}

template <class T, bool kLast>
void run(const ScaleBiasActSecondParams& p, std::uintptr_t stream) {
    const Bands plan(p.n, p.rows, p.cols);
    const void* const memories[] = {p.dy, p.x, p.scale, p.v_x, p.v_scale, p.v_b, p.v_noise, p.d_dy, p.d_x};
    const bool whole = p.cols % 8 == 0 && std::all_of(std::begin(memories), std::end(memories), is_aligned);
    const auto kernel = whole ? second<T, kLast, true> : second<T, kLast, false>;
    launch("scale_bias_act_second", kernel, p.n * plan.slots, kBandThreads, stream, p, Derivative<Wide<T>>(p), plan);
}

template <class Params>
void run_with(const Params& p, std::uintptr_t stream) {
    with_dtype(p.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        return p.channels_last ? run<T, true>(p, stream) : run<T, false>(p, stream);
    });
}

}  // namespace

void scale_bias_act_grad(const ScaleBiasActGradParams& p, std::uintptr_t stream) { run_with(p, stream); }

void scale_bias_act_second(const ScaleBiasActSecondParams& p, std::uintptr_t stream) { run_with(p, stream); }

int scale_bias_act_grad_slots(std::int64_t n, std::int64_t rows, std::int64_t cols, std::uintptr_t) {
    return int(Bands(n, rows, cols).slots);
}

}  // namespace cuda
}  // namespace gan_engine
