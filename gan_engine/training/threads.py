"""The threads of a run on the CPU: fewer than there are cores where other programs use the cores."""

import os

import torch

from gan_engine.system.devices import busy_cpus


def count() -> str:
    number = torch.get_num_threads()
    return f"{number} thread{'s' * (number != 1)}"


def choose(asked: int | None, *, alone_on_cpu: bool) -> str | None:
    """Set the number of threads, and return a sentence if other programs are the reason.

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
    before, cpus = torch.get_num_threads(), os.cpu_count() or 1
    if not alone_on_cpu or (hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) < cpus):
        return None
    busy = busy_cpus()
    free = max(1, cpus - busy)
    if busy == 0 or before <= free:
        return None
    if "OMP_NUM_THREADS" in os.environ:
        return f"{count()}, as OMP_NUM_THREADS says, but other programs use {busy} of {cpus} CPUs: {free} may be faster"
    torch.set_num_threads(free)
    return f"{count()}, because other programs use {busy} of {cpus} CPUs; --threads {before} takes more"
