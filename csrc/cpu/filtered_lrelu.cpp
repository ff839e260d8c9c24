#include "../filtered_lrelu.h"

#include <algorithm>

#include "filtered_lrelu_u.h"
#include "filtered_lrelu_y.h"
#include "fir_weights.h"
#include "lanes.h"
#include "rings.h"
#include "scratch.h"
#include "threads.h"

// A tile is a rectangle of y in a block of sixteen planes. Rows pass through it one after the other, as vectors:
//
//     x --read--> row --horizontal--> ring --vertical, act--> ring of u --vertical--> row --horizontal--> row --> y
//
// The first filter mostly upsamples, so its horizontal half comes first, on the fewer rows; the second mostly
// downsamples, so its horizontal half comes last. It never upsamples. A filter that is no outer product takes all its
// taps from a ring.
namespace gan_engine {
namespace GE_ISA {
namespace {

using fir::Weights;

// The rings of a tile should fit into the second-level cache beside what else it holds.
constexpr std::int64_t kRingBytes = 384 << 10;
constexpr std::int64_t kNarrowest = 16, kFewestRows = 16;  // of y in a tile

template <class T>
class Tile {
    using S = typename Wide<T>::Scalar;

  public:
    // Rows [top, bottom) and columns [left, right) of y.
    Tile(const FilteredLreluParams& p, const Weights<S>& one, const Weights<S>& two, std::int64_t top_,
         std::int64_t bottom_, std::int64_t left_, std::int64_t right_)
        : to(static_cast<T*>(p.second.y)),
          planes(p.first.n, p.first.c, p.second.h.out, p.second.w.out, p.first.channels_last),
          top(top_),
          bottom(bottom_),
          left(left_),
          right(right_),
          y(p.second, two, top, bottom, left, right),
          u(p, one, y) {}

    // Bytes of memory.
    std::int64_t lay_out(char* memory) {
        Pieces<S> pieces{memory};
        y.lay_out(pieces, u.rows_at_once());
        u.lay_out(pieces);
        return pieces.taken * std::int64_t(sizeof(S));
    }

    void run(std::int64_t block) {
        y.clear();
        u.start(block);
        for (std::int64_t oy = top; oy < bottom; oy += y.down.size) {
            u.make(y.behind_inputs(oy));
            y.blend(oy);
            for (std::int64_t r = 0; r < std::min(y.down.size, bottom - oy); ++r)
                planes.write(to, block, oy + r, left, right - left, y.make(oy + r, r));
        }
    }

  private:
    T* const to;
    const Planes<T> planes;
    const std::int64_t top, bottom, left, right;
    filtered::RowsOfY<T> y;
    filtered::RowsOfU<T> u;
};

// y is cut into strips of columns whose rings fit into the cache, and into rows where threads want more items. A thread
// has all strips of its rows, because neighbouring strips write some of the same bits.

template <class T>
void run(const FilteredLreluParams& asked, int threads) {
    using S = typename Wide<T>::Scalar;
    const Weights<S> one(asked.first), two(asked.second);
    FilteredLreluParams p = asked;
    p.first.separable = one.separable, p.second.separable = two.separable;
    const std::int64_t h = p.second.h.out, w = p.second.w.out;
    const std::int64_t blocks = Planes<T>(p.first.n, p.first.c, h, w, p.first.channels_last).blocks();
    std::int64_t strips = 1;
    while (w / (2 * strips) >= kNarrowest &&
           Tile<T>(p, one, two, 0, h, 0, (w + strips - 1) / strips).lay_out(nullptr) > kRingBytes)
        strips *= 2;
    const int most = threads_for(p.first.n * p.first.c * p.second.h.in * p.second.w.in, threads);
    const std::int64_t wanted = most == 1 ? 1 : (4 * most + blocks - 1) / blocks;
    const std::int64_t cuts = std::clamp<std::int64_t>(h / kFewestRows, 1, wanted), items = blocks * cuts;
    const int parts = int(std::min<std::int64_t>(most, items));
    in_parallel(parts, [&](int part) {
        for (std::int64_t item = items * part / parts; item < items * (part + 1) / parts; ++item) {
            const std::int64_t cut = item % cuts, top = h * cut / cuts, bottom = h * (cut + 1) / cuts;
            for (std::int64_t k = 0; k < strips; ++k) {
                const std::int64_t left = w * k / strips, right = w * (k + 1) / strips;
                Tile<T> tile(p, one, two, top, bottom, left, right);
                const Buffer memory = buffer(tile.lay_out(nullptr) / 4);
                tile.lay_out(reinterpret_cast<char*>(memory.get()));
                tile.run(item / cuts);
            }
        }
    });
}

}  // namespace

void filtered_lrelu(const FilteredLreluParams& p, int threads) {
    with_dtype(p.first.dtype, [&](auto stored) { run<typename decltype(stored)::T>(p, threads); });
}

}  // namespace GE_ISA
}  // namespace gan_engine
