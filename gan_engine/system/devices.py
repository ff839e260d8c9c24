"""From the word a person typed after --device to a device, and whether its CPUs are free."""

import os
import statistics
import time
from pathlib import Path

import torch


def crowded(threads: int) -> str | None:
    """Why so many threads would wait for CPUs that other work has, as Linux tells; None where they would not.

    They wait for one another after every kernel. On two cores of which one was busy, DCGAN trained at 501 images a
    second with one thread, and at 4 to 13 with two (2026-11).
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
    return f"other work has {min(others, cpus)} of {cpus} CPUs; OMP_NUM_THREADS={fewer} may be many times faster"


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first GPU if there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index is not None):
        raise ValueError(f"device: want auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: {name} was asked for, and PyTorch sees {torch.cuda.device_count()} CUDA GPUs")
    return device
