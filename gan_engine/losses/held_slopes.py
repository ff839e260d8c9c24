"""Activations with kinks, held at the slopes that they have at x, for runs of a network near x.

The slope of a leaky ReLU jumps at 0, where autograd sees no second derivative. A difference of two runs would see the
jumps: it would be wrong by more than the gradient itself, whatever the step is.
"""

import math
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gan_engine.losses.closed_ops import checkpoint_hook
from gan_engine.ops.bias_act import bias_act

_WAY_OUT = 'level=1 is exact for such a D; level="aligned" takes smooth activations, such as SiLU and GELU, anywhere'


class HeldSlopes(TorchFunctionMode):
    """The first block of `with` notes where D is on which side of each kink; each later block keeps to these sides.

    D must call the same functions in each block. Functions with kinks that are not held are refused with RuntimeError.

    Attributes:
        dtypes: of what D's functions returned in the first block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[Tensor] = []
        self.inputs: set[int] = set()  # places where the side is the input itself
        self.noting, self.position, self.without_grad = True, 0, ""
        self.dtypes: set[torch.dtype] = set()

    def __enter__(self) -> "HeldSlopes":
        self.position = 0
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.noting = False

    def __torch_function__(
        self, func: Callable, types: Collection[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        rule, kwargs = _RULES.get(func), kwargs or {}
        if rule is None and torch.is_grad_enabled():  # without gradients D limits buffers, as a rule
            rule = _RULES_IN_PLACE.get(func)
        if func in _REFUSED:
            raise RuntimeError(f"{func.__name__} has kinks that a difference of D would see: {_WAY_OUT}")
        if rule is None:
            result = func(*args, **kwargs)
            if self.noting and isinstance(result, Tensor):
                self.dtypes.add(result.dtype)
            return result
        if checkpoint_hook() is not None:
            raise RuntimeError(f"{func.__name__} inside of a checkpoint, which runs it again: {_WAY_OUT}")
        self.without_grad = self.without_grad or ("" if torch.is_grad_enabled() else func.__name__)
        return rule(self, *args, **kwargs)

    def refuse_reentrant_checkpoints(self) -> None:
        """Raise RuntimeError if an activation with kinks ran without gradients, as all do in such a checkpoint."""
        if self.without_grad:
            raise RuntimeError(f"{self.without_grad} inside of a checkpoint, which runs it again: {_WAY_OUT}")

    def of(self, side: Callable[[], Tensor], x: Tensor) -> Tensor:
        """`side()` in the first run, and what it was then at this place of a later run; it has the shape of x."""
        if self.noting:
            self.sides.append(side())
        if self.position == len(self.sides) or self.sides[self.position].shape != x.shape:
            raise RuntimeError("D must call the same activations at images nearby, got others")
        self.position += 1
        return self.sides[self.position - 1]


def refuse_modules_with_kinks(modules: Iterable[nn.Module]) -> None:
    """Raise RuntimeError if one of the modules has kinks. A function that has some is not seen."""
    for module in modules:
        if isinstance(module, _MODULES):
            name = type(module).__name__
            raise RuntimeError(
                f"{name} has kinks, and compiled code or other threads run it: want smooth activations, or D as it was "
                "before torch.compile or nn.DataParallel, which all levels take (a compiled module has it in _orig_mod)"
            )


# grad, x, slope, whether x is a result: where() is three times as slow on a CPU. It has a gradient by `grad`.
_slopes = torch.ops.aten.leaky_relu_backward


def _leaky_relu(held: HeldSlopes, input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    x, place = input.detach(), held.position
    if held.noting and input.requires_grad and not inplace and negative_slope >= 0:
        # Autograd keeps the input of the first run too, and refuses a D that writes to it.
        held.of(lambda: x, x)
        held.inputs.add(place)
        return F.leaky_relu(input, negative_slope)
    kept = held.of(lambda: _slopes(x.new_ones(()).expand_as(x), x, negative_slope, False), x)
    if place not in held.inputs:
        return input.mul_(kept) if inplace else input * kept
    y = _slopes(input, kept, negative_slope, False)
    return input.copy_(y) if inplace else y


def _relu(held: HeldSlopes, input: Tensor, inplace: bool = False) -> Tensor:
    return _leaky_relu(held, input, 0.0, inplace)


def _prelu(held: HeldSlopes, input: Tensor, weight: Tensor) -> Tensor:
    weight = weight.reshape([-1] + [1] * max(0, input.ndim - 2))
    return torch.where(held.of(lambda: input.detach() > 0, input), input, weight * input)


def _bias_act(
    held: HeldSlopes, x: Tensor, b: Tensor | None = None, *, dim: int = 1, clamp: float | None = None, **options: Any
) -> Tensor:
    if options.get("act") in ("relu", "lrelu"):
        z = bias_act(x, b, dim=dim)
        y = z * held.of(
            lambda: bias_act(z.detach().sign(), **options).abs(), z
        )  # the slopes, as |act(1)| and |act(-1)|
    else:
        y = bias_act(x, b, dim=dim, **options)
    return y if clamp is None else _clamp(held, y, -clamp, clamp)


def _clamp(held: HeldSlopes, input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    if not input.dtype.is_floating_point:
        return torch.clamp(input, min, max)
    low = min if isinstance(min, Tensor) else input.new_full((), -math.inf if min is None else min)
    high = max if isinstance(max, Tensor) else input.new_full((), math.inf if max is None else max)
    low = torch.minimum(low, high)  # of two limits in the wrong order max holds
    input = input.expand(torch.broadcast_shapes(input.shape, low.shape, high.shape))
    x = input.detach()
    side = held.of(lambda: (x > high).to(torch.int8) - (x < low).to(torch.int8), x)
    return torch.where(side == 0, input, torch.where(side < 0, low, high))


def _abs(held: HeldSlopes, input: Tensor) -> Tensor:
    if not input.dtype.is_floating_point:
        return torch.abs(input)
    return input * held.of(lambda: input.detach().sign(), input)


def _maximum(held: HeldSlopes, input: Tensor, other: Tensor) -> Tensor:
    input, other = torch.broadcast_tensors(input, other)
    return torch.where(held.of(lambda: input.detach() > other.detach(), input), input, other)


def _in_place(rule: Callable) -> Callable:
    """The rule of the function's form in place. No rule has a gradient that reads its input."""
    return lambda held, input, *args, **kwargs: input.copy_(rule(held, input, *args, **kwargs))


def _hardtanh(
    held: HeldSlopes, input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    return (_in_place(_clamp) if inplace else _clamp)(held, input, min_val, max_val)


def _hardsigmoid(held: HeldSlopes, input: Tensor, inplace: bool = False) -> Tensor:
    y = _clamp(held, input + 3, 0.0, 6.0) / 6
    return input.copy_(y) if inplace else y


def _hardswish(held: HeldSlopes, input: Tensor, inplace: bool = False) -> Tensor:
    x = input.clone() if inplace else input
    y = x * _hardsigmoid(held, x)
    return input.copy_(y) if inplace else y


# Functions of tensors, which have forms in place.
_NAMED: dict[str, Callable] = {
    **dict.fromkeys(("clamp", "clip"), _clamp),
    "clamp_min": lambda held, input, min: _clamp(held, input, min),
    "clamp_max": lambda held, input, max: _clamp(held, input, None, max),
    **dict.fromkeys(("abs", "absolute"), _abs),
}
_RULES: dict[Callable, Callable] = {
    **{getattr(of, name): rule for name, rule in _NAMED.items() for of in (torch, Tensor)},
    Tensor.__abs__: _abs,
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), lambda held, input: _relu(held, input, inplace=True)),
    F.leaky_relu_: lambda held, input, negative_slope=0.01: _leaky_relu(held, input, negative_slope, True),
    **dict.fromkeys((torch.maximum, Tensor.maximum), _maximum),
    **dict.fromkeys((torch.minimum, Tensor.minimum), lambda held, x, y: -_maximum(held, -x, -y)),
    F.leaky_relu: _leaky_relu,
    F.prelu: _prelu,
    F.relu6: lambda held, input, inplace=False: _hardtanh(held, input, 0.0, 6.0, inplace),
    F.hardtanh: _hardtanh,
    F.hardsigmoid: _hardsigmoid,
    F.hardswish: _hardswish,
    bias_act: _bias_act,
}
_RULES_IN_PLACE: dict[Callable, Callable] = {
    getattr(of, f"{name}_"): _in_place(rule)
    for name, rule in _NAMED.items()
    for of in (torch, Tensor)
    if hasattr(of, f"{name}_")
}
_REFUSED = {F.threshold, F.rrelu, F.hardshrink, F.softshrink, F.max_pool1d, F.max_pool2d, F.max_pool3d}
_REFUSED |= {F.threshold_, F.rrelu_, F.hardtanh_}
_REFUSED |= {F.selu, torch.selu, torch.selu_}
_REFUSED |= {F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d}
_MODULES = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ReLU6, nn.Hardtanh, nn.Threshold, nn.RReLU)
_MODULES += (nn.Hardswish, nn.Hardsigmoid, nn.SELU)
_MODULES += (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
