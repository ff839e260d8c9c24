#include "fir.h"

namespace gan_engine {
namespace GE_ISA {
namespace {

// The ends of a filter that does nothing else.
template <class Number, bool channels_last>
struct FilterOnly {
    using T = Number;
    using V = typename Wide<T>::Vec;
    static constexpr bool kReadsAll = false;
    const Upfirdn2dParams& p;

    fir::Untouched<V> in(const Row&, bool) const { return {}; }

    struct Run {
        T* y;
        GE_INLINE void operator()(std::int64_t i, std::int64_t left, V v) const { store_up_to(y + i, left, v); }
        void end() const {}
    };
    struct Out {
        T* y;
        std::int64_t step;
        Run run(std::int64_t k) const { return {y + k * step}; }
        void done() const {}
    };
    Out out(const Row& row) const {
        const fir::Place<channels_last> place(row, p.c, p.h.out, p.w.out);
        return {static_cast<T*>(p.y) + place.element, place.step};
    }
};

template <class T>
void with_layout(const Upfirdn2dParams& p, int threads) {
    const int parts = fir::parts(p, threads);
    in_parallel(parts, [&](int part) {
        p.channels_last ? fir::filter<fir::Interleaved>(p, part, parts, FilterOnly<T, true>{p})
                        : fir::filter<fir::Planar>(p, part, parts, FilterOnly<T, false>{p});
    });
}

}  // namespace

void upfirdn2d(const Upfirdn2dParams& p, int threads) {
    with_dtype(p.dtype, [&](auto stored) { with_layout<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
