#include "../bias_act.h"

#include <algorithm>

#include "activations.h"
#include "eight.h"
#include "launch.h"
#include "sum_of_block.h"

namespace gan_engine {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// The bias gradient is split over at most kBlocks blocks: 2 waves of 8 blocks on 132 multiprocessors. A thread of a
// block has at least kGroupsPerThread groups of 8 elements. Both are estimates, untested on a GPU.
constexpr std::int64_t kBlocks = 2048;
constexpr std::int64_t kGroupsPerThread = 4;

// Groups of 8 elements that a thread loads before it computes: at least 32 bytes in flight.
template <class T, Act act>
constexpr int kInFlight = sizeof(T) == 2 && !kIsSmooth<act> ? 2 : 1;

template <class S>
struct Constants {
    S alpha, gain, inverse_gain, clamp;

    template <class Params>
    explicit Constants(const Params& p)
        : alpha(S(p.alpha)), gain(S(p.gain)), inverse_gain(S(p.gain != 0 ? 1 / p.gain : 0)), clamp(S(p.clamp)) {}
};

// The channels of 8 neighbours: not needed, the same for all, c to c + 7, or any mixture.
enum class Spread { kNone, kConstant, kConsecutive, kMixed };

// The biases of elements i to i + 7.
template <class S>
__device__ __forceinline__ void biases(S (&out)[8], const S* b, std::int64_t i, Spread spread, std::int64_t inner,
                                       std::int64_t channels, bool aligned) {
    if (spread == Spread::kNone) {
#pragma unroll
        for (int k = 0; k < 8; ++k) out[k] = 0;
    } else if (spread == Spread::kConsecutive) {
        Eight<S> eight;
        eight.load(b, i % channels, channels, aligned);
#pragma unroll
        for (int k = 0; k < 8; ++k) out[k] = eight.v[k];
    } else {
        const std::int64_t row = i / inner;
        std::int64_t c = row % channels, left = (row + 1) * inner - i;
        S bias = b[c];
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            if (spread == Spread::kMixed && left-- == 0) {
                left = inner - 1;
                c = c + 1 < channels ? c + 1 : 0;
                bias = b[c];
            }
            out[k] = bias;
        }
    }
}

template <class T, Act act>
__global__ void __launch_bounds__(kThreads)
    forward(BiasActParams p, Constants<Wide<T>> constants, Spread spread, bool aligned, bool b_aligned) {
    using S = Wide<T>;
    const std::int64_t first = (std::int64_t(blockIdx.x) * kInFlight<T, act> * kThreads + threadIdx.x) * 8;
    Eight<T> x[kInFlight<T, act>];
#pragma unroll
    for (int g = 0; g < kInFlight<T, act>; ++g)
        x[g].load(static_cast<const T*>(p.x), first + g * kThreads * 8, p.n, aligned);
#pragma unroll
    for (int g = 0; g < kInFlight<T, act>; ++g) {
        const std::int64_t i = first + g * kThreads * 8;
        if (i >= p.n) return;
        S bias[8];
        biases(bias, static_cast<const S*>(p.b), i, spread, p.inner, p.channels, b_aligned);
        unsigned slope = 0, keep = 0;
        Eight<T> y;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            const S z = widen(x[g].v[k]) + bias[k];
            slope |= unsigned(act == Act::kRelu ? !(z <= 0) : z > 0) << k;
            S v = activate<act>(z, constants.alpha) * constants.gain;
            if (p.clamp >= 0) {
                keep |= unsigned(v <= constants.clamp && v >= -constants.clamp) << k;
                v = v > constants.clamp ? constants.clamp : v;  // not fmin: NaN stays NaN
                v = v < -constants.clamp ? -constants.clamp : v;
            }
            y.v[k] = narrow<T>(v);
        }
        y.store(static_cast<T*>(p.y), i, 0, p.n, aligned);
        if (p.slope != nullptr) p.slope[i / 8] = std::uint8_t(slope);
        if (p.keep != nullptr) p.keep[i / 8] = std::uint8_t(keep);
    }
}

// The inputs of the gradient of elements i to i + 7.
template <class T, Act act>
struct Loaded {
    using S = Wide<T>;
    Eight<T> dy, saved;
    unsigned slope, keep;

    __device__ __forceinline__ void load(const BiasActGradParams& p, std::int64_t i, bool aligned) {
        dy.load(static_cast<const T*>(p.dy), i, p.n, aligned);
        if constexpr (kIsSmooth<act>) saved.load(static_cast<const T*>(p.saved), i, p.n, aligned);
        if constexpr (act == Act::kRelu || act == Act::kLRelu) slope = i < p.n ? p.slope[i / 8] : 0;
        if constexpr (!kIsSmooth<act>) keep = p.keep == nullptr ? 0xff : i < p.n ? p.keep[i / 8] : 0;
    }

    __device__ __forceinline__ S gradient(int k, const Constants<S>& constants, S d_db, S bias, bool clamps) const {
        S v = (widen(dy.v[k]) + d_db) * constants.gain;
        if constexpr (act == Act::kSwish) {
            const S z = widen(saved.v[k]) + bias;
            const S s = sigmoid(z);
            v *= s * (1 + z * (1 - s));
            return !clamps || absolute(z * s * constants.gain) <= constants.clamp ? v : S(0);
        } else if constexpr (kIsSmooth<act>) {
            const S read = widen(saved.v[k]);
            const S t = clamps ? activate<act>(read + bias, constants.alpha) : read * constants.inverse_gain;
            v *= slope_of<act>(t);
            return !clamps || absolute(t * constants.gain) <= constants.clamp ? v : S(0);
        } else {
            if constexpr (act == Act::kRelu) v = slope >> k & 1 ? v : S(0);
            if constexpr (act == Act::kLRelu) v = slope >> k & 1 ? v : constants.alpha * v;
            return keep >> k & 1 ? v : S(0);
        }
    }
};

// The gradient by rows. Memory is [rows, channels, inner]. A block takes a share of the groups of 8 elements of one
// channel: all groups that hold an element of a row of the channel. Groups start at multiples of 8, so they may hold
// elements of the neighbouring rows too. Those are loaded, and not written.
struct Rows {
    std::int64_t rows, groups_per_row, slots, share;
    int threads;

    Rows(std::int64_t n, std::int64_t inner, std::int64_t channels) : rows(n / (inner * channels)) {
        const bool even = inner % 8 == 0 || rows * channels == 1;
        groups_per_row = even ? divide_up(inner, 8) : (inner + 14) / 8;
        const std::int64_t groups = rows * groups_per_row;
        const std::int64_t most = std::max<std::int64_t>(1, groups / (kThreads * kGroupsPerThread));
        slots = std::min(most, std::max<std::int64_t>(1, kBlocks / channels));
        share = divide_up(groups, slots);
        threads = int(std::min<std::int64_t>(kThreads, divide_up(share, 32) * 32));
    }
};

template <class T, Act act>
__global__ void __launch_bounds__(kThreads)
    backward_rows(BiasActGradParams p, Constants<Wide<T>> constants, Rows plan, bool aligned) {
    using S = Wide<T>;
    const std::int64_t slot = blockIdx.x / p.channels, c = blockIdx.x % p.channels;
    const S d_db = p.d_db == nullptr ? S(0) : static_cast<const S*>(p.d_db)[c];
    const S bias = p.b == nullptr ? S(0) : static_cast<const S*>(p.b)[c];
    const std::int64_t end = min((slot + 1) * plan.share, plan.rows * plan.groups_per_row);
    S sum[8] = {};
    for (std::int64_t j = slot * plan.share + threadIdx.x; j < end; j += kInFlight<T, act> * blockDim.x) {
        Loaded<T, act> loaded[kInFlight<T, act>];
        std::int64_t at[kInFlight<T, act>], start[kInFlight<T, act>];
#pragma unroll
        for (int g = 0; g < kInFlight<T, act>; ++g) {
            const std::int64_t group = j + g * blockDim.x, row = group / plan.groups_per_row;
            start[g] = (row * p.channels + c) * p.inner;
            at[g] = group < end ? start[g] / 8 * 8 + (group - row * plan.groups_per_row) * 8 : p.n;
            loaded[g].load(p, at[g], aligned);
        }
#pragma unroll
        for (int g = 0; g < kInFlight<T, act>; ++g) {
            const std::int64_t i = at[g], stop = start[g] + p.inner;
            if (i >= stop || i >= p.n) continue;
            Eight<T> dx;
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                const S v = loaded[g].gradient(k, constants, d_db, bias, p.clamp >= 0);
                if (i + k >= start[g] && i + k < stop) sum[k] += v;
                dx.v[k] = narrow<T>(v);
            }
            dx.store(static_cast<T*>(p.dx), i, start[g], stop, aligned);
        }
    }
    if (p.slots > 0) {
        double total = 0;
#pragma unroll
        for (int k = 0; k < 8; ++k) total += sum[k];
        total = sum_of_block(total);
        if (threadIdx.x == 0) static_cast<S*>(p.partial)[slot * p.channels + c] = S(total);
    }
}

// The gradient by columns, where the channels are innermost. Memory is [rows, width], where `width` is the least
// multiple of `channels` and of 8; the last row may be shorter. A thread keeps to one group of 8 columns, so it knows
// their channels. Column k belongs to channel k % channels. Partial sums [slots, width] are thus partial sums [slots *
// repeat, channels].
struct Columns {
    std::int64_t width, repeat, rows, blocks, slots, share;
    int across, down;  // groups of columns, and rows, that a block handles at a time

    Columns(std::int64_t n, std::int64_t channels) {
        repeat = channels % 8 == 0 ? 1 : channels % 4 == 0 ? 2 : channels % 2 == 0 ? 4 : 8;
        width = repeat * channels;
        rows = divide_up(n, width);
        blocks = divide_up(width / 8, 32);
        across = int(divide_up(width / 8, blocks));
        down = kThreads / across;
        const std::int64_t most = std::max<std::int64_t>(1, rows / (down * kGroupsPerThread));
        slots = std::min(most, std::max<std::int64_t>(1, kBlocks / blocks));
        share = divide_up(rows, slots);
    }
};

// At least two blocks on a multiprocessor: without this bound the compiler aims at more, and spills (float32 swish,
// sm_80).
template <class T, Act act>
__global__ void __launch_bounds__(kThreads, 2)
    backward_columns(BiasActGradParams p, Constants<Wide<T>> constants, Columns plan, bool aligned) {
    using S = Wide<T>;
    __shared__ double sums[8][kThreads];
    const std::int64_t slot = blockIdx.x / plan.blocks;
    const int down = int(threadIdx.x) / plan.across;
    const std::int64_t column = (blockIdx.x % plan.blocks * plan.across + threadIdx.x % plan.across) * 8;
    const bool active = column < plan.width && down < plan.down;
    S d_db[8], bias[8], sum[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
        const std::int64_t c = (column + k) % p.channels;
        d_db[k] = p.d_db == nullptr ? S(0) : static_cast<const S*>(p.d_db)[c];
        bias[k] = p.b == nullptr ? S(0) : static_cast<const S*>(p.b)[c];
        sum[k] = 0;
    }
    const std::int64_t end = active ? min((slot + 1) * plan.share, plan.rows) : 0;
    for (std::int64_t row = slot * plan.share + down; row < end; row += kInFlight<T, act> * plan.down) {
        Loaded<T, act> loaded[kInFlight<T, act>];
#pragma unroll
        for (int g = 0; g < kInFlight<T, act>; ++g) {
            const std::int64_t at = row + g * plan.down;
            loaded[g].load(p, at < end ? at * plan.width + column : p.n, aligned);
        }
#pragma unroll
        for (int g = 0; g < kInFlight<T, act>; ++g) {
            const std::int64_t at = row + g * plan.down, i = at * plan.width + column;
            if (at >= end || i >= p.n) continue;
            Eight<T> dx;
#pragma unroll
            for (int k = 0; k < 8; ++k) {
                const S v = loaded[g].gradient(k, constants, d_db[k], bias[k], p.clamp >= 0);
                if (i + k < p.n) sum[k] += v;
                dx.v[k] = narrow<T>(v);
            }
            dx.store(static_cast<T*>(p.dx), i, 0, p.n, aligned);
        }
    }
    if (p.slots == 0) return;
#pragma unroll
    for (int k = 0; k < 8; ++k) sums[k][threadIdx.x] = sum[k];
    for (int height = plan.down; height > 1;) {
        const int half = (height + 1) / 2;
        __syncthreads();
        if (down + half < height) {
#pragma unroll
            for (int k = 0; k < 8; ++k) sums[k][threadIdx.x] += sums[k][threadIdx.x + half * plan.across];
        }
        height = half;
    }
    if (active && down == 0) {
#pragma unroll
        for (int k = 0; k < 8; ++k)
            static_cast<S*>(p.partial)[slot * plan.width + column + k] = S(sums[k][threadIdx.x]);
    }
}

template <class T, Act act>
void run(const BiasActParams& p, std::uintptr_t stream) {
    const Spread spread = p.b == nullptr                        ? Spread::kNone
                          : p.inner % 8 == 0                    ? Spread::kConstant
                          : p.inner == 1 && p.channels % 8 == 0 ? Spread::kConsecutive
                                                                : Spread::kMixed;
    const std::int64_t blocks = divide_up(p.n, std::int64_t(8) * kThreads * kInFlight<T, act>);
    launch("bias_act", forward<T, act>, blocks, kThreads, stream, p, Constants<Wide<T>>(p), spread,
           is_aligned(p.x) && is_aligned(p.y), is_aligned(p.b));
}

template <class T, Act act>
void run(BiasActGradParams p, std::uintptr_t stream) {
    const bool aligned = is_aligned(p.dy) && is_aligned(p.dx) && (!kIsSmooth<act> || is_aligned(p.saved));
    const Constants<Wide<T>> constants(p);
    if (p.slots == 0 && p.d_db == nullptr && p.b == nullptr) p.inner = p.n, p.channels = 1;
    if (p.inner == 1) {
        const Columns plan(p.n, p.channels);
        launch("bias_act_grad", backward_columns<T, act>, plan.slots * plan.blocks, kThreads, stream, p, constants,
               plan, aligned);
    } else {
        const Rows plan(p.n, p.inner, p.channels);
        launch("bias_act_grad", backward_rows<T, act>, plan.slots * p.channels, plan.threads, stream, p, constants,
               plan, aligned);
    }
}

template <class T, class Params>
void run_with(const Params& p, std::uintptr_t stream) {
    switch (p.act) {
        case Act::kLinear: return run<T, Act::kLinear>(p, stream);
        case Act::kRelu: return run<T, Act::kRelu>(p, stream);
        case Act::kLRelu: return run<T, Act::kLRelu>(p, stream);
        case Act::kTanh: return run<T, Act::kTanh>(p, stream);
        case Act::kSigmoid: return run<T, Act::kSigmoid>(p, stream);
        case Act::kElu: return run<T, Act::kElu>(p, stream);
        case Act::kSelu: return run<T, Act::kSelu>(p, stream);
        case Act::kSoftplus: return run<T, Act::kSoftplus>(p, stream);
        case Act::kSwish: return run<T, Act::kSwish>(p, stream);
    }
}

}  // namespace

void bias_act(const BiasActParams& p, std::uintptr_t stream) {
    with_dtype(p.dtype, [&](auto stored) { run_with<typename decltype(stored)::T>(p, stream); });
}

void bias_act_grad(const BiasActGradParams& p, std::uintptr_t stream) {
    with_dtype(p.dtype, [&](auto stored) { run_with<typename decltype(stored)::T>(p, stream); });
}

int bias_act_grad_slots(std::int64_t n, std::int64_t inner, std::int64_t channels, std::uintptr_t) {
    if (inner != 1) return int(Rows(n, inner, channels).slots);
    const Columns plan(n, channels);
    return int(plan.slots * plan.repeat);
}

}  // namespace cuda
}  // namespace gan_engine
