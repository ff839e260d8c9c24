"""The networks that penalties take: anything that can be called. Their parts, and why a compiled one is refused."""

import functools
import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

Network = Callable[..., Tensor]


def why_refused(net: Network) -> str | None:
    """A sentence with the way out if `net` has no second gradient by how it is compiled or sharded, else None."""
    for part in parts_of(net):
        if any(base.__name__ in _SHARDED for base in type(part).__mro__):
            return (
                f"{type(part).__name__} is sharded by FSDP, which frees the weights that a second gradient reads: want "
                'the network as it was before, or backward_with_penalty(level="aligned"), which needs first '
                "derivatives alone"
            )
    return why_compiled(net)


_SHARDED = {"FSDPModule", "FullyShardedDataParallel"}


def why_compiled(net: Network) -> str | None:
    """A sentence with the way out if torch.compile has made `net` or a part of it, else None."""
    # Nothing is compiled before torch._dynamo is imported, and its import would take seconds.
    compiled_module = getattr(sys.modules.get("torch._dynamo"), "OptimizedModule", ())
    for part in parts_of(net):
        if part is getattr(net, "__self__", None):  # a method of a module is not compiled with the module's forward
            continue
        if isinstance(part, nn.Module):
            compiled = isinstance(part, compiled_module) or part._compiled_call_impl is not None
        else:
            compiled = hasattr(part, "_torchdynamo_orig_callable")
        if compiled:
            return (
                f"{type(net).__name__} is compiled by torch.compile, whose functions have no second gradient: a "
                "penalty would fail or, in some versions of PyTorch, be left out silently. Give the penalty the "
                "network as it was before torch.compile (a compiled module has it in _orig_mod), or compile the whole "
                "step. torch.func.grad then takes the gradients by the image and by the parameters. "
                'backward_with_penalty(level="aligned") needs first derivatives alone'
            )
    return None


def parts_of(net: Network) -> list[Any]:
    """`net`, the modules in it, and the modules and functions that its functions and methods refer to."""
    found: dict[Any, Any] = {}
    waiting = [net]
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
            waiting += part.__func__, *_named_in(part.__func__.__code__, part.__self__)
        elif isinstance(part, types.FunctionType) and (part.__module__ or "").partition(".")[0] not in _NOT_SEARCHED:
            waiting += _referred_to_by(part)
        elif isinstance(call := vars(type(part)).get("__call__"), types.FunctionType):
            waiting += _named_in(call.__code__, part)
    return list(found.values())


_NOT_SEARCHED = {"torch", *sys.stdlib_module_names}


def _referred_to_by(function: types.FunctionType) -> Iterator[Any]:
    """The modules and functions in the closure, the defaults and the globals that the code of `function` names."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY_CELL]
    for value in (*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _named_in(function.__code__, value)
    for name in names_in(function.__code__):
        if isinstance(value := function.__globals__.get(name), nn.Module | types.FunctionType):
            yield value


_EMPTY_CELL = types.CellType()


def _named_in(code: types.CodeType, value: Any) -> Iterator[Any]:
    """`value` itself if it is a module or a function, else those of its attributes and methods that `code` names."""
    if isinstance(value, nn.Module | types.FunctionType | types.MethodType | functools.partial):
        yield value
        return
    held = getattr(value, "__dict__", {})
    for name in names_in(code):
        if isinstance(held.get(name), nn.Module | types.FunctionType):
            yield held[name]
        elif isinstance(method := getattr(type(value), name, None), types.FunctionType):
            yield types.MethodType(method, value)
        elif isinstance(method, nn.Module):
            yield method


@functools.lru_cache(maxsize=256)
def names_in(code: types.CodeType) -> tuple[str, ...]:
    inner = (names_in(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return *code.co_names, *itertools.chain.from_iterable(inner)
