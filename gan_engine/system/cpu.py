"""The name of the CPU."""

import functools
import platform
from pathlib import Path


@functools.cache
def model() -> str:
    """The name of the CPU, as far as the system knows it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"
