"""Sample calls, and the functions that an op is tested and timed with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]  # by the name of the argument
LAST = torch.channels_last


@dataclass(frozen=True)
class Sample:
    """One call: the shapes of the differentiable tensors by name, and the options of the call."""

    name: str
    shapes: Shapes
    options: dict[str, Any] = field(default_factory=dict)
    layout: torch.memory_format = torch.contiguous_format
    step: float = 0.0  # round the numbers to multiples of this, to meet zeros and values just at a clamp; 0 rounds none

    def tensors(self, dtype: torch.dtype, device: str | torch.device = "cpu", *, seed: int = 0) -> dict[str, Tensor]:
        """Standard normal tensors that require gradients; images or volumes have the layout of the sample."""
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for name, shape in self.shapes.items():
            x = torch.randn(shape, generator=generator, dtype=torch.float64)
            x = ((x / self.step).round() * self.step if self.step else x).to(device, dtype)
            if x.ndim == (5 if self.layout == torch.channels_last_3d else 4):
                x = x.to(memory_format=self.layout)
            made[name] = x.requires_grad_()
        return made


@dataclass(frozen=True)
class Op:
    """An op, the chain of PyTorch calls that its users would write without it, and its samples.

    Every function takes what the op takes, less `backend`; the `floors` take the first two tensors only.
    """

    function: Callable[..., Tensor]
    eager: Callable[..., Tensor]  # the chain of PyTorch calls
    tiny: tuple[Sample, ...]  # for the tests
    real: tuple[Sample, ...]  # for the benchmarks
    compiled: int = 1  # how many of the first tiny samples torch.compile and torch.func are tried on
    variants: dict[str, Callable[..., Tensor]] = field(default_factory=dict)  # other ways to write `eager`, timed too
    # No implementation can be faster than these calls, such as the bare convolution. They are timed too.
    floors: dict[str, Callable[..., Tensor]] = field(default_factory=dict)
