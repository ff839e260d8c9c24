"""The name of the CPU, and what tells it from others."""

import functools
import platform
import zlib
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


@functools.cache
def halves_512_bits() -> bool:
    """Whether the CPU is known to compute a vector of 512 bits as two of 256, as AMD's Zen 4 does (family 25)."""
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return False
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    return (told.get("vendor_id"), told.get("cpu family")) == ("AuthenticAMD", "25")


@functools.cache
def kind() -> str:
    """A checksum of what tells kinds of CPUs apart. Virtual machines call many kinds by the same name."""
    try:
        first = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return "unknown"
    marks = ("cpu family", "model", "stepping", "flags", "CPU implementer", "CPU part", "CPU variant", "Features")
    lines = [line for line in first.splitlines() if line.partition(":")[0].strip() in marks]
    return f"{zlib.crc32(chr(10).join(lines).encode()):08x}"
