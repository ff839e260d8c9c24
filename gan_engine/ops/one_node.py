"""Functions that torch.compile takes as one node. They are registered with the compiler as soon as it is imported.

torch.compiler.allow_in_graph imports torch._dynamo. This import takes longer than the import of torch, and most
processes never need it. A function therefore waits here for the import: to compile a function imports torch._dynamo.
"""

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable)

_COMPILER = "torch._dynamo"
_functions: list[Callable] = []


def one_node(function: F) -> F:
    """`function` itself. torch.compile puts it into its graph and does not trace into it.

    The conditions of torch.compiler.allow_in_graph hold here too.
    """
    compiler: Any = sys.modules.get(_COMPILER)
    if hasattr(compiler, "allow_in_graph"):
        compiler.allow_in_graph(function)
    else:  # it is not imported yet, or only in part: _Finder registers the function later
        _functions.append(function)
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
        for function in _functions:
            module.allow_in_graph(function)

    return exec_module


sys.meta_path.insert(0, _Finder())
