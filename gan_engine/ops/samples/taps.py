"""FIR filters by name: an option of a sample is no tensor."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TAPS = {
    "1331": [0.125, 0.375, 0.375, 0.125],
    "3": [0.5, -0.25, 1.0],
    "12": [0.01, -0.03, 0.02, -0.11, 0.3, 0.8, 0.7, 0.2, -0.05, -0.02, 0.04, 0.03],
    "2x3": [[1.0, -0.5, 0.25], [0.75, 0.3, -0.2]],
    "4x4": [[0.1, 0.2, 0.3, 0.4], [0.5, -0.6, 0.7, 0.8], [0.9, 1.0, -0.1, 0.2], [0.3, 0.4, 0.5, -0.6]],
}
_FILTERS = {(name, "cpu"): torch.tensor(taps, dtype=torch.float32) for name, taps in _TAPS.items()}


def _filter(name: str, device: torch.device) -> Tensor:
    """The filter on a device. A GPU gets a copy at its first use: nothing here starts CUDA for samples on the CPU."""
    if (name, device.type) not in _FILTERS:
        _FILTERS[name, device.type] = _FILTERS[name, "cpu"].to(device)
    return _FILTERS[name, device.type].to(device)


def with_taps(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` with its argument `f` replaced by `taps`, the name of a filter above; None is no filter."""

    def call(x: Tensor, *others: Tensor, taps: str | None = None, **options: Any) -> Tensor:
        return op(x, *others, f=None if taps is None else _filter(taps, x.device), **options)

    call.__name__ = op.__name__
    return call
