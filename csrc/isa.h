// Which instruction sets of csrc/cpu this CPU can run. bindings.cpp asks at run time, and CMakeLists.txt for
// GE_ISAS=native.
#pragma once

#if defined(__x86_64__)
#include <cpuid.h>

namespace gan_engine {

// clang 14 refuses __builtin_cpu_supports("f16c").
inline bool has_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
inline bool runs_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }
inline bool runs_avx512() {
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

// In words.
inline const char* best_of_cpu() { return runs_avx512() ? "avx512" : runs_avx2() ? "avx2" : "no AVX2"; }

}  // namespace gan_engine
#else
namespace gan_engine {
inline const char* best_of_cpu() { return "no AVX2"; }
}  // namespace gan_engine
#endif
