#include "../filtered_lrelu.h"

#include "fir.h"

namespace gan_engine {
namespace GE_ISA {

void filtered_lrelu(const FilteredLreluParams& p, int threads);

namespace {

// A filter that does nothing else: float and double are filtered in place, half precision is widened and rounded.
template <class T, bool channels_last>
struct FilterOnly final : fir::Ends<typename Wide<T>::Scalar> {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;
    const Upfirdn2dParams& p;

    explicit FilterOnly(const Upfirdn2dParams& p_) : p(p_) {
        if constexpr (std::is_same_v<T, S>) {
            this->x = static_cast<const S*>(p.x), this->y = static_cast<S*>(p.y), this->finishes = false;
        }
    }
    void in(const Row& row, bool, S* to, std::int64_t step) override {
        fir::widen_row<T, channels_last>(p, row, to, step);
    }
    void out(const Row& row, S* made, std::int64_t step) override {
        const fir::Place<channels_last> place(row, p.c, p.h.out, p.w.out);
        T* y = static_cast<T*>(p.y) + place.element;
        fir::for_runs<channels_last>(row, [&](std::int64_t k, std::int64_t n) {
            for (std::int64_t i = 0; i < n; i += kLanes)
                store_up_to(y + k * place.step + i, n - i, load<V>(made + k * step + i));
        });
    }
};

template <class T>
void with_layout(const Upfirdn2dParams& p, int threads) {
    const int parts = fir::parts(p, threads);
    in_parallel(parts, [&](int part) {
        FilterOnly<T, true> last(p);
        FilterOnly<T, false> planar(p);
        p.channels_last ? fir::filter(p, part, parts, last) : fir::filter(p, part, parts, planar);
    });
}

// Long filters are bound by loads of pixels, which sixteen planes at once share between outputs. With fewer planes,
// most lanes would be empty. In channels_last the other filter stays.
constexpr std::int64_t kLongTaps = 8, kFewestPlanes = 8;

// The filter as half of a filtered_lrelu whose other half and leaky ReLU change nothing; false where it is none.
bool by_planes(const Upfirdn2dParams& p, int threads) {
    const bool ups = p.h.down == 1 && p.w.down == 1, downs = p.h.up == 1 && p.w.up == 1;
    if (p.channels_last || !p.separable || p.w.taps < kLongTaps || p.n * p.c < kFewestPlanes || !(ups || downs))
        return false;
    const float one = 1;
    Upfirdn2dParams first = p, second = p, &same = ups ? second : first;
    const auto size = [&](const FirAxis& a) { return ups ? a.out : a.in; };
    same.f = &one, same.gain = 1, same.flip = true;
    same.h = {size(p.h), size(p.h), 1, 1, 0, 1}, same.w = {size(p.w), size(p.w), 1, 1, 0, 1};
    first.y = nullptr, second.x = nullptr;
    filtered_lrelu({first, second, nullptr, nullptr, nullptr, false, 1, 1, -1}, threads);
    return true;
}

}  // namespace

void upfirdn2d(const Upfirdn2dParams& p, int threads) {
    if (by_planes(p, threads)) return;
    with_dtype(p.dtype, [&](auto stored) { with_layout<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
