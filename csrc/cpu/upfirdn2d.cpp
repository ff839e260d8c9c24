#include "fir.h"

namespace gan_engine {
namespace GE_ISA {
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

}  // namespace

void upfirdn2d(const Upfirdn2dParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { with_layout<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
