#include "../alias_free_activation.h"

#include "launch.h"
#include "sum_of_block.h"
#include "turns.h"
#include "words.h"

// A block works on one piece of a row, in shared memory. As in csrc/cpu/alias_free_activation.cpp, the elements of u
// with even and with odd numbers are two streams, and each filter is `split` or `merge`.
namespace gan_engine {
namespace cuda {
namespace {

constexpr int kThreads = 128, kPiece = 512;
constexpr int kReach = 3, kHalves = 6;  // of a filter to each side, and its taps for one stream
constexpr int kBefore = 4 * kReach, kBuffer = kPiece + 2 * kBefore;

constexpr int kValue = 0, kGradient = 1, kSecond = 2;  // orders

// All pointers of the three kernels; what an order lacks is null.
struct Pointers {
    const void *dy, *v, *v_alpha, *v_b;
    void *y, *dx, *sums;  // y is d_dy of the second order
};

template <class T, int order>
struct Piece {
    using S = Wide<T>;
    const AliasFreeRows& p;
    const Pointers& to;
    const std::int64_t row, begin, end;  // elements [begin, end) of the row that begins at `row`
    const bool first, last;
    S up[2 * kHalves], down[2 * kHalves];

    __device__ Piece(const AliasFreeRows& p_, const Pointers& to_, std::int64_t pieces)
        : p(p_),
          to(to_),
          row(blockIdx.x / pieces * p_.size),
          begin(blockIdx.x % pieces * kPiece),
          end(begin + kPiece < p_.size ? begin + kPiece : p_.size),
          first(begin == 0),
          last(end == p_.size) {
#pragma unroll
        for (int k = 0; k < 2 * kHalves; ++k) up[k] = S(2) * S(p.fu[k]), down[k] = S(p.fd[k]);
    }

    // Where position s lies in a buffer.
    __device__ int at(std::int64_t s) const { return int(s - begin) + kBefore; }
    // body(position in a buffer) for positions from, ..., to - 1, shared by the threads.
    template <class Body>
    __device__ void each(std::int64_t from, std::int64_t behind, const Body& body) const {
        for (int i = at(from) + int(threadIdx.x); i < at(behind); i += kThreads) body(i);
    }

    __device__ std::int64_t near_begin() const { return first ? 0 : begin - kReach; }
    __device__ std::int64_t near_end() const { return end + kReach < p.size ? end + kReach : p.size; }
    __device__ std::int64_t far_begin() const { return first ? -kReach : begin; }
    __device__ std::int64_t far_end() const { return last ? p.size + kReach : end; }

    // All that the filters reach. Outside of the row lies its border, or 0.
    __device__ void read(const void* from, S* buffer, bool repeats) const {
        const T* numbers = static_cast<const T*>(from) + row;
        each(begin - kBefore, begin - kBefore + kBuffer, [&](int i) {
            const std::int64_t s = begin + i - kBefore, inside = s < 0 ? 0 : s < p.size ? s : p.size - 1;
            buffer[i] = s == inside || repeats ? widen(numbers[inside]) : S(0);
        });
    }

    __device__ static void split(const S* from, const S* f, int i, S& even, S& odd) {
        even = odd = 0;
#pragma unroll
        for (int j = 0; j < kHalves; ++j) {
            even += f[2 * j + 1] * from[i + 2 - j];
            odd += f[2 * j] * from[i + 3 - j];
        }
    }
    __device__ static S merge(const S* even, const S* odd, const S* f, int i) {
        S sum = 0;
#pragma unroll
        for (int j = 0; j < kHalves; ++j) sum += f[2 * j + 1] * even[i - 2 + j] + f[2 * j] * odd[i - 3 + j];
        return sum;
    }

    // a = down^T(dy)
    __device__ void make_a(const S* dy, S* even, S* odd) const {
        each(far_begin() - 2 * kReach, far_end() + 2 * kReach, [&](int i) { split(dy, down, i, even[i], odd[i]); });
        __syncthreads();
        if (threadIdx.x == 0 && first)
            for (int k = 1; k <= kReach; ++k) even[at(0)] += even[at(-k)] + odd[at(-k)];
        if (threadIdx.x == 0 && near_end() == p.size)
            for (int k = 0; k < kReach; ++k) odd[at(p.size - 1)] += even[at(p.size + k)] + odd[at(p.size + k)];
        __syncthreads();
    }

    // y = down(q); outside of the row lies its border.
    __device__ void write_value(S* even, S* odd) const {
        if (threadIdx.x < kReach && first) even[at(-1) - threadIdx.x] = odd[at(-1) - threadIdx.x] = even[at(0)];
        each(near_end(), end + kReach, [&](int i) { even[i] = odd[i] = odd[at(p.size - 1)]; });
        __syncthreads();
        T* y = static_cast<T*>(to.y) + row + begin - kBefore;
        each(begin, end, [&](int i) { y[i] = narrow<T>(merge(even, odd, down, i)); });
    }

    // dx = up^T(g); outside of the row g is 0.
    __device__ void write_adjoint(S* even, S* odd, S* out) const {
        each(first ? -2 * kReach : begin, first ? 0 : begin, [&](int i) { even[i] = odd[i] = 0; });
        each(near_end(), far_end() + kReach, [&](int i) { even[i] = odd[i] = 0; });
        __syncthreads();
        each(far_begin(), far_end(), [&](int i) { out[i] = merge(even, odd, up, i); });
        __syncthreads();
        T* dx = static_cast<T*>(to.dx) + row + begin - kBefore;
        each(begin, end, [&](int i) {
            S v = out[i];
            for (int k = 1; first && i == at(0) && k <= kReach; ++k) v += out[i - k];
            for (int k = 1; last && i == at(p.size - 1) && k <= kReach; ++k) v += out[i + k];
            dx[i] = narrow<T>(v);
        });
    }

    __device__ void write_sums(S of_alpha, S of_b) const {
        S* sums = static_cast<S*>(to.sums) + blockIdx.x;
        const double sum_alpha = sum_of_block(of_alpha);
        __syncthreads();
        const double sum_b = sum_of_block(of_b);
        if (threadIdx.x == 0) sums[0] = S(sum_alpha), sums[gridDim.x] = S(sum_b);
    }

    __device__ void run() const {
        constexpr bool differentiates = order != kValue, twice = order == kSecond;
        __shared__ S x[kBuffer], q_even[twice || !differentiates ? kBuffer : 1],
            q_odd[twice || !differentiates ? kBuffer : 1];
        __shared__ S dy[differentiates ? kBuffer : 1], a_even[differentiates ? kBuffer : 1],
            a_odd[differentiates ? kBuffer : 1], v[twice ? kBuffer : 1];
        const std::int64_t channel = row / p.size % p.channels;
        const S alpha = static_cast<const S*>(p.alpha)[channel], b = static_cast<const S*>(p.b)[channel];
        S v_alpha = 0, v_b = 0, of_alpha = 0, of_b = 0;
        read(p.x, x, true);
        if constexpr (differentiates) read(to.dy, dy, false);
        if constexpr (twice) {
            read(to.v, v, true);
            v_alpha = static_cast<const S*>(to.v_alpha)[channel], v_b = static_cast<const S*>(to.v_b)[channel];
        }
        __syncthreads();
        if constexpr (differentiates) make_a(dy, a_even, a_odd);
        // a becomes g, in place; the sums count the elements of the piece alone.
        const auto derived = [&](S u, S w, S& a, S& q, bool counts) {
            const Turns<S> turns(alpha * u);
            const S sine = 2 * turns.sine * turns.cosine, square = turns.sine * turns.sine;
            if constexpr (!twice) {
                of_alpha += counts ? a * sine * u * b : S(0), of_b += counts ? a * square : S(0);
                a += alpha * b * a * sine;
            } else {
                const S cosine = 2 - 4 * square, slope = alpha * w + u * v_alpha;
                const S by_alpha_and_u = b * (sine + alpha * u * cosine);
                q = w + b * sine * slope + square * v_b;
                of_alpha += counts ? a * (by_alpha_and_u * w + b * u * u * cosine * v_alpha + u * sine * v_b) : S(0);
                of_b += counts ? a * sine * slope : S(0);
                a *= b * alpha * alpha * cosine * w + by_alpha_and_u * v_alpha + alpha * sine * v_b;
            }
        };
        each(near_begin(), near_end(), [&](int i) {
            S even, odd, w_even = 0, w_odd = 0;
            split(x, up, i, even, odd);
            if constexpr (!differentiates) {
                const S sine_even = Turns<S>(alpha * even).sine, sine_odd = Turns<S>(alpha * odd).sine;
                q_even[i] = even + b * sine_even * sine_even, q_odd[i] = odd + b * sine_odd * sine_odd;
            } else {
                const bool counts = i >= at(begin) && i < at(end);
                if constexpr (twice) split(v, up, i, w_even, w_odd);
                derived(even, w_even, a_even[i], q_even[twice ? i : 0], counts);
                derived(odd, w_odd, a_odd[i], q_odd[twice ? i : 0], counts);
            }
        });
        __syncthreads();
        if constexpr (!differentiates || twice) write_value(q_even, q_odd);
        if constexpr (differentiates) {
            write_adjoint(a_even, a_odd, dy);
            write_sums(of_alpha, of_b);
        }
    }
};

template <class T, int order>
__global__ void __launch_bounds__(kThreads) piece_kernel(AliasFreeRows p, Pointers to, std::int64_t pieces) {
    Piece<T, order>(p, to, pieces).run();
}

std::int64_t pieces_of(std::int64_t size) { return divide_up(size, kPiece); }

template <int order>
void run(const AliasFreeRows& p, const Pointers& to, std::uintptr_t stream) {
    const std::int64_t pieces = pieces_of(p.size);
    with_dtype(p.dtype, [&](auto stored) {
        const auto kernel = piece_kernel<typename decltype(stored)::T, order>;
        launch("alias_free_activation", kernel, p.rows * pieces, kThreads, stream, p, to, pieces);
    });
}

}  // namespace

void alias_free_activation(const AliasFreeParams& p, std::uintptr_t stream) {
    Pointers to{};
    to.y = p.y;
    run<kValue>(p.of, to, stream);
}

void alias_free_activation_grad(const AliasFreeGradParams& p, std::uintptr_t stream) {
    Pointers to{};
    to.dy = p.dy, to.dx = p.dx, to.sums = p.sums;
    run<kGradient>(p.of, to, stream);
}

void alias_free_activation_second(const AliasFreeSecondParams& p, std::uintptr_t stream) {
    Pointers to{};
    to.dy = p.dy, to.v = p.v, to.v_alpha = p.v_alpha, to.v_b = p.v_b;
    to.y = p.d_dy, to.dx = p.d_x, to.sums = p.sums;
    run<kSecond>(p.of, to, stream);
}

// The pieces of a row of `size` elements.
int alias_free_activation_slots(std::int64_t, std::int64_t size, std::uintptr_t) { return int(pieces_of(size)); }

}  // namespace cuda
}  // namespace gan_engine
