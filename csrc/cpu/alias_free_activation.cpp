#include "../alias_free_activation.h"

#include <algorithm>

#include "snake.h"
#include "threads.h"
#include "vec.h"

#define GE_INLINED __attribute__((always_inline))

// A row is cut into pieces, which stay in the cache. A piece keeps the elements of u with even and with odd numbers
// apart, as two streams of the step of x. Then each filter is a sum of neighbouring vectors:
//
//     split   even[s] = sum over j of f[2j + 1] x[s + 2 - j],    odd[s] = sum over j of f[2j] x[s + 3 - j]
//     merge   y[m] = sum over j of f[2j + 1] even[m - 2 + j] + f[2j] odd[m - 3 + j]
//
// up is split with fu, and down is merge with fd. merge with fu is up^T, and split with fd is down^T. A repeated border
// becomes in the adjoint a sum: what lies outside of the row is added to its first or last element ("fold").
namespace gan_engine {
namespace GE_ISA {
namespace {

constexpr std::int64_t kPiece = 1024;            // elements of x; a multiple of kLanes
constexpr std::int64_t kRun = 8 * kLanes;        // so many are summed before their sum is added: errors grow less
constexpr std::int64_t kReach = 3, kHalves = 6;  // of a filter to each side, and its taps for one stream
constexpr std::int64_t kBefore = kLanes;         // elements in front of a piece; at least 4 * kReach
constexpr std::int64_t kBuffer = kBefore + kPiece + 4 * kReach + 2 * kLanes;

std::int64_t pieces_of(std::int64_t size) { return std::max<std::int64_t>(1, (size + kPiece - 1) / kPiece); }

// Numbers of a piece: at(s) is where position s of the row lies.
template <class S>
struct Buffer {
    alignas(64) S memory[kBuffer];
    std::int64_t origin;

    S* at(std::int64_t s) { return memory + (s - origin); }
    const S* at(std::int64_t s) const { return memory + (s - origin); }
    S sum(std::int64_t from, std::int64_t to) const {
        S total = 0;
        for (std::int64_t s = from; s < to; ++s) total += *at(s);
        return total;
    }
};
template <class S>
struct Streams {
    Buffer<S> even, odd;
};

template <class T>
class Piece {
    using S = typename Wide<T>::Scalar;
    using V = typename Wide<T>::Vec;

  public:
    explicit Piece(const AliasFreeRows& p_) : p(p_) {
        for (int k = 0; k < 2 * kHalves; ++k) up[k] = S(2) * S(p.fu[k]), down[k] = S(p.fd[k]);
    }

    void move_to(std::int64_t job) {
        const std::int64_t pieces = pieces_of(p.size), channel = job / pieces % p.channels;
        row = job / pieces * p.size, begin = job % pieces * kPiece, end = std::min(begin + kPiece, p.size);
        first = begin == 0, last = end == p.size;
        for (Buffer<S>* b : {&x, &dy, &v, &a.even, &a.odd, &g.even, &g.odd, &q.even, &q.odd, &out})
            b->origin = begin - kBefore;
        snake.alpha = splat<V>(static_cast<const S*>(p.alpha)[channel]);
        snake.b = splat<V>(static_cast<const S*>(p.b)[channel]);
        of_channel = channel;
        read(p.x, x, true);
    }

    void value(const AliasFreeParams& task) {
        each(near_begin(), near_end(), [&](std::int64_t s) GE_INLINED {
            const Two<V> u = split(x, up, s);
            store(q.even.at(s), snake(u.low), false), store(q.odd.at(s), snake(u.high), false);
        });
        repeat_border(q);
        write(task.y, [&](std::int64_t m) GE_INLINED { return merge(q, down, m); });
    }

    void gradient(const AliasFreeGradParams& task, std::int64_t slot, std::int64_t slots) {
        make_a(task.dy);
        V of_alpha{}, of_b{};
        sweep(of_alpha, of_b, [&](std::int64_t s) GE_INLINED {
            const Two<V> u = split(x, up, s);
            store(g.even.at(s), snake.gradient(u.low, load<V>(a.even.at(s)), of_alpha, of_b), false);
            store(g.odd.at(s), snake.gradient(u.high, load<V>(a.odd.at(s)), of_alpha, of_b), false);
        });
        write_adjoint(task.dx);
        S* sums = static_cast<S*>(task.sums);
        sums[slot] = S(sum(of_alpha * snake.b)), sums[slots + slot] = S(sum(of_b));
    }

    void second(const AliasFreeSecondParams& task, std::int64_t slot, std::int64_t slots) {
        make_a(task.dy);
        read(task.v, v, true);
        const V v_alpha = splat<V>(static_cast<const S*>(task.v_alpha)[of_channel]);
        const V v_b = splat<V>(static_cast<const S*>(task.v_b)[of_channel]);
        V of_alpha{}, of_b{};
        const auto derived = [&](V u, V w, V a, S* to_q, S* to_g) GE_INLINED {
            V q, g;
            snake.second(u, w, a, v_alpha, v_b, q, g, of_alpha, of_b);
            store(to_q, q, false), store(to_g, g, false);
        };
        sweep(of_alpha, of_b, [&](std::int64_t s) GE_INLINED {
            const Two<V> u = split(x, up, s), w = split(v, up, s);
            derived(u.low, w.low, load<V>(a.even.at(s)), q.even.at(s), g.even.at(s));
            derived(u.high, w.high, load<V>(a.odd.at(s)), q.odd.at(s), g.odd.at(s));
        });
        repeat_border(q);
        write(task.d_dy, [&](std::int64_t m) GE_INLINED { return merge(q, down, m); });
        write_adjoint(task.d_x);
        S* sums = static_cast<S*>(task.sums);
        sums[slot] = S(sum(of_alpha)), sums[slots + slot] = S(sum(of_b));
    }

  private:
    const AliasFreeRows& p;
    S up[2 * kHalves], down[2 * kHalves];
    std::int64_t row = 0, begin = 0, end = 0, of_channel = 0;  // elements [begin, end) of the row that begins at `row`
    bool first = false, last = false;
    Snake<V> snake{};
    Buffer<S> x, dy, v, out;
    Streams<S> a, g, q;

    // The positions of the streams that the piece needs, inside of the row.
    std::int64_t near_begin() const { return std::max<std::int64_t>(0, begin - kReach); }
    std::int64_t near_end() const { return std::min(p.size, end + kReach); }
    // As far as a filter reaches beyond the row; elsewhere, the piece.
    std::int64_t far_begin() const { return first ? -kReach : begin; }
    std::int64_t far_end() const { return last ? p.size + kReach : end; }

    template <class Body>
    static GE_INLINE void each(std::int64_t from, std::int64_t to, const Body& body) {
        for (std::int64_t s = from; s < to; s += kLanes) body(s);
    }

    // All that the filters reach. Outside of the row lies its border, or 0.
    void read(const void* from, Buffer<S>& to, bool repeats) const {
        const T* numbers = static_cast<const T*>(from) + row;
        const std::int64_t low = begin - 4 * kReach, high = std::min(p.size, end + 4 * kReach);
        const std::int64_t inside = std::max<std::int64_t>(0, low);
        each(inside, high,
             [&](std::int64_t s) GE_INLINED { store(to.at(s), load_up_to<V>(numbers + s, high - s), false); });
        std::fill(to.at(low), to.at(inside), repeats ? *to.at(inside) : S(0));
        std::fill(to.at(high), to.memory + kBuffer, repeats ? *to.at(high - 1) : S(0));
    }

    static GE_INLINE Two<V> split(const Buffer<S>& from, const S* f, std::int64_t s) {
        const S* const at = from.at(s);
        V even{}, odd{};
        for (int j = 0; j < kHalves; ++j) {
            even += f[2 * j + 1] * load<V>(at + 2 - j);
            odd += f[2 * j] * load<V>(at + 3 - j);
        }
        return {even, odd};
    }
    static GE_INLINE V merge(const Streams<S>& from, const S* f, std::int64_t m) {
        const S *const even = from.even.at(m), *const odd = from.odd.at(m);
        V one{}, two{};
        for (int j = 0; j < kHalves; ++j) {
            one += f[2 * j + 1] * load<V>(even - 2 + j);
            two += f[2 * j] * load<V>(odd - 3 + j);
        }
        return one + two;
    }

    // a = down^T(dy), and zeros behind the row.
    void make_a(const void* from) {
        read(from, dy, false);
        each(far_begin() - 2 * kReach, far_end() + 2 * kReach, [&](std::int64_t s) GE_INLINED {
            const Two<V> both = split(dy, down, s);
            store(a.even.at(s), both.low, false), store(a.odd.at(s), both.high, false);
        });
        if (first) *a.even.at(0) += a.even.sum(-kReach, 0) + a.odd.sum(-kReach, 0);
        if (near_end() < p.size) return;
        const std::int64_t behind = p.size + kReach;
        *a.odd.at(p.size - 1) += a.even.sum(p.size, behind) + a.odd.sum(p.size, behind);
        for (Buffer<S>* stream : {&a.even, &a.odd}) std::fill(stream->at(p.size), stream->memory + kBuffer, S(0));
    }

    // body(s) for all positions that the piece needs. The sums count those of the piece alone.
    template <class Body>
    GE_INLINE void sweep(V& of_alpha, V& of_b, const Body& body) {
        if (near_begin() < begin) body(near_begin());
        V sum_alpha{}, sum_b{};
        for (std::int64_t s = begin; s < end;) {
            of_alpha = V{}, of_b = V{};
            for (const std::int64_t stop = std::min(s + kRun, end); s < stop; s += kLanes) body(s);
            sum_alpha += of_alpha, sum_b += of_b;
        }
        if (end < near_end()) body(end);
        of_alpha = sum_alpha, of_b = sum_b;
    }

    void repeat_border(Streams<S>& of) {
        const S before = *of.even.at(begin), behind = *of.odd.at(near_end() - 1);
        for (Buffer<S>* stream : {&of.even, &of.odd}) {
            if (first) std::fill(stream->at(-kReach), stream->at(0), before);
            std::fill(stream->at(near_end()), stream->at(end + kReach), behind);
        }
    }

    // up^T(g)
    void write_adjoint(void* to) {
        for (Buffer<S>* stream : {&g.even, &g.odd}) {
            if (first) std::fill(stream->at(-2 * kReach), stream->at(0), S(0));
            std::fill(stream->at(near_end()), stream->at(far_end() + kReach), S(0));
        }
        each(far_begin(), far_end(), [&](std::int64_t s) GE_INLINED { store(out.at(s), merge(g, up, s), false); });
        if (first) *out.at(0) += out.sum(-kReach, 0);
        if (last) *out.at(p.size - 1) += out.sum(p.size, p.size + kReach);
        write(to, [&](std::int64_t s) GE_INLINED { return load<V>(out.at(s)); });
    }

    template <class At>
    GE_INLINE void write(void* to, const At& at) const {
        T* const numbers = static_cast<T*>(to) + row;
        each(begin, end, [&](std::int64_t s) GE_INLINED { store_up_to(numbers + s, end - s, at(s)); });
    }
};

// body(piece, number of the piece) for all pieces of all rows.
template <class Body>
void each_piece(const AliasFreeRows& p, int threads, const Body& body) {
    with_dtype(p.dtype, [&](auto stored) {
        const std::int64_t jobs = p.rows * pieces_of(p.size);
        const int parts = threads_for(p.rows * p.size, threads);
        in_parallel(parts, [&](int part) {
            Piece<typename decltype(stored)::T> piece(p);
            for (std::int64_t job = jobs * part / parts; job < jobs * (part + 1) / parts; ++job) {
                piece.move_to(job);
                body(piece, job);
            }
        });
    });
}

}  // namespace

void alias_free_activation(const AliasFreeParams& p, int threads) {
    each_piece(p.of, threads, [&](auto& piece, std::int64_t) { piece.value(p); });
}

void alias_free_activation_grad(const AliasFreeGradParams& p, int threads) {
    const std::int64_t jobs = p.of.rows * pieces_of(p.of.size);
    each_piece(p.of, threads, [&](auto& piece, std::int64_t job) { piece.gradient(p, job, jobs); });
}

void alias_free_activation_second(const AliasFreeSecondParams& p, int threads) {
    const std::int64_t jobs = p.of.rows * pieces_of(p.of.size);
    each_piece(p.of, threads, [&](auto& piece, std::int64_t job) { piece.second(p, job, jobs); });
}

// The pieces of a row of `size` elements.
int alias_free_activation_slots(std::int64_t, std::int64_t size, int) { return int(pieces_of(size)); }

}  // namespace GE_ISA
}  // namespace gan_engine
