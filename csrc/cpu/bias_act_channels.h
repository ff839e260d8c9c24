// The channels of elements that lie one after the other, and the biases of these channels.
#pragma once

#include "vec.h"

namespace gan_engine {
namespace GE_ISA {

// The channels of 16 neighbouring elements: the same for all, c to c + 15, or any mixture.
enum class Spread { kConstant, kConsecutive, kMixed };

struct Channels {
    std::int64_t inner, count;
    Spread spread;

    Channels(std::int64_t n, std::int64_t inner_, std::int64_t count_, bool needed) : inner(inner_), count(count_) {
        const bool one = !needed || count == 1;
        if (one) inner = n + kLanes, count = 1;
        spread = one || inner % kLanes == 0          ? Spread::kConstant
                 : inner == 1 && count % kLanes == 0 ? Spread::kConsecutive
                                                     : Spread::kMixed;
    }
    std::int64_t channel_of(std::int64_t i) const { return i / inner % count; }

    // The end of the run that starts at i. Within a run, the channels of a vector stay the same, or all advance by 16
    // with each vector and start again after the last channel.
    std::int64_t run_end(std::int64_t i, std::int64_t end) const {
        const std::int64_t stop = spread == Spread::kConstant      ? (i / inner + 1) * inner
                                  : spread == Spread::kConsecutive ? end
                                                                   : i + kLanes;
        return stop < end ? stop : end;
    }
};

// The biases of elements i to i + 15. Element i belongs to channel c.
template <Spread spread, class V, class S>
GE_INLINE V biases(const S* b, const Channels& channels, std::int64_t i, std::int64_t c) {
    if (b == nullptr) return V{};
    if constexpr (spread == Spread::kConstant) return splat<V>(b[c]);
    if constexpr (spread == Spread::kConsecutive) return load(b + c);
    S each[kLanes];
    std::int64_t left = channels.inner - i % channels.inner;
    for (int k = 0; k < kLanes; ++k, --left) {
        if (left == 0) left = channels.inner, c = c + 1 < channels.count ? c + 1 : 0;
        each[k] = b[c];
    }
    return load(each);
}

}  // namespace GE_ISA
}  // namespace gan_engine
