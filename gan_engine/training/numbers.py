"""Numbers of the host that change from step to step, where a CUDA graph reads the present ones."""

import torch
from torch import Tensor


def on_device(device: torch.device) -> bool:
    """Whether kernels on `device` read such numbers from tensors. A CUDA graph repeats a float for ever."""
    return device.type == "cuda"


def number(value: float, device: torch.device) -> float | Tensor:
    """`value` as kernels on `device` read it: [], float32 on a GPU, else as it is."""
    return torch.full((), value, dtype=torch.float32, device=device) if on_device(device) else value


def changed(number: float | Tensor, value: float) -> float | Tensor:
    """`number` with another value. A tensor keeps its address, and the host waits for nothing."""
    return number.fill_(value) if isinstance(number, Tensor) else value
