"""Names of several files in one word, as WebDataset writes them: shards/{000000..000012}.tar."""

import itertools
import os
import re
from pathlib import Path

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand(path: Path) -> list[Path]:
    """The files that a path with braces names, in order: {3..5} counts with equal digits, {a,b} lists. Else [path]."""
    parts = _BRACES.split(str(path))  # text and the inside of braces take turns
    if len(parts) == 1 or path.exists():
        return [path]
    choices = [_choices(part) if i % 2 else [part] for i, part in enumerate(parts)]
    return [Path("".join(chosen)) for chosen in itertools.product(*choices)]


def folder_of(path: Path) -> Path:
    """The folder of a file, or the deepest one that holds all files of `expand(path)`."""
    return Path(os.path.commonpath([part.parent for part in expand(path)]))


def _choices(inside: str) -> list[str]:
    counted = _RANGE.fullmatch(inside)
    if counted is None:
        return inside.split(",")
    first, last = counted.groups()
    return [f"{i:0{len(first)}d}" for i in range(int(first), int(last) + 1)]
