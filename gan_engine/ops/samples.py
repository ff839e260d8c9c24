"""Sample calls of every op: tiny ones, on which tests state its properties, and real ones, which benchmarks time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.ops.bias_act import ACTIVATIONS, bias_act


@dataclass(frozen=True)
class Sample:
    """One call: the shapes of the differentiable tensors by name, and the options that go with them."""

    name: str
    shapes: dict[str, tuple[int, ...]]
    options: dict[str, Any] = field(default_factory=dict)
    layout: torch.memory_format = torch.contiguous_format

    def tensors(self, dtype: torch.dtype, device: str | torch.device = "cpu", *, seed: int = 0) -> dict[str, Tensor]:
        """Standard normal tensors that require gradients; those of 4 dimensions are laid out as the sample says."""
        generator = torch.Generator().manual_seed(seed)
        made = {}
        for name, shape in self.shapes.items():
            x = torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)
            if x.ndim == 4:
                x = x.to(memory_format=self.layout)
            made[name] = x.requires_grad_()
        return made


@dataclass(frozen=True)
class Op:
    """An op, the chain of PyTorch calls that its users would write without it, and its samples.

    Benchmarks also time `variants`, other ways to write that chain, and `floors`, calls below which no implementation
    can go, such as the bare convolution. All take what the op takes, less `backend`.
    """

    function: Callable[..., Tensor]
    eager: Callable[..., Tensor]
    tiny: tuple[Sample, ...]
    real: tuple[Sample, ...]
    variants: dict[str, Callable[..., Tensor]] = field(default_factory=dict)
    floors: dict[str, Callable[..., Tensor]] = field(default_factory=dict)


def _eager_bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    if b is not None:
        x = x + b.reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    spec = ACTIVATIONS[act]
    if act == "lrelu":
        x = F.leaky_relu(x, spec.alpha if alpha is None else alpha)
    elif act != "linear":
        functions = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "swish": F.silu}
        x = functions.get(act, getattr(F, act, None))(x)
    gain = spec.gain if gain is None else gain
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _nchw(n: int, c: int, h: int, w: int) -> dict[str, tuple[int, ...]]:
    return {"x": (n, c, h, w), "b": (c,)}


_LAST = torch.channels_last

OPS = {
    "bias_act": Op(
        bias_act,
        _eager_bias_act,
        tiny=(
            *(Sample(act, _nchw(2, 3, 5, 7), {"act": act}) for act in ACTIVATIONS),
            *(Sample(f"{act}-clamp", _nchw(2, 3, 4, 4), {"act": act, "clamp": 0.8}) for act in ACTIVATIONS),
            Sample("lrelu-channels_last", _nchw(2, 16, 3, 3), {"act": "lrelu", "clamp": 1.0}, _LAST),
            Sample("lrelu-channels_last-odd", _nchw(2, 5, 3, 3), {"act": "lrelu"}, _LAST),
            Sample("lrelu-alpha-gain", _nchw(1, 4, 4, 8), {"act": "lrelu", "alpha": -0.5, "gain": -1.7}),
            Sample("lrelu-rows", _nchw(2, 2, 4, 8), {"act": "lrelu", "clamp": 0.5}),
            Sample("relu-no-bias", {"x": (3, 2, 5)}, {"act": "relu"}),
            Sample("tanh-last-dim", {"x": (4, 6), "b": (6,)}, {"act": "tanh", "dim": -1, "gain": 0.5}),
            Sample("lrelu-first-dim", {"x": (3, 4, 5), "b": (3,)}, {"act": "lrelu", "dim": 0}),
            Sample("lrelu-vector", {"x": (19,), "b": (19,)}, {"act": "lrelu", "dim": 0}),
            Sample("swish-volume", {"x": (1, 2, 3, 2, 2), "b": (2,)}, {"act": "swish", "clamp": 0.6}),
            Sample("empty-batch", _nchw(0, 3, 4, 4), {"act": "lrelu"}),
        ),
        real=(
            Sample("4x128x128x128", _nchw(4, 128, 128, 128), {"act": "lrelu", "clamp": 256.0}),
            Sample("8x64x256x256", _nchw(8, 64, 256, 256), {"act": "lrelu", "clamp": 256.0}),
        ),
    ),
}
