"""FIR filters by name: an option of a sample is no tensor."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_TAPS = {
    "1331": [0.125, 0.375, 0.375, 0.125],
    "3": [0.5, -0.25, 1.0],
    "12": [0.01, -0.03, 0.02, -0.11, 0.3, 0.8, 0.7, 0.2, -0.05, -0.02, 0.04, 0.03],
    "24": [
        *(0.01, 0.02, -0.01, -0.03, 0.02, 0.04, -0.05, -0.11, 0.06, 0.2, 0.3, 0.4),
        *(0.38, 0.31, 0.17, 0.07, -0.1, -0.06, 0.03, 0.02, -0.02, -0.01, 0.02, 0.01),
    ],
    "2x3": [[1.0, -0.5, 0.25], [0.75, 0.3, -0.2]],
    "4x4": [[0.1, 0.2, 0.3, 0.4], [0.5, -0.6, 0.7, 0.8], [0.9, 1.0, -0.1, 0.2], [0.3, 0.4, 0.5, -0.6]],
    # The same upside down, and no outer products
    "4x4-mirrored": [[0.1, 0.2, 0.3, 0.4], [0.5, -0.6, 0.7, 0.8], [0.5, -0.6, 0.7, 0.8], [0.1, 0.2, 0.3, 0.4]],
    "3x2-mirrored": [[0.3, -0.2], [0.5, 0.9], [0.3, -0.2]],
    "6x3-mirrored": [
        *([0.1, -0.2, 0.3], [0.3, 0.4, -0.1], [0.5, 0.9, 0.6]),
        *([0.5, 0.9, 0.6], [0.3, 0.4, -0.1], [0.1, -0.2, 0.3]),
    ],
}
# A radial one, as StyleGAN3-R has them
_TAPS["12x12-radial"] = [
    [math.cos(r / 2) * math.exp(-r * r / 20) / 8 for r in (math.hypot(i - 5.5, j - 5.5) for j in range(12))]
    for i in range(12)
]
_FILTERS = {(name, "cpu"): torch.tensor(taps, dtype=torch.float32) for name, taps in _TAPS.items()}


def _filter(name: str, device: torch.device) -> Tensor:
    """The filter on a device. A GPU gets a copy at its first use: nothing here starts CUDA for samples on the CPU."""
    if (name, device.type) not in _FILTERS:
        _FILTERS[name, device.type] = _FILTERS[name, "cpu"].to(device)
    return _FILTERS[name, device.type].to(device)


def with_taps(op: Callable[..., Tensor], **filters: str) -> Callable[..., Tensor]:
    """`op` with an option in place of each filter: the name of a filter above, or None for no filter.

    `filters` are the options by the arguments that they replace. Without it, `taps` replaces `f`.
    """
    filters = filters or {"f": "taps"}

    def call(x: Tensor, *others: Tensor, **options: Any) -> Tensor:
        named = {f: options.pop(option, None) for f, option in filters.items()}
        found = {f: None if name is None else _filter(name, x.device) for f, name in named.items()}
        return op(x, *others, **found, **options)

    call.__name__ = op.__name__
    return call
