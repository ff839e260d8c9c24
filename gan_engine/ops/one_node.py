"""Functions that torch.compile takes as one node, registered with it when there is a compiler to register with.

torch.compiler.allow_in_graph imports torch._dynamo, which takes longer than torch itself and which most processes never
need. Here a function waits for that import instead: whoever compiles a function imports torch._dynamo first.
"""

import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TypeVar

F = TypeVar("F", bound=Callable)

_COMPILER = "torch._dynamo"
_functions: list[Callable] = []


def one_node(function: F) -> F:
    """`function` itself, which torch.compile then puts into its graph without tracing into it.

    As torch.compiler.allow_in_graph, whose conditions hold here too.
    """
    compiler = sys.modules.get(_COMPILER)
    if hasattr(compiler, "allow_in_graph"):
        compiler.allow_in_graph(function)
    else:  # not imported yet, or its import is under way: see _Finder
        _functions.append(function)
    return function


class _Finder(importlib.abc.MetaPathFinder):
    """Finds torch._dynamo where the other finders do, and registers the functions when it has been imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _COMPILER:
            return None
        others = (finder for finder in list(sys.meta_path) if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None:
            spec.loader.exec_module = _then_register(spec.loader.exec_module)
        return spec


def _then_register(execute: Callable[[ModuleType], None]) -> Callable[[ModuleType], None]:
    def exec_module(module: ModuleType) -> None:
        execute(module)
        for function in _functions:
            module.allow_in_graph(function)

    return exec_module


sys.meta_path.insert(0, _Finder())
