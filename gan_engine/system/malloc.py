"""Let the C allocator keep large blocks, so that a new tensor does not cost a page fault for each of its pages.

By default, glibc maps each large block when it is allocated and unmaps it when it is freed. Linux clears every page of
a new block at its first use. This costs more on CPUs than most elementwise ops: bias, leaky ReLU, gain and clamp in
eager PyTorch on 134 MB took 114 ms by default and 26 ms tuned (2-core AVX-512 machine, 2026-11).
"""

import ctypes
import os
import platform

# Parameters of mallopt(3): (number in <malloc.h>, value that `tune` sets, in bytes).
_THRESHOLDS = {
    "M_MMAP_THRESHOLD": (-3, 2**30),  # blocks below this size come from the heap, which keeps its pages
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # free memory at the end of the heap beyond this goes back to Linux; max int
    "M_TOP_PAD": (-2, 2**28),  # the heap grows by this much at a time
}


def tune() -> str:
    """Keep up to 2 GiB of freed memory in this process for its next tensors. Return what was done, or why not.

    The setting holds for the whole process and cannot be undone. A second call changes nothing.
    """
    if platform.system() != "Linux":
        return f"malloc not tuned: want Linux, got {platform.system()}"
    libc, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ") if _has_glibc() else ("", "", "")
    if libc != "glibc":
        return "malloc not tuned: want glibc, got another C library"
    preloaded = os.environ.get("LD_PRELOAD", "")
    if "malloc" in preloaded:
        return f"malloc not tuned: LD_PRELOAD={preloaded} replaces the malloc of glibc"
    mallopt = ctypes.CDLL(None).mallopt
    refused = [name for name, (number, value) in _THRESHOLDS.items() if mallopt(number, value) != 1]
    if refused:
        return f"malloc tuned in part: glibc {version} refuses {', '.join(refused)}"
    return "malloc tuned: blocks up to 1 GiB come from the heap, which keeps up to 2 GiB of freed memory"


def _has_glibc() -> bool:
    return "CS_GNU_LIBC_VERSION" in os.confstr_names
