"""Arrays in .npz and .npy files: what there is, and the one that is asked for. Pickles are refused."""

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gan_engine.data.image_set import DataError, require_memory


@dataclass(frozen=True)
class Head:
    """What an array is, before it is read."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name} {list(self.shape)}"


def heads(path: Path) -> dict[str, Head]:
    """The arrays of a file by name; that of a .npy is called by the name of the file. Raises DataError."""
    with _explained(path):
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {path.stem: _head(file)}
        found = {}
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    with archive.open(entry) as file:
                        found[entry.filename.removesuffix(".npy")] = _head(file)
    if not found:
        raise DataError(f"{path}: want arrays in it, got none")
    return found


def read(path: Path, name: str, head: Head) -> np.ndarray:
    """The array of that name, which `heads` has found. Raises DataError."""
    if head.dtype.hasobject:
        raise DataError(f"{path}: {name} holds Python objects, want plain arrays of numbers")
    with _explained(path, f", its {name}"):
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        require_memory(f"{path}: its {name}", math.prod(head.shape) * head.dtype.itemsize)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]


def listing(found: Mapping[str, Head]) -> str:
    """The arrays of a file in words, the first eight."""
    rest = f" and {len(found) - 8:,} more" if len(found) > 8 else ""
    return ", ".join(f"{name} {head}" for name, head in list(found.items())[:8]) + rest


def _head(file: BinaryIO) -> Head:
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = read_header[version](file)
    return Head(dtype, shape)


@contextmanager
def _explained(path: Path, part: str = "") -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # damaged archives raise nearly anything
        kind = f"{path.suffix.lower()} file of plain arrays"
        raise DataError(f"{path}{part}: not an {kind} that can be read ({type(error).__name__}: {error})") from error
