"""Choose the device that --device names, and see whether the CPUs are busy."""

import os
import statistics
import time
from pathlib import Path

import torch


def busy_cpus() -> int:
    """The number of CPUs that other programs use; 0 where the system does not say. Works on Linux only."""
    running = []
    for _ in range(5):
        try:
            running.append(int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0]) - 1)
        except (OSError, ValueError, IndexError):
            return 0
        time.sleep(0.02)
    return min(round(statistics.median(running)), os.cpu_count() or 1)


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
