"""Sample calls, and the functions that an op is tested and timed with."""

import math
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

    @property
    def elements(self) -> int:
        """Of x."""
        return math.prod(self.shapes["x"])

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
    tiny: tuple[Sample, ...]  # for the tests and the self-check
    real: tuple[Sample, ...]  # for the benchmarks
    compiled: int = 1  # how many of the first tiny samples torch.compile and torch.func are tried on
    larger: tuple[Sample, ...] = ()  # for the self-check, where tiny samples reach no kernel, or few of its threads
    cuda: tuple[Sample, ...] = ()  # for the self-check on CUDA, where its kernels take few of the tiny samples
    # For the self-check on Triton, which compiles each: all forms of a kernel at the sizes of trained networks.
    triton: tuple[Sample, ...] = ()
    variants: dict[str, Callable[..., Tensor]] = field(default_factory=dict)  # other ways to write `eager`, timed too
    # No implementation can be faster than these calls, such as the bare convolution. They are timed too.
    floors: dict[str, Callable[..., Tensor]] = field(default_factory=dict)


def orders(function: Callable[..., Tensor], tensors: dict[str, Tensor], **options: Any) -> dict[str, Tensor]:
    """The value, the gradients, and the gradients of the sum of their squares, by name; zeros where undefined."""
    inputs = list(tensors.values())
    y = function(**tensors, **options)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dy = cotangent.to(y.device, y.dtype).requires_grad_()
    # To hand dy to autograd.grad would import sympy, which takes a second.
    first = torch.autograd.grad((y * dy).sum(), inputs, create_graph=True)
    squares: Tensor = sum(g.double().square().sum() for g in first)  # type: ignore[assignment]
    second = torch.autograd.grad(squares, [*inputs, dy], allow_unused=True)
    found: dict[str, Tensor | None] = {"y": y}
    found |= {f"d_{name}": g for name, g in zip(tensors, first, strict=True)}
    found |= {f"dd_{name}": g for name, g in zip([*tensors, "dy"], second, strict=True)}
    like = [*inputs, dy]
    return {
        name: (torch.zeros_like(like[i - len(found)]) if g is None else g).detach()
        for i, (name, g) in enumerate(found.items())
    }


def doubled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers in float64."""
    return {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
