"""How PyTorch computes convolutions in bfloat16 on this CPU, and whether that is faster than in float32.

The time of a convolution in bfloat16 divided by its time in float32, of PyTorch's kernels (oneDNN), 64 to 256 channels,
3x3 and 4x4 kernels, one thread, PyTorch 2.13, 2026-11:

                                              y            dx           dweight
    AMD EPYC (Zen 4), AVX512_BF16             0.5          not measured
    Intel Xeon with AMX, channels_last        0.14 to 0.17 0.14 to 0.22 0.26 to 0.31
    Intel Xeon with AMX, contiguous           0.18 to 0.34 0.23 to 0.32 0.24 to 0.37
    Intel Xeon, AVX512_BF16 without AMX       1.6 to 1.8   1.6 to 1.7   1.5 to 1.7
    Intel Xeon held to AVX-512 without BF16   4.1 to 4.7   4.0 to 4.8   3.6 to 4.5
    Intel Xeon held to AVX2                   5.8 to 6.7   28 to 45     3.5 to 5.0

CPUs of ARM were not measured. ARM counts as equally fast in both, so nothing is chosen there for its speed.
"""

import functools
import platform
from typing import NamedTuple

import torch


class OnCpu(NamedTuple):
    """How this CPU computes bfloat16, and the least of the ratios above."""

    how: str
    time: float

    @property
    def gains(self) -> bool:
        """Whether bfloat16 is faster than float32."""
        return self.time < 1


@functools.cache
def on_cpu() -> OnCpu:
    can = getattr(torch.cpu, "get_capabilities", dict)()
    if platform.machine() not in ("x86_64", "AMD64"):
        return OnCpu("in hardware" if can.get("bf16") else "in software", 1.0)
    if torch.backends.cpu.get_cpu_capability() != "AVX512":  # ATEN_CPU_CAPABILITY may hold a wider CPU to AVX2
        return OnCpu("in software", 3.5)
    if not can:
        return OnCpu("in a way that this PyTorch does not tell", 1.0)
    if can.get("amx_bf16"):
        return OnCpu("in hardware (AMX)", 0.14)
    if not can.get("avx512_bf16"):
        return OnCpu("in software", 3.5)
    maker = str(can.get("cpu_name")).partition(" ")[0]
    if maker == "Intel":
        return OnCpu("in hardware (AVX512_BF16 without AMX)", 1.5)
    return OnCpu("in hardware (AVX512_BF16)", 0.5 if maker == "AMD" else 1.0)  # no CPU of other makers was measured


def conversion() -> float:
    """The time of converting an element between bfloat16 and float32, in products of PyTorch's kernels in float32.

    0.5 ns at 220 GFLOP/s with AVX-512, and 0.25 ns at 85 GFLOP/s on an Intel Xeon held to AVX2 (one thread, 2026-11).
    Other sets were not measured, and count as AVX-512, which leaves more calls as they are. Convolutions of bfloat16
    images 8x16x32x32 with a 1x1 kernel, AVX2: 10 times as fast in float32, which the number of AVX-512 left alone.
    """
    return {"AVX2": 11.0}.get(torch.backends.cpu.get_cpu_capability(), 55.0)


def slower(device: torch.device) -> str | None:
    """Why float32 is faster on that device, or None where bfloat16 is faster or nothing was measured."""
    if device.type != "cpu" or on_cpu().time <= 1:
        return None
    return f"this CPU computes bfloat16 {on_cpu().how}, which is slower than float32"
