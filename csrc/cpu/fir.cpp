// A row of y needs a few rows of x, and the next row of y needs mostly the same ones. A separable filter, or a matrix
// that is an outer product, blends these rows of x into one spread row, which has zeros around it, and takes its
// horizontal taps from there. Any other filter spreads each row of x, and takes all its taps from the spread rows.
//
//     separable    x  --blend-->  row   --emit-->  y
//     any other    x  --spread--> rows  --emit-->  y
//
// Rows that are needed again lie in a ring in the cache: spread rows, and rows of x that the operator converts. Every
// row of x is converted once, and twice where the shares of two threads meet. Rows outside x are a row of zeros.
#include "fir.h"

#include "fir_channels_last.h"
#include "fir_four_taps.h"
#include "fir_planar.h"
#include "fir_weights.h"

namespace gan_engine {
namespace GE_ISA {
namespace fir {
namespace {

template <class Layout>
class Filter {
    using S = typename Layout::S;

  public:
    Filter(const Upfirdn2dParams& p_, const Weights<S>& weights_, Ends<S>& ends_)
        : p(p_), weights(weights_), ends(ends_), layout(p_, ends_), from_ring(!p.separable || ends.x == nullptr) {
        for (std::int64_t oy = 0; oy < p.h.out; ++oy)
            windows.push_back({p.h.first_tap(oy), p.h.first_input(oy), p.h.count(oy)});
        const std::int64_t outputs = (layout.rows_at_once() - 1) * p.h.down;
        while (slots < (outputs + p.h.taps + p.h.up - 1) / p.h.up + 1) slots *= 2;
        pitch = round_up(p.separable ? layout.raw() : layout.spread(), kLanes);
        zeros.resize(pitch);
        if (from_ring) ring.resize(slots * pitch);
        if (p.separable)
            layout.add_taps(weights.across.data());
        else
            converted.resize(layout.raw());
    }

    // Makes share `part` of `parts` shares of the rows of all planes, one after the other.
    void run(int part, int parts) {
        const std::int64_t rows = layout.planes() * p.h.out, last = rows * (part + 1) / parts;
        for (std::int64_t i = rows * part / parts; i < last;) {
            const std::int64_t start = i % p.h.out, stop = std::min(p.h.out, start + last - i);
            filter_plane(i / p.h.out, start, stop);
            i += stop - start;
        }
        fence();
    }

  private:
    // The rows of x that a row of y takes: first, ..., first + count - 1, with the taps tap, tap + up, ...
    struct Window {
        std::int64_t tap, first, count;
    };
    const Upfirdn2dParams& p;
    const Weights<S>& weights;
    Ends<S>& ends;
    Layout layout;
    const bool from_ring;
    std::vector<Window> windows;
    std::int64_t pitch, slots = 1;  // elements of a row of the ring, and its rows
    Lines<S> zeros, ring, converted;

    S* ring_row(std::int64_t iy) { return ring.data + (iy & (slots - 1)) * pitch; }
    std::int64_t inside(std::int64_t iy) const { return std::clamp<std::int64_t>(iy, 0, p.h.in); }

    // Rows [start, stop) of y.
    void filter_plane(std::int64_t plane, std::int64_t start, std::int64_t stop) {
        std::int64_t ready = start == 0 ? 0 : inside(windows[start].first);  // first row not in the ring
        const std::int64_t others = stop == p.h.out ? p.h.in : inside(windows[stop].first);  // first of the next share
        for (std::int64_t from = start; from < stop; from += layout.rows_at_once()) {
            const std::int64_t to = std::min(from + layout.rows_at_once(), stop);
            for (std::int64_t oy = from; oy < to && from_ring; ++oy) {
                if (!ends.reads_all) ready = std::max(ready, inside(windows[oy].first));
                for (; ready < inside(windows[oy].first + windows[oy].count); ++ready)
                    prepare(plane, ready, ready < others);
            }
            if (p.separable)
                make_separable(plane, from, to);
            else
                make_from_spread(plane, from, to);
        }
        for (; ends.reads_all && ready < others; ++ready) prepare(plane, ready, true);
    }

    // Puts row iy of x into the ring.
    void prepare(std::int64_t plane, std::int64_t iy, bool own) {
        S* row = p.separable ? ring_row(iy) : converted.data;
        if (ends.x == nullptr) ends.in(layout.in_row(plane, iy), own, row, layout.raw_step());
        if (p.separable) return;
        const S* x = ends.x != nullptr ? layout.in_place(plane) + iy * layout.row_step() : row;
        const S one = 1;
        layout.spread_row({x, zeros.data, 0, -1, 1, 0, 1, &one, 0}, plane, ring_row(iy));
    }

    void make_separable(std::int64_t plane, std::int64_t from, std::int64_t to) {
        const S* x = from_ring ? ring.data : layout.in_place(plane);
        const std::int64_t step = from_ring ? pitch : layout.row_step(), mask = from_ring ? slots - 1 : -1;
        layout.make(plane, from, to, p.h.taps % p.h.up == 0 ? int(p.h.taps / p.h.up) : 0,
                    [&](std::int64_t oy) -> VerticalTaps<S> {
                        const Window& w = windows[oy];
                        return {x, zeros.data, step, mask, p.h.in, w.first, w.count, &weights.down[w.tap], p.h.up};
                    });
    }

    void make_from_spread(std::int64_t plane, std::int64_t from, std::int64_t to) {
        for (std::int64_t oy = from; oy < to; ++oy) {
            const Window& w = windows[oy];
            layout.clear_taps();
            for (std::int64_t t = 0, iy = w.first; t < w.count; ++t, ++iy)
                layout.add_taps(iy >= 0 && iy < p.h.in ? ring_row(iy) : zeros.data,
                                &weights.both[(w.tap + t * p.h.up) * p.w.taps]);
            layout.emit_row(plane, oy);
        }
    }
};

template <int Up, int Down>
bool by_four_taps(const Upfirdn2dParams& p, const Weights<float>& weights, int part, int parts,
                  const Ends<float>& ends) {
    using Eight = Native<float, 8>;
    using Four = Native<float, 4>;
    if (!FourTaps<RegF, Up, Down>::fits(p, ends)) return false;
    if (p.w.in == 4 * Down)
        FourTaps<Four, Up, Down>(p, weights, ends).run(part, parts);
    else if (p.w.in <= 8 * Down)
        FourTaps<Eight, Up, Down>(p, weights, ends).run(part, parts);
    else
        FourTaps<RegF, Up, Down>(p, weights, ends).run(part, parts);
    return true;
}

// Filters planes by the class for most filters, or returns false.
bool by_four_taps(const Upfirdn2dParams& p, const Weights<float>& weights, int part, int parts,
                  const Ends<float>& ends) {
    if constexpr (kRegisterBytes > 16)
        return by_four_taps<1, 1>(p, weights, part, parts, ends) || by_four_taps<2, 1>(p, weights, part, parts, ends) ||
               by_four_taps<1, 2>(p, weights, part, parts, ends);
    return false;
}
bool by_four_taps(const Upfirdn2dParams&, const Weights<double>&, int, int, const Ends<double>&) { return false; }

template <class S>
void filter_on(const Upfirdn2dParams& asked, int part, int parts, Ends<S>& ends) {
    const Weights<S> weights(asked);
    Upfirdn2dParams p = asked;
    p.separable = weights.separable;
    if (p.channels_last)
        Filter<ChannelsLast<S>>(p, weights, ends).run(part, parts);
    else if (!by_four_taps(p, weights, part, parts, ends))
        Filter<Planar<S>>(p, weights, ends).run(part, parts);
}

}  // namespace

void filter(const Upfirdn2dParams& p, int part, int parts, Ends<float>& ends) { filter_on(p, part, parts, ends); }
void filter(const Upfirdn2dParams& p, int part, int parts, Ends<double>& ends) { filter_on(p, part, parts, ends); }

}  // namespace fir
}  // namespace GE_ISA
}  // namespace gan_engine
