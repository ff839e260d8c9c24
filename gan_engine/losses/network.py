"""The networks that penalties take: anything that can be called. Their parts, and why a compiled one is refused."""

import functools
import itertools
import sys
import types
from collections.abc import Callable, Collection, Iterator
from typing import Any

from torch import Tensor, nn

Network = Callable[..., Tensor]


def why_refused(net: Network) -> str | None:
    """A sentence with the way out if `net` has no second gradient by how it is compiled or sharded, else None."""
    parts = parts_of(net)
    for part in parts:
        if any(base.__name__ in _SHARDED for base in type(part).__mro__):
            return (
                f"{type(part).__name__} is sharded by FSDP, which frees the weights that a second gradient reads: want "
                'the network as it was before, or backward_with_penalty(level="aligned"), which needs first '
                "derivatives alone"
            )
    return _why_compiled(net, parts)


_SHARDED = {"FSDPModule", "FullyShardedDataParallel"}


def why_compiled(net: Network, *, held: bool = False) -> str | None:
    """A sentence with the way out if torch.compile has made `net` or a part of it, else None; `held` as `parts_of`."""
    return _why_compiled(net, parts_of(net, held=held))


def _why_compiled(net: Network, parts: list[Any]) -> str | None:
    # Nothing is compiled before torch._dynamo is imported, and its import would take seconds.
    compiled_module = getattr(sys.modules.get("torch._dynamo"), "OptimizedModule", ())
    for part in parts:
        if part is getattr(net, "__self__", None):  # a method of a module is not compiled with the module's forward
            continue
        if isinstance(part, nn.Module):
            compiled = isinstance(part, compiled_module) or part._compiled_call_impl is not None
        else:
            compiled = hasattr(part, "_torchdynamo_orig_callable") and not getattr(part, "_torchdynamo_disable", False)
        if compiled:
            return f"{type(net).__name__} {_COMPILED}"
    return None


# A predicate: what is compiled stands before it.
_COMPILED = (
    "is compiled by torch.compile, whose functions have no second gradient: a penalty would fail or, in some versions "
    "of PyTorch, be left out silently. Give the penalty the network as it was before torch.compile (a compiled module "
    "has it in _orig_mod), or compile the whole step. torch.func.grad then takes the gradients by the image and by the "
    'parameters. backward_with_penalty(level="aligned") needs first derivatives alone'
)


def explain(error: RuntimeError) -> None:
    """Raise an error with the way out if `error` is that of a compiled function, which has no second gradient."""
    if any(words in str(error) for words in _WORDS_OF_PYTORCH):
        raise RuntimeError(f"a function that D calls {_COMPILED}") from error


_WORDS_OF_PYTORCH = "does not currently support double backward", "was compiled with non-empty donated buffers"


def modules_of(net: Network, *, held: bool = False) -> list[nn.Module]:
    """The modules among the parts of `net`; see `parts_of`."""
    return [part for part in parts_of(net, held=held) if isinstance(part, nn.Module)]


def parameters_of(net: Network, *, held: bool = False) -> list[nn.Parameter]:
    """The parameters of the modules in `net`, each once."""
    modules = modules_of(net, held=held)
    return list({id(p): p for module in modules for p in module._parameters.values() if p is not None}.values())


def parts_of(net: Network, *, held: bool = False) -> list[Any]:
    """`net`, the modules in it, and the modules and functions that its functions and methods refer to.

    `held` adds those in lists, tuples and dicts there. `net` need not call all of these: they may be put back to what
    they were, but neither refuse `net` nor count as what learns.

    Raises ValueError if `net` is neither a module nor a function.
    """
    levels = _LEVELS if held else 0
    if not callable(net) or isinstance(net, type):
        got = f"the class {net.__name__}" if isinstance(net, type) else f"a {type(net).__name__}"
        raise ValueError(f"the network must be a module or a function, got {got}")
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
            given = *part.args, *part.keywords.values()
            waiting += part.func, *given, *_held_in(given, levels=levels and levels + 1)
        elif method and isinstance(part.__func__, types.FunctionType):
            waiting += part.__func__, *_named_in(part.__func__.__code__, part.__self__, levels)
        elif isinstance(part, types.FunctionType) and not _holds_nothing(part.__module__ or ""):
            waiting += _referred_to_by(part, levels)
        elif isinstance(call := vars(type(part)).get("__call__"), types.FunctionType):
            waiting += _named_in(call.__code__, part, levels)
    return list(found.values())


@functools.lru_cache(maxsize=256)
def _holds_nothing(module: str) -> bool:
    """True if no function of a Python module refers to a network."""
    return module.partition(".")[0] in _NOT_SEARCHED or module.startswith("gan_engine.ops.")


_NOT_SEARCHED = {"torch", *sys.stdlib_module_names}


def _referred_to_by(function: types.FunctionType, levels: int) -> Iterator[Any]:
    """The modules and functions in the closure, the defaults and the globals that the code of `function` names."""
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY_CELL]
    for value in (*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
        yield from _named_in(function.__code__, value, levels)
    for name in names_in(function.__code__):
        yield from _held_in(function.__globals__.get(name), _words_in(function.__code__), levels=levels)


_EMPTY_CELL = types.CellType()


def _named_in(code: types.CodeType, value: Any, levels: int) -> Iterator[Any]:
    """What `_held_in` finds in `value`; and in an object those of its attributes and methods that `code` names."""
    yield from _held_in(value, _words_in(code), levels=levels)
    if isinstance(value, _PARTS):
        return
    held = getattr(value, "__dict__", {})
    for name in names_in(code):
        if name in held:
            yield from _held_in(held[name], _words_in(code), levels=levels)
        elif isinstance(method := getattr(type(value), name, None), types.FunctionType):
            yield types.MethodType(method, value)
        elif isinstance(method, nn.Module):
            yield method


def _held_in(value: Any, words: Collection[str] = (), *, levels: int) -> Iterator[Any]:
    """`value` itself if it is a module or a function, else those in a list, a tuple or a dict, `levels` deep.

    If `words` has keys of a dict, only their entries count: a D that calls nets["D"] does not call nets["G"].
    """
    if isinstance(value, _PARTS):
        yield value
    elif levels and isinstance(value, _CONTAINERS) and len(value) <= _MOST_HELD:
        if isinstance(value, dict):
            entries = list(value.items())  # another thread may write to it
            value = [each for key, each in entries if key in words] or [each for _, each in entries]
        for each in value:
            if callable(each) or isinstance(each, _CONTAINERS):
                yield from _held_in(each, words, levels=levels - 1)


_PARTS = nn.Module, types.FunctionType, types.MethodType, functools.partial
_CONTAINERS = list, tuple, dict
_LEVELS = 2
_MOST_HELD = 20  # entries of one: every step looks at them


@functools.lru_cache(maxsize=256)
def _words_in(code: types.CodeType) -> frozenset[str]:
    """The names and the strings in `code`."""
    inner = (_words_in(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return frozenset(code.co_names).union(filter(lambda const: isinstance(const, str), code.co_consts), *inner)


@functools.lru_cache(maxsize=256)
def names_in(code: types.CodeType) -> tuple[str, ...]:
    inner = (names_in(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return *code.co_names, *itertools.chain.from_iterable(inner)
