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
_FILTERS = {
    (name, device): torch.tensor(taps, dtype=torch.float32, device=device)
    for name, taps in _TAPS.items()
    for device in ("cpu", *(("cuda",) if torch.cuda.is_available() else ()))
}


def with_taps(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` with its argument `f` replaced by `taps`, the name of a filter above; None is no filter."""

    def call(x: Tensor, *others: Tensor, taps: str | None = None, **options: Any) -> Tensor:
        return op(x, *others, f=None if taps is None else _FILTERS[taps, x.device.type].to(x.device), **options)

    call.__name__ = op.__name__
    return call
