// The taps of a weight, in strips that transforms read and write.
#pragma once

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

inline std::int64_t strips(std::int64_t channels) { return (channels + kStrip - 1) / kStrip; }

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
    } else if (whole && s.stride_out == 1) {
        // Channels out are neighbours. The strip that comes next is too far away for the CPU to fetch it by itself.
        for (std::int64_t i = 0; i < kStrip; ++i)
            for (int y = 0; y < A::Down::kTaps; ++y)
                for (int x = 0; x < A::Across::kTaps; ++x) {
                    W* const w = at(0, y, x, i);
                    float* const tap = strip.taps[i][y * A::Across::kTaps + x];
                    for (std::int64_t lane = 0; lane < kPanel; lane += kLine)
                        __builtin_prefetch(w + lane + kStrip * s.stride_in, !std::is_const_v<W>);
                    for (std::int64_t lane = 0; lane < kPanel; ++lane) move(w[lane], tap[lane]);
                }
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
