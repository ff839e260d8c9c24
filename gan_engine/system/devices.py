"""Choose the device that --device names."""

import torch


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
