// The taps of a weight, in strips that transforms read and write.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "winograd_tiles.h"
#include "zip.h"

namespace gan_engine {
namespace GE_ISA {
namespace minimal {

// A strip: the taps of kStrip channels in, for a panel of channels out that lie side by side.
constexpr std::int64_t kStrip = 16;
template <class A>
struct Strip {
    static constexpr int kTaps = A::Down::kTaps * A::Across::kTaps;
    float taps[kStrip][kTaps][kPanel];
};

// Where taps are whose channels out lie side by side: tap k of channel in i lies at at[k] + i * row.
template <class A, class T>
struct TapsAt {
    static constexpr int kTaps = Strip<A>::kTaps;
    T* at[kTaps];
    std::int64_t row, next = 0;  // `next` elements further lies what is fetched into the cache

    explicit TapsAt(Strip<A>& strip) : row(kTaps * kPanel) {
        for (int k = 0; k < kTaps; ++k) at[k] = strip.taps[0][k];
    }
    // In a run.
    TapsAt(T* run, std::int64_t tap) : row(kPanel) {
        for (int k = 0; k < kTaps; ++k) at[k] = run + k * tap;
    }
    // In the weight itself, whose s.stride_out is 1.
    TapsAt(const WinogradWeight& s, T* weight, std::int64_t out, std::int64_t in, std::int64_t rows_ahead)
        : row(s.stride_in), next(rows_ahead * s.stride_in) {
        for (int k = 0; k < kTaps; ++k) {
            const int y = k / A::Across::kTaps, x = k % A::Across::kTaps;
            at[k] = weight + out + in * s.stride_in + y * s.stride_y + x * s.stride_x;
        }
    }
    // A channel that comes next is too far away for the CPU to fetch it by itself.
    GE_INLINE void fetch(std::int64_t i, std::int64_t lanes) const {
        if (next == 0) return;
        for (int k = 0; k < kTaps; ++k)
            for (std::int64_t lane = 0; lane < lanes; lane += kLine)
                __builtin_prefetch(at[k] + i * row + next + lane, !std::is_const_v<T>);
    }
};

// Whether a strip of the weight lies in memory as TapsAt says.
inline bool side_by_side(const WinogradWeight& s, std::int64_t out, std::int64_t in) {
    return s.stride_out == 1 && s.out - out >= kPanel && s.in - in >= kStrip;
}

inline std::int64_t strips(std::int64_t channels) { return (channels + kStrip - 1) / kStrip; }

// Smaller weights stay in the second-level cache, or are not waited for long.
constexpr std::int64_t kLargeWeight = 1 << 17;

// The lines of the cache with the taps of `in` channels in and `out` channels out, if they begin at a line: offsets
// from the first tap of the first channels. Empty for weights that are not large, or whose numbers do not lie side by
// side.
template <class A>
std::vector<std::int32_t> lines_of_taps(const WinogradWeight& s, std::int64_t in, std::int64_t out) {
    if (s.in * s.out * Strip<A>::kTaps < kLargeWeight) return {};
    in = std::min(in, s.in), out = std::min(out, s.out);
    struct Axis {
        std::int64_t stride, size;
    };
    std::array<Axis, 4> axes = {
        {{s.stride_x, A::Across::kTaps}, {s.stride_y, A::Down::kTaps}, {s.stride_in, in}, {s.stride_out, out}}};
    std::int64_t first = 0;  // the tap that comes first in memory
    for (Axis& axis : axes)
        if (axis.stride < 0) first += (axis.size - 1) * axis.stride, axis.stride = -axis.stride;
    std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) { return a.stride < b.stride; });
    if (axes[0].stride != 1) return {};
    std::int64_t run = axes[0].size;  // numbers side by side
    for (int k = 1; k < 4; ++k)
        if (axes[k].stride == run) run *= axes[k].size, axes[k].size = 1;
    std::vector<std::int32_t> lines;
    lines.reserve(axes[3].size * axes[2].size * axes[1].size * (run / kLine + 1));
    for (std::int64_t i = 0; i < axes[3].size; ++i)
        for (std::int64_t j = 0; j < axes[2].size; ++j)
            for (std::int64_t k = 0; k < axes[1].size; ++k) {
                const std::int64_t at = first + i * axes[3].stride + j * axes[2].stride + k * axes[1].stride;
                for (std::int64_t line = 0; line < run; line += kLine) lines.push_back(std::int32_t(at + line));
            }
    return lines;
}

// Moves a number of the weight to the strip, or back where the weight is not const.
inline void move(const float& w, float& tap) { tap = w; }
inline void move(float& w, float& tap) { w = tap; }

// Moves a square of kRegLanes x kRegLanes numbers, where channels out are `stride` apart in the weight. `rows` apart:
// numbers of the strip whose numbers of the weight are neighbours. `next` elements further lies what is moved later.
template <class W>
GE_INLINE void move_square(W* w, std::int64_t stride, float* strip, std::int64_t rows, std::int64_t next) {
    Register v[kRegLanes];
    for (int k = 0; k < kRegLanes; ++k) {
        if constexpr (std::is_const_v<W>)
            v[k] = load<Register>(w + k * stride);
        else
            v[k] = load<Register>(strip + k * rows);
        __builtin_prefetch(w + k * stride + next, !std::is_const_v<W>);
    }
    transpose_square(v);
    for (int k = 0; k < kRegLanes; ++k) {
        if constexpr (std::is_const_v<W>)
            store(strip + k * rows, v[k], false);
        else
            store(w + k * stride, v[k], false);
    }
}

// A run: [taps, kRun channels in, 32]. A weight whose channels in are neighbours moves to runs. Strips would come back
// to each of its pages too often.
constexpr std::int64_t kRun = 128;
constexpr std::int64_t kRunTap = kRun * kPanel + kApart;

inline bool moves_to_runs(const WinogradWeight& s) { return s.stride_in == 1 && s.stride_out != 1; }

// Moves the taps of `rows` channels in, whole strips, for a whole panel of channels out.
template <class A>
[[gnu::noinline]] void move_run(const WinogradWeight& s, const float* weight, std::int64_t out, std::int64_t in,
                                std::int64_t rows, float* run) {
    const float* const first = weight + out * s.stride_out + in;
    for (int y = 0; y < A::Down::kTaps; ++y)
        for (int x = 0; x < A::Across::kTaps; ++x, run += kRunTap) {
            const float* const tap = first + y * s.stride_y + x * s.stride_x;
            const std::int64_t next = x + 1 < A::Across::kTaps ? s.stride_x
                                      : y + 1 < A::Down::kTaps ? s.stride_y - x * s.stride_x
                                                               : first + rows - tap;
            for (std::int64_t lane = 0; lane < kPanel; lane += kRegLanes)
                for (std::int64_t i = 0; i < rows; i += kRegLanes)
                    move_square(tap + lane * s.stride_out + i, s.stride_out, run + i * kPanel + lane, kPanel, next);
        }
}

// Moves all taps of a strip, whose first channels are `out` and `in`.
template <class A, class W>
void move_strip(const WinogradWeight& s, W* weight, std::int64_t out, std::int64_t in, Strip<A>& strip) {
    constexpr std::int64_t kTaps = Strip<A>::kTaps;
    const std::int64_t lanes = std::min(kPanel, s.out - out), rows = std::min(kStrip, s.in - in);
    W* const first = weight + out * s.stride_out + in * s.stride_in;
    const auto at = [&](std::int64_t lane, int y, int x, std::int64_t i) {
        return first + lane * s.stride_out + i * s.stride_in + y * s.stride_y + x * s.stride_x;
    };
    const bool whole = lanes == kPanel && rows == kStrip;
    if (whole && s.stride_x == 1 && s.stride_y == A::Across::kTaps && s.stride_in == kTaps) {
        // All taps of a channel out are neighbours, for all channels in of the strip.
        for (std::int64_t lane = 0; lane < kPanel; lane += kRegLanes)
            for (std::int64_t k = 0; k < kStrip * kTaps; k += kRegLanes)
                move_square(at(lane, 0, 0, 0) + k, s.stride_out, &strip.taps[0][0][0] + k * kPanel + lane, kPanel,
                            kStrip * kTaps);
    } else if (whole && s.stride_in == 1) {
        for (std::int64_t lane = 0; lane < kPanel; lane += kRegLanes)
            for (int y = 0; y < A::Down::kTaps; ++y)
                for (int x = 0; x < A::Across::kTaps; ++x)
                    for (std::int64_t i = 0; i < kStrip; i += kRegLanes)
                        move_square(at(lane, y, x, i), s.stride_out, &strip.taps[i][y * A::Across::kTaps + x][lane],
                                    kTaps * kPanel, kStrip);
    } else if (whole && s.stride_out == kTaps && std::abs(s.stride_x) == 1 &&
               s.stride_y == A::Across::kTaps * s.stride_x) {
        // The same for a channel in and all channels out of the panel. The taps may come in reverse order.
        constexpr std::int64_t kSquares = kTaps / kRegLanes * kRegLanes;
        const bool reversed = s.stride_x < 0;
        for (std::int64_t i = 0; i < kStrip; ++i)
            for (std::int64_t lane = 0; lane < kPanel; lane += kRegLanes) {
                W* const w = at(lane, 0, 0, i) - (reversed ? kTaps - 1 : 0);
                const std::int64_t step = reversed ? -kPanel : kPanel;
                float* const tap = &strip.taps[i][reversed ? kTaps - 1 : 0][lane];
                for (std::int64_t k = 0; k < kSquares; k += kRegLanes)
                    move_square(w + k, kTaps, tap + k * step, step, s.stride_in);
                for (std::int64_t k = kSquares; k < kTaps; ++k)
                    for (int j = 0; j < kRegLanes; ++j) move(w[j * kTaps + k], tap[k * step + j]);
            }
    } else {
        // Lanes beyond the weight are 0, as long as the strip is read from the weight.
        if (std::is_const_v<W> && lanes < kPanel) strip = {};
        for (std::int64_t i = 0; i < rows; ++i)
            for (int y = 0; y < A::Down::kTaps; ++y)
                for (int x = 0; x < A::Across::kTaps; ++x)
                    for (std::int64_t lane = 0; lane < lanes; ++lane)
                        move(*at(lane, y, x, i), strip.taps[i][y * A::Across::kTaps + x][lane]);
    }
}

}  // namespace minimal
}  // namespace GE_ISA
}  // namespace gan_engine
