"""Functions that torch.compile does not trace into. They are registered with the compiler as soon as it is imported.

torch.compiler.allow_in_graph and assume_constant_result import torch._dynamo. This import takes longer than the import
of torch, and most processes never need it. A function therefore waits here for the import: to compile a function
imports torch._dynamo.
"""

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)

_COMPILER = "torch._dynamo"
_waiting: list[tuple[str, Callable]] = []  # the compiler's decorator, and the function that waits for it


def one_node(function: F) -> F:
    """`function` itself. torch.compile puts it into its graph and does not trace into it.

    The conditions of torch.compiler.allow_in_graph hold here too.
    """
    return _registered("allow_in_graph", function)


def constant(function: F) -> F:
    """`function` itself. torch.compile calls it once while it compiles, and takes the result for a constant."""
    return _registered("assume_constant_result", function)


def _registered(decorator: str, function: F) -> F:
    compiler: Any = sys.modules.get(_COMPILER)
    if hasattr(compiler, decorator):
        getattr(compiler, decorator)(function)
    else:  # it is not imported yet, or only in part: _Finder registers the function later
        _waiting.append((decorator, function))
    return function


class _Finder(importlib.abc.MetaPathFinder):
    """Find torch._dynamo where the other finders find it, and register the functions when it has been imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _COMPILER:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None:
            loader: Any = spec.loader
            loader.exec_module = _then_register(loader.exec_module)
        return spec


def _then_register(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def exec_module(module: ModuleType) -> None:
        execute(module)
        for decorator, function in _waiting:
            getattr(module, decorator)(function)

    return exec_module


sys.meta_path.insert(0, _Finder())
