"""Choose the device that --device names, and see whether the CPUs are busy."""

import os
import statistics
import time
from pathlib import Path

import torch


def busy_cpus(threads: int) -> str | None:
    """A warning if other programs use CPUs that `threads` threads need; else None. Works on Linux only.

    Threads wait for one another at the end of every parallel loop, so one slow thread delays all of them. DCGAN on two
    cores, one of them busy: 501 images a second with one thread, 4 to 13 with two threads (2026-11).
    """
    cpus, running = os.cpu_count() or 1, []
    for _ in range(5):
        try:
            running.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return None
        time.sleep(0.02)
    others = round(statistics.median(running))
    if threads == 1 or others == 0 or others + threads <= cpus:
        return None
    fewer = max(1, cpus - others)
    busy = min(others, cpus)
    return f"other programs use {busy} of {cpus} CPUs; OMP_NUM_THREADS={fewer} may be many times faster"


def choose_device(name: str) -> torch.device:
    """The device of that name. "auto" means the first GPU, or the CPU where there is no GPU. Raises ValueError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise ValueError(f"device: want auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: want a GPU that PyTorch sees (it sees {torch.cuda.device_count()}), got {name}")
    return device
