#include "../upfirdn2d_act.h"

#include "affine.h"
#include "strips.h"

// Filters of 4 taps that keep the size of an image, in channels_last with whole eights of channels: what stands behind
// the transposed convolutions of StyleGAN2. A thread makes a strip of y for eight channels, and finishes each row in
// registers. Other calls run as upfirdn2d and scale_bias_act; see gan_engine/ops/upfirdn2d_act.py.

namespace gan_engine {
namespace cuda {
namespace {

template <class T>
using Eights = Strip<T, 8, 1, false, 1, 1, 0>;

// Of a block: fewer than in upfirdn2d.cu, because a thread takes 110 to 140 registers, and small blocks leave fewer
// idle.
constexpr int kThreads = 128;

// Where the eight channels of a thread are.
struct Place {
    unsigned image, strip;
    int channel, column;

    __device__ __forceinline__ Place(const StripPlan& plan, unsigned thread) {
        const unsigned at = thread % plan.line, above = thread / plan.line;
        strip = above % plan.strips, image = above / plan.strips;
        channel = int(at % plan.vectors) * 8, column = int(at / plan.vectors);
    }
};

template <class S>
__device__ __forceinline__ void load_channels(S (&to)[8], const void* from, std::int64_t first, S missing) {
#pragma unroll
    for (S& of : to) of = missing;
    if (from != nullptr) read<S, 8>(to, static_cast<const S*>(from) + first, true);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    forward(Upfirdn2dActParams p, StripPlan plan, Activation<Wide<T>> activation) {
    using S = Wide<T>;
    const unsigned thread = blockIdx.x * kThreads + threadIdx.x;
    if (thread >= plan.threads) return;
    const Place place(plan, thread);
    Eights<T> strip(p.fir, plan, thread);
    S scale[8], b[8];
    load_channels<S>(scale, p.scale, place.image * p.fir.c + place.channel, 1);
    load_channels<S>(b, p.b, place.channel, 0);
    const S* noise = static_cast<const S*>(p.noise);
    if (noise != nullptr)
        noise += (p.noise_n > 1 ? place.image : 0) * std::int64_t(plan.h.out) * plan.w.out + place.column;
    const int line = int(mask_bytes(p.fir.c));
    const std::int64_t byte =
        (std::int64_t(place.image) * plan.h.out * plan.w.out + place.column) * line + place.channel / 8;

    strip.run(plan, [&](int oy, S(&z)[1][8]) {
        const S more = noise == nullptr ? S(0) : noise[oy * plan.w.out];
#pragma unroll
        for (int k = 0; k < 8; ++k) z[0][k] = z[0][k] * scale[k] + b[k] + more;
        unsigned slope, keep;
        activation.run(z[0], slope, keep);
        strip.store(oy, z, false);
        const std::int64_t at = byte + std::int64_t(oy * plan.w.out) * line;
        if (p.slope != nullptr) p.slope[at] = std::uint8_t(slope);
        if (p.keep != nullptr) p.keep[at] = std::uint8_t(keep);
    });
}

// p.fir filters dz. Each thread writes its part of d_scale: a slot is a strip of a column.
template <class T>
__global__ void __launch_bounds__(kThreads) backward(Upfirdn2dScaledParams p, StripPlan plan) {
    using S = Wide<T>;
    const unsigned thread = blockIdx.x * kThreads + threadIdx.x;
    if (thread >= plan.threads) return;
    const Place place(plan, thread);
    Eights<T> strip(p.fir, plan, thread);
    S scale[8], products[8] = {};
    load_channels<S>(scale, p.scale, place.image * p.fir.c + place.channel, 1);
    const T* x = static_cast<const T*>(p.x);
    if (x != nullptr) x += place.image * plan.out_plane + place.column * plan.pixel + place.channel;

    strip.run(plan, [&](int oy, S(&g)[1][8]) {
        if (x != nullptr) {
            S v[8];
            read<T, 8>(v, x + oy * strip.out_row, true);
#pragma unroll
            for (int k = 0; k < 8; ++k) products[k] += g[0][k] * v[k];
        }
        if (p.fir.y == nullptr) return;
#pragma unroll
        for (int k = 0; k < 8; ++k) g[0][k] *= scale[k];
        strip.store(oy, g, false);
    });
    if (x == nullptr) return;
    const std::int64_t slot = std::int64_t(place.strip) * plan.w.groups + place.column;
    write<S, 8>(static_cast<S*>(p.d_scale) + (slot * p.fir.n + place.image) * p.fir.c + place.channel, products);
}

StripPlan plan_of(const char* op, const Upfirdn2dParams& fir) {
    if (!StripPlan::fits(fir) || fir.h.up * fir.h.down != 1 || !fir.channels_last || fir.c % 8 != 0)
        throw std::runtime_error(std::string(op) + ": this filter, layout or size has no kernel");
    return StripPlan(fir, 8, 1);
}

void require_aligned(const char* op, std::initializer_list<const void*> memories) {
    for (const void* memory : memories)
        if (!is_aligned(memory)) throw std::runtime_error(std::string(op) + ": want memory aligned to 16 bytes");
}

}  // namespace

void upfirdn2d_act(const Upfirdn2dActParams& p, std::uintptr_t stream) {
    const char* op = "upfirdn2d_act";
    require_aligned(op, {p.fir.x, p.fir.y, p.scale, p.b});
    const StripPlan plan = plan_of(op, p.fir);
    with_dtype(p.fir.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        const Activation<Wide<T>> activation(p.alpha, p.gain, p.clamp);
        launch(op, forward<T>, divide_up(plan.threads, kThreads), kThreads, stream, p, plan, activation);
    });
}

void upfirdn2d_scaled(const Upfirdn2dScaledParams& p, std::uintptr_t stream) {
    const char* op = "upfirdn2d_scaled";
    require_aligned(op, {p.fir.x, p.fir.y, p.x, p.scale, p.d_scale});
    const StripPlan plan = plan_of(op, p.fir);
    with_dtype(p.fir.dtype, [&](auto stored) {
        using T = typename decltype(stored)::T;
        launch(op, backward<T>, divide_up(plan.threads, kThreads), kThreads, stream, p, plan);
    });
}

int upfirdn2d_scaled_slots(std::int64_t planes, std::int64_t height, std::int64_t width, std::uintptr_t) {
    const std::int64_t rows = StripPlan::rows_of(planes / 8 * width, height);
    return int(divide_up(height, rows) * width);
}

}  // namespace cuda
}  // namespace gan_engine
