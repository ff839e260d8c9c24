"""Another library's ops as peers: functions that have the names and arguments of ours, from a path the user gives."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def load(path: Path, ops: Iterable[str]) -> dict[str, Callable]:
    """Those of `ops` that `path` has: a Python file, a package, or a directory of files named after the ops.

    A package inside others is imported by its full name, so that its relative imports work. An adapter is a file with
    functions such as `def bias_act(x, b=None, *, dim, act, alpha, gain, clamp)`, of which it needs the arguments that
    the samples use.
    """
    path = path.resolve()
    if not path.exists():
        raise FileNotFoundError(f"--benchmark-peers: want a Python file or a directory, and there is no {path}")
    folder, module = (path.parent, path.stem) if path.is_file() else (path, "")
    names = [module]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    package = ".".join(filter(None, names))
    sys.path.insert(0, str(folder))
    modules = [importlib.import_module(package)] if package else []
    found = {}
    for op in ops:
        own = f"{package}.{op}".strip(".")
        if not module and importlib.util.find_spec(own) is not None:
            modules.append(importlib.import_module(own))
        functions = (getattr(m, op, None) for m in reversed(modules))
        function = next((f for f in functions if callable(f)), None)
        if function is not None:
            found[op] = function
    if not found:
        raise ValueError(f"--benchmark-peers: {path} has none of {', '.join(ops)}")
    return found
