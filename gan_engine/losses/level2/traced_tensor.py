"""The tensor that D runs on while its forward pass is recorded."""

import inspect
import sys
import weakref
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction

from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import PROPERTIES, described, rule_for, why_not
from gan_engine.losses.level2.tape import Step, Tape


class TracedTensor(Tensor):
    """Stands for `value`, a tensor of D's forward pass. Every torch function that D calls on it meets a rule.

    C++ sees a sparse tensor without elements. Code that goes around the rules then has no memory to read, and gets an
    error where it asks for a pointer. (A strided tensor without memory would hand out a null pointer.)
    """

    @staticmethod
    def __new__(cls, value: Tensor, tape: Tape, slot: int = 0) -> "TracedTensor":
        empty = torch.empty(value.shape, dtype=value.dtype, device=value.device, layout=torch.sparse_coo)
        return Tensor._make_subclass(cls, empty, True)

    def __init__(self, value: Tensor, tape: Tape, slot: int = 0) -> None:
        self.value, self.tape, self._slot = value, tape, slot
        self.shares_memory = False  # whether another tensor shows the same memory
        tape.traced.append(weakref.ref(self))

    @property
    def slot(self) -> int:
        with torch._C.DisableTorchFunctionSubclass():
            node = self.grad_fn
        if node is not None:  # no rule makes a node of autograd
            raise NotPiecewiseLinear(f"{node.name()} has a gradient of its own")
        return self._slot

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        function = described(func)
        key, name, in_place = function
        in_place = kwargs.pop("inplace", False) or in_place
        if key == "requires_grad":
            return _requires_grad(*args, **kwargs) if in_place else True
        if key in PROPERTIES:
            return func(*(x.value if isinstance(x, TracedTensor) else x for x in args), **kwargs)
        rule = rule_for(key)
        if rule is None:
            raise NotPiecewiseLinear(why_not(function))
        if not torch.is_grad_enabled():
            raise NotPiecewiseLinear(_why_without_gradients(name))
        target = args[0] if in_place else None
        if in_place and not rule.in_place:
            raise NotPiecewiseLinear(f"{name} in place is not known, but {name} that returns a new tensor is")
        if in_place and (not isinstance(target, TracedTensor) or target.shares_memory):
            raise NotPiecewiseLinear(f"{name} writes into memory that another tensor shows")
        try:
            result = rule.run(func, *args, **kwargs)
        except TypeError as error:  # arguments that the rule does not know
            raise NotPiecewiseLinear(f"{name}: {error}") from None
        if not in_place:
            return result
        target.value, target._slot = result.value, result.slot
        return target

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        raise NotPiecewiseLinear(f"{func} is not known to be piecewise linear")


def _why_without_gradients(name: str) -> str:
    """A sentence about what has turned gradients off around the call of the function `name`."""
    function, frame, functions = None, sys._getframe(), _functions()
    while frame is not None and function is None:
        function, frame = functions.get(frame.f_code), frame.f_back
    if function is None:
        return f"it computes without gradients: {name} is called with gradients off, as under torch.no_grad()"
    if function is CheckpointFunction:
        return "it computes without gradients: torch.utils.checkpoint has use_reentrant=True"
    return f"{function.__name__}, a torch.autograd.Function, has a gradient of its own"


def _functions() -> dict[CodeType, type]:
    """Every torch.autograd.Function, by the code of its forward. From PyTorch 2.14 on, `apply` has no frame."""
    found: dict[CodeType, type] = {}
    left: list[type] = torch.autograd.Function.__subclasses__()
    while left:
        function = left.pop()
        left += function.__subclasses__()
        forward = inspect.unwrap(function.forward)
        if isinstance(forward, FunctionType):
            found.setdefault(forward.__code__, function)
    return found


def _requires_grad(input: TracedTensor, requires_grad: bool = True) -> TracedTensor:
    if not requires_grad:
        raise NotPiecewiseLinear("requires_grad_(False) cuts a gradient")
    return input


def record_step(tape: Tape, step: Step, *values: Tensor) -> tuple[TracedTensor, ...]:
    """Record `step`, and return the traced tensors that stand for its results `values`."""
    tape.record(step, values)
    return tuple(TracedTensor(value, tape, slot) for value, slot in zip(values, step.results, strict=True))


def refuse_traced(name: str, value: Any) -> None:
    """Refuse a weight or a bias, called `name`, that is an activation."""
    if isinstance(value, TracedTensor):
        raise NotPiecewiseLinear(f"its {name} depends on the image")
