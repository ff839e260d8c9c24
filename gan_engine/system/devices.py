"""Choose the device that --device names, and bring tensors there."""

import functools

import torch
from torch import Tensor


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
        raise ValueError(f"device: want a GPU that PyTorch sees ({_gpus()}), got {name}")
    return device


def _gpus() -> str:
    last = torch.cuda.device_count() - 1
    if last >= 0:
        return "cuda:0" + f" to cuda:{last}" * (last > 0)
    if torch.version.cuda is None and torch.version.hip is None:
        return "none, as this PyTorch is a build for the CPU only"
    return "none; nvidia-smi shows the driver"


def upload(x: Tensor, device: torch.device) -> Tensor:
    """x on `device`, as x.to(device). The host does not wait for a GPU, which copies pinned memory by itself."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.contiguous().pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=64)
def constant(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    """torch.tensor(values), which is copied to `device` once. Do not write to it.

    The copy makes the host wait for a GPU, and no CUDA graph can hold it.
    """
    with torch.inference_mode(False):  # the tensor may be saved for a backward pass later
        return torch.tensor(values, dtype=dtype, device=device)
