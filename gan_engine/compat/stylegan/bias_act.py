"""`bias_act` and the table `activation_funcs`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gan_engine import ops
from gan_engine.compat.arguments import backend_of, fitting, integer, number
from gan_engine.ops.bias_act import bias_act_ref


@dataclass(frozen=True)
class Activation:
    """A row of `activation_funcs`: the function (x, alpha=...), the default slope and gain, and notes on a kernel."""

    func: Callable[..., Tensor]
    def_alpha: float
    def_gain: float
    cuda_idx: int
    ref: str
    has_2nd_grad: bool


def _row(name: str, alpha: float, gain: float, cuda_idx: int, ref: str, has_2nd_grad: bool) -> Activation:
    def func(x: Tensor, alpha: float = alpha, **_: Any) -> Tensor:
        return bias_act_ref(x, None, dim=0, act=name, alpha=float(alpha), gain=1, clamp=None)

    return Activation(func, alpha, gain, cuda_idx, ref, has_2nd_grad)


activation_funcs = {
    "linear": _row("linear", 0, 1, 1, "", False),
    "relu": _row("relu", 0, 2**0.5, 2, "y", False),
    "lrelu": _row("lrelu", 0.2, 2**0.5, 3, "y", False),
    "tanh": _row("tanh", 0, 1, 4, "y", True),
    "sigmoid": _row("sigmoid", 0, 1, 5, "y", True),
    "elu": _row("elu", 0, 1, 6, "y", True),
    "selu": _row("selu", 0, 1, 7, "y", True),
    "softplus": _row("softplus", 0, 1, 8, "y", True),
    "swish": _row("swish", 0, 2**0.5, 9, "x", True),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> Tensor:
    """y = clamp(gain * act(x + b, alpha), -clamp, clamp); a call that changes nothing returns x itself

    `impl="ref"` asks for the definition. Everything else is as in gan_engine.ops.bias_act.
    """
    backend, gain, clamp = backend_of(impl), number(gain), number(clamp)
    if b is None and act == "linear" and clamp is None and gain in (None, 1):
        return x
    b = None if b is None else fitting(b, x)
    return ops.bias_act(x, b, dim=integer(dim), act=act, alpha=number(alpha), gain=gain, clamp=clamp, backend=backend)
