"""The threads of a run on the CPU: fewer than there are cores where other programs or a container take the cores."""

import math
import os

import torch

from gan_engine.system import cpus
from gan_engine.system.names import counted


def count() -> str:
    number = torch.get_num_threads()
    return counted(number, "thread")


def choose(asked: int | None, *, alone_on_cpu: bool) -> str | None:
    """Set the number of threads, and return a sentence if other programs or a container matter.

    Threads wait for one another at the end of every parallel loop, so one slow thread delays all of them. DCGAN on two
    cores, one of them busy: 501 images a second with one thread, 4 to 13 with two threads (2026-11). A process that may
    use only some of the CPUs keeps its threads, because nobody knows which CPUs the other programs use.

    Args:
        asked: --threads, which decides if it is there. OMP_NUM_THREADS is the next to decide.
        alone_on_cpu: whether the run is one process that trains on the CPU. No other run takes fewer threads by itself.
    """
    if asked is not None:
        torch.set_num_threads(asked)
        return None
    before, total = torch.get_num_threads(), os.cpu_count() or 1
    if not alone_on_cpu or before == 1:
        return None
    if (quota := cpus.quota()) is not None and quota < before:
        return _take(before, math.ceil(quota), f"this container has the time of {quota:g} of {total} CPUs")
    if hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < total:
        return None
    if (use := cpus.used_by_others()) is None:
        return None
    seen = f"other programs use {use.now:.1f} of {total} CPUs"
    if before > max(1, total - use.lasting):
        why = f"{seen} (a load of {use.minute:.1f} in the last minute)"
        return _take(before, max(1, total - use.lasting), why)
    if before > (free := max(1, total - round(use.now))):
        little = f"the load of the last minute is only {use.minute:.1f}"
        return f"{count()}, though {seen}: {little}; --threads {free} is faster if they go on"
    return None


def _take(before: int, free: int, why: str) -> str | None:
    """Take `free` threads instead of `before`, unless somebody has chosen their number, and say so."""
    if before <= free:
        return None
    if "OMP_NUM_THREADS" in os.environ:
        return f"{count()}, as OMP_NUM_THREADS says, but {why}: {free} may be faster"
    torch.set_num_threads(free)
    return f"{count()}, because {why}; --threads {before} takes more"
