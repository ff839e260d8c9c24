"""Import the ops of another library, to time them beside ours. They have the names and arguments of our ops."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable
from pathlib import Path


def load(path: Path, ops: Iterable[str]) -> dict[str, Callable]:
    """{op: function} of those `ops` that `path` has: a Python file, a package, or a directory with a file for each op.

    A library with other names needs an adapter: a file with functions such as
    `def bias_act(x, b=None, *, dim, act, alpha, gain, clamp)`, with all arguments that the samples use. A package
    inside another package is imported by its full name, so that its relative imports work.

    Raises FileNotFoundError if `path` does not exist, ValueError if it has none of the ops.
    """
    path = path.resolve()
    if not path.exists():
        raise FileNotFoundError(f"--benchmark-peers: want a Python file or a directory, got {path}, which is missing")
    folder, module = (path.parent, path.stem) if path.is_file() else (path, "")
    names = [module]
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    package = ".".join(filter(None, names))
    sys.path.insert(0, str(folder))
    modules = [importlib.import_module(package)] if package else []
    peers = {}
    for op in ops:
        own = f"{package}.{op}".strip(".")
        if not module and importlib.util.find_spec(own) is not None:
            modules.append(importlib.import_module(own))
        functions = (getattr(m, op, None) for m in reversed(modules))
        function = next((f for f in functions if callable(f)), None)
        if function is not None:
            peers[op] = function
    if not peers:
        raise ValueError(f"--benchmark-peers: want at least one of {', '.join(ops)} in {path}, got none")
    return peers
