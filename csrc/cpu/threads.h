// Splitting work over threads.
#pragma once

#include <cstdint>

namespace gan_engine {
namespace GE_ISA {

// With fewer elements for each thread, starting threads costs more than it saves (about 5 us, at 10 GB/s).
inline constexpr std::int64_t kElementsPerThread = 1 << 14;

inline int threads_for(std::int64_t elements, int most) {
    const std::int64_t useful = elements / kElementsPerThread;
    return useful < 1 ? 1 : useful < most ? int(useful) : most;
}

// body(k) for k in [0, parts), each on its own thread if the runtime has as many.
template <class Body>
inline void in_parallel(int parts, const Body& body) {
    if (parts == 1) return body(0);
#pragma omp parallel for schedule(static, 1) num_threads(parts)
    for (int k = 0; k < parts; ++k) body(k);
}

}  // namespace GE_ISA
}  // namespace gan_engine
