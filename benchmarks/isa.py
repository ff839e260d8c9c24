"""The instruction set that a benchmark runs on: the same for our kernels, PyTorch and what torch.compile makes.

PyTorch and its libraries read their set from the environment at their first use, and inductor when it compiles. So
`pytest --benchmark-isa avx2` starts Python again with that environment.
"""

import os
import platform
from collections.abc import Mapping, MutableMapping

# PyTorch's kernels and the vectors of inductor; oneDNN; MKL on CPUs of Intel; g++, when inductor calls it.
_NAMES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "TORCHINDUCTOR_CPP_MARCH")
_FORCED = {
    "portable": dict(zip(_NAMES, ("default", "SSE41", "SSE4_2", "x86-64"))),
    "avx2": dict(zip(_NAMES, ("avx2", "AVX2", "AVX2", "x86-64-v3"))),
}


def refusal(isa: str) -> str | None:
    """Why this machine cannot run benchmarks on that set, or None."""
    from gan_engine.system import native

    if native.WHY_NO_CPU is not None:
        return native.WHY_NO_CPU
    isas = native.cpu.module.isas()
    if isa not in isas:
        return f"this machine runs {', '.join(isas)}, got {isa}"
    if isa != isas[0] and (isa not in _FORCED or platform.machine() not in ("x86_64", "AMD64")):
        return f"PyTorch cannot be held to {isa} on {platform.machine()}, and would run {isas[0]}"
    return None


def environment_for(isa: str, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with the variables that hold PyTorch to that set, or without them for the widest set."""
    others = {name: value for name, value in environment.items() if name not in _NAMES}
    return others | _FORCED.get(isa, {})


def run_again(isa: str, command: list[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Become `command` in the environment of that set, unless this process has the environment already."""
    wanted = environment_for(isa, environment)
    if wanted != dict(environment):
        os.execve(command[0], command, wanted)


def of_pytorch() -> str:
    """The set that PyTorch's own kernels run, by our name for it."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return {"DEFAULT": "portable", "NO AVX": "portable"}.get(capability, capability.lower())


def in_use() -> str:
    """The set that our kernels run; PyTorch's, if they are not built."""
    from gan_engine.system import native

    return of_pytorch() if native.WHY_NO_CPU is not None else native.cpu.module.isa()


def mixture() -> str | None:
    """Why a comparison would not be fair here: our kernels and PyTorch run different sets. None if it is fair."""
    if in_use() == of_pytorch() or in_use() not in (*_FORCED, "avx512"):
        return None
    return f"our kernels run {in_use()} and PyTorch runs {of_pytorch()}; --benchmark-isa holds both to one set"
