// Registers of 16 bytes, which nearly every CPU has. The compiler chooses the instructions.
#pragma once

#include "registers.h"

namespace gan_engine {
namespace GE_ISA {

inline constexpr int kRegisterBytes = 16;
using RegF = Native<float, 4>;
using RegD = Native<double, 2>;

GE_INLINE void fence() {}

}  // namespace GE_ISA
}  // namespace gan_engine
