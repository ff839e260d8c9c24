// The taps of a filter as correlation weights.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "../upfirdn2d.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {

// Weights of an outer product: down[y] * across[x]. Any other filter has both[y, x]. `across` and `both` have the gain.
//
// A matrix counts as an outer product if each tap is the product of two numbers to the precision of S. Its taps are
// float: in float, three roundings of 2^-24 come together; in double, only an exact product has the precision.
template <class S>
struct Weights {
    bool separable;
    std::vector<S> down, across, both;

    explicit Weights(const Upfirdn2dParams& p) : separable(p.separable) {
        const std::int64_t size = p.separable ? p.w.taps : p.h.taps * p.w.taps;
        std::vector<S> f(size);
        for (std::int64_t k = 0; k < size; ++k) f[k] = S(p.f[p.flip ? k : size - 1 - k]);
        if (p.separable) {
            down = across = f;
            for (S& w : across) w = S(w * p.gain);
        } else if (!factor(f, p.h.taps, p.w.taps, p.gain)) {
            both = f;
            for (S& w : both) w = S(w * p.gain);
        }
    }

  private:
    // f = column * row / peak, where the column and the row cross in the largest tap.
    bool factor(const std::vector<S>& f, std::int64_t h, std::int64_t w, double gain) {
        constexpr double kPrecision = std::is_same_v<S, float> ? 0x1p-21 : 0x1p-50;
        std::int64_t peak = 0;
        for (std::int64_t k = 0; k < h * w; ++k)
            if (std::abs(f[k]) > std::abs(f[peak])) peak = k;
        const double largest = f[peak];
        if (!(std::abs(largest) > 0 && std::abs(largest) <= std::numeric_limits<S>::max())) return false;
        const S *column = &f[peak % w], *row = &f[peak / w * w];
        for (std::int64_t y = 0; y < h; ++y)
            for (std::int64_t x = 0; x < w; ++x) {
                const double tap = f[y * w + x], product = column[y * w] * (row[x] / largest);
                if (!(std::abs(product - tap) <= kPrecision * std::abs(tap))) return false;
            }
        for (std::int64_t y = 0; y < h; ++y) down.push_back(column[y * w]);
        for (std::int64_t x = 0; x < w; ++x) across.push_back(S(row[x] / largest * gain));
        return separable = true;
    }
};

// Whether a filter changes nothing.
template <class S>
bool is_identity(const Upfirdn2dParams& p, const Weights<S>& weights) {
    const auto same = [](const FirAxis& a) {
        return a.taps == 1 && a.up == 1 && a.down == 1 && a.pad == 0 && a.in == a.out;
    };
    return same(p.h) && same(p.w) && weights.separable && weights.down[0] * weights.across[0] == 1;
}

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
