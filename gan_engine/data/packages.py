"""Import a package that only some data need."""

import importlib
from pathlib import Path
from typing import Any

from gan_engine.data.image_set import DataError


def require_package(name: str, path: Path, *, extra: str) -> Any:
    """The module `name`, which reads `path`. Raises DataError with the line of pip for the `extra` that installs it."""
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        got = "none" if isinstance(error, ModuleNotFoundError) and error.name == package else error
        advice = f'pip install "gan-engine[{extra}]"'
        raise DataError(f"{path}: want the package {package} to read it, got {got}: {advice}") from error
