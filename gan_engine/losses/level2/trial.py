"""Level 2 tried on a D: why it does not hold, what D was before, and refusals that are remembered.

Whether D is piecewise linear shows when it runs on a tensor of the tape. A D that is refused half way may have counted
the batch, turned a spectral norm or drawn numbers by then. All that is put back, as D runs once more at another level.
"""

import functools
import itertools
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from gan_engine.losses.level2.piecewise_linear import Pass
from gan_engine.losses.level2.rules import Value
from gan_engine.losses.level2.tape import NotPiecewiseLinear

Network = Callable[..., Tensor]


def refusal(D: Network, img: Tensor, c: Any = None) -> str | None:
    """Why level 2 does not hold for D: a sentence that names the layer, or None if it does.

    D runs once on img, with c handed on. Buffers and attributes of modules and the states of PyTorch's random numbers
    are put back. That D is compiled is a reason too.
    """
    if (reason := compiled(D)) is not None:
        return reason
    before = Before(D, img.device)
    try:
        Pass(D, img, c, before)
    except (NotPiecewiseLinear, ValueError) as error:
        return str(error)
    finally:
        before.put_back()
    return None


def attempt(D: Network, img: Tensor, c: Any = None) -> Pass:
    """Pass(D, img, c), or its error, which leaves D as it was; a refusal is remembered."""
    before = Before(D, img.device)
    try:
        return Pass(D, img, c, before)
    except BaseException as error:
        before.put_back()
        if isinstance(error, NotPiecewiseLinear):
            _remember(D, img, c)
        raise


def _remember(D: Network, img: Tensor, c: Any) -> None:
    if (owner := _owner(D)) is not None:
        states = _refused.setdefault(owner, set())
        if len(states) >= 64:  # of a D that never stays as it is
            states.clear()
        states.add(_state(D, img, c))


def is_refused(D: Network, img: Tensor, c: Any = None) -> bool:
    """Whether level 2 is known not to hold for D in its present state.

    To that belong D's modules, their modes and hooks, what requires gradients, and attributes that are no numbers. A
    function that is made anew for each call is known by its code and by the modules that it refers to.
    """
    owner = _owner(D)
    return owner in _refused and _state(D, img, c) in _refused[owner]


_refused: weakref.WeakKeyDictionary[Any, set[tuple]] = weakref.WeakKeyDictionary()


def _owner(D: Network) -> Any:
    """What a memory of D hangs on: a module, or the code of a function; None if there is neither."""
    while isinstance(D, functools.partial | types.MethodType):
        D = D.func if isinstance(D, functools.partial) else D.__func__
    return D if isinstance(D, nn.Module) else getattr(D, "__code__", None)


def _state(D: Network, img: Tensor, c: Any) -> tuple:
    given = img.shape[1:], img.dtype, type(c), torch.is_autocast_enabled(img.device.type)
    return given, tuple(_state_of(part) for part in parts(D) if isinstance(part, nn.Module))


def _state_of(module: nn.Module) -> tuple:
    attributes = tuple(value for value in vars(module).values() if value is None or isinstance(value, bool | str))
    learned = tuple(p is not None and p.requires_grad for p in module._parameters.values())
    hooks = module._forward_pre_hooks, module._forward_hooks, module._backward_pre_hooks, module._backward_hooks
    return id(module), type(module), attributes, learned, *(tuple(registered) for registered in hooks)


def parts(D: Network) -> list[Any]:
    """D, the modules in it, and the functions and modules that it refers to, where it is a function or a method."""
    found: dict[Any, Any] = {}
    waiting = [D]
    while waiting:
        part = waiting.pop()
        method = isinstance(part, types.MethodType)
        key = (id(part.__func__), id(part.__self__)) if method else id(part)
        if key in found:
            continue
        found[key] = part
        if isinstance(part, nn.Module):
            waiting += part._modules.values()
            waiting += [forward] if (forward := vars(part).get("forward")) is not None else []
        elif isinstance(part, functools.partial):
            waiting += part.func, *part.args, *part.keywords.values()
        elif method and isinstance(part.__func__, types.FunctionType):
            waiting += part.__func__, *_used(part.__self__, part.__func__.__code__)
        elif isinstance(part, types.FunctionType) and (part.__module__ or "").partition(".")[0] not in _FOREIGN:
            waiting += _referred(part)
        elif isinstance(call := vars(type(part)).get("__call__"), types.FunctionType):
            waiting += _used(part, call.__code__)
    return list(found.values())


_FOREIGN = {"torch", *sys.stdlib_module_names}


def _referred(function: types.FunctionType) -> Iterator[Any]:
    """What the code of a function names: closures, defaults and globals."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
    for value in (*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _used(value, function.__code__)
    for name in _names(function.__code__):
        if isinstance(value := function.__globals__.get(name), nn.Module | types.FunctionType):
            yield value


_EMPTY = types.CellType()


def _used(value: Any, code: types.CodeType) -> Iterator[Any]:
    """A module or a function itself; of another object, such attributes and methods as the code names."""
    if isinstance(value, nn.Module | types.FunctionType | types.MethodType | functools.partial):
        yield value
        return
    held = getattr(value, "__dict__", {})
    for name in _names(code):
        if isinstance(held.get(name), nn.Module | types.FunctionType):
            yield held[name]
        elif isinstance(method := getattr(type(value), name, None), types.FunctionType):
            yield types.MethodType(method, value)
        elif isinstance(method, nn.Module):
            yield method


@functools.lru_cache(maxsize=256)
def _names(code: types.CodeType) -> tuple[str, ...]:
    inner = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return *code.co_names, *itertools.chain.from_iterable(inner)


def compiled(net: Network) -> str | None:
    """That torch.compile has made `net` or a part of it, in a sentence with the way out; None if it has not."""
    # Nothing is compiled before this module is imported, and to import it here would take seconds.
    by_compiler = getattr(sys.modules.get("torch._dynamo"), "OptimizedModule", ())
    for part in parts(net):
        if part is getattr(net, "__self__", None):  # a method of it is not compiled with its forward
            continue
        if isinstance(part, nn.Module):
            made = isinstance(part, by_compiler) or part._compiled_call_impl is not None
        else:
            made = hasattr(part, "_torchdynamo_orig_callable")
        if made:
            return (
                f"{type(net).__name__} is compiled by torch.compile, whose functions have no second gradient: a "
                "penalty would fail or, in some versions of PyTorch, be left out silently. Give the penalty the "
                "network as it was before torch.compile (of a compiled module, its _orig_mod), or compile the whole "
                "step, written with torch.func.grad for the gradients by the image and by the parameters"
            )
    return None


class Before(TorchFunctionMode):
    """What modules, tensors and random numbers were before they were changed, while this is entered.

    Of the modules of D, and of every other that runs, the attributes and buffers are kept; of other tensors, those that
    functions of PyTorch write to.
    """

    def __init__(self, D: Network, device: torch.device) -> None:
        super().__init__()
        self.attributes: dict[nn.Module, dict[str, Any]] = {}
        self.containers: list[tuple[Any, Any]] = []
        self.tensors: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self.generators: dict[torch.Generator, Tensor] = {}
        self.random = _random_states(device)
        self.thread = threading.get_ident()
        for part in parts(D):
            if isinstance(part, nn.Module):
                self._keep_module(part)

    def __enter__(self) -> "Before":
        self.hook = register_module_forward_pre_hook(self._meet)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.hook.remove()

    def _meet(self, module: nn.Module, args: tuple) -> None:
        if threading.get_ident() != self.thread:
            return
        if module._backward_hooks or module._backward_pre_hooks:
            raise NotPiecewiseLinear("a backward hook, which only autograd calls, is registered")
        for part in () if module in self.attributes else module.modules():
            self._keep_module(part)

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        written = _writes_to(func)
        if written or "out" in kwargs:
            for tensor in tree_leaves((args[:written], kwargs.get("out"), [*kwargs.values()] if written > 1 else ())):
                if isinstance(tensor, Tensor) and not isinstance(tensor, Value) and tensor.grad_fn is None:
                    self._keep(tensor)
        if (generator := kwargs.get("generator")) is not None and generator not in self.generators:
            self.generators[generator] = generator.get_state()
        return func(*args, **kwargs)

    def _keep_module(self, module: nn.Module) -> None:
        if module in self.attributes or isinstance(module, LazyModuleMixin):
            return
        self.attributes[module] = dict(vars(module))
        for name, value in vars(module).items():
            if name not in _OF_EVERY_MODULE and isinstance(value, dict | list | set | deque):
                self.containers.append((value, value.copy()))
        for buffer in module._buffers.values():
            if buffer is not None:
                self._keep(buffer)

    def _keep(self, tensor: Tensor) -> None:
        if id(tensor) not in self.tensors:
            self.tensors[id(tensor)] = tensor, tensor.data, tensor.detach().clone()

    def put_back(self) -> None:
        for container, before in self.containers:
            container.clear()
            (container.extend if isinstance(container, list | deque) else container.update)(before)
        for module, before in self.attributes.items():
            for name in vars(module).keys() - before.keys():
                del vars(module)[name]
            vars(module).update(before)
        for tensor, memory, before in reversed(self.tensors.values()):  # views of a tensor were written after it
            tensor.data = memory  # it may have been given another, or another size
            memory.copy_(before)  # as .data does not count it: an earlier pass of D may be waiting for its gradients
        for generator, state in self.generators.items():
            generator.set_state(state)
        for put_back, state in self.random:
            put_back(state)


# Hooks, which a forward pass leaves alone.
_OF_EVERY_MODULE = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}


_IN_PLACE = {
    *("__set__", "__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__"),
    *("__ipow__", "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__"),
}


@functools.lru_cache(maxsize=256)
def _writes_to(func: Callable) -> int:
    """How many of its arguments, from the first on, a function of PyTorch may write to."""
    name = getattr(func, "__name__", "")
    if name in ("batch_norm", "instance_norm"):  # running statistics
        return 3
    return int((name.endswith("_") and not name.endswith("__")) or name in _IN_PLACE)


def _random_states(device: torch.device) -> list[tuple[Callable[[Tensor], None], Tensor]]:
    """The states of the generators that are drawn from without a name, with what sets each."""
    found = [(torch.set_rng_state, torch.get_rng_state())]
    if device.type == "cuda" and not torch.cuda.is_current_stream_capturing():
        found.append((lambda state: torch.cuda.set_rng_state(state, device), torch.cuda.get_rng_state(device)))
    return found
