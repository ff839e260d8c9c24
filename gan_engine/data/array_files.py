"""List the arrays in a .npz or .npy file, and read one of them. Pickled objects are refused."""

import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gan_engine.data.image_set import DataError, require_memory
from gan_engine.system.names import listed


@dataclass(frozen=True)
class Head:
    """Type and shape of an array, known before the array is read."""

    dtype: np.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype.name} {list(self.shape)}"


def heads(path: Path) -> dict[str, Head]:
    """{name: Head} of the arrays in a file. The array of a .npy file has the name of the file. Raises DataError."""
    with _explained(path):
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {path.stem: _head(file)}
        by_name = {}
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".npy"):
                    with archive.open(entry) as file:
                        by_name[entry.filename.removesuffix(".npy")] = _head(file)
    if not by_name:
        raise DataError(f"{path}: want arrays in it, got none")
    return by_name


def read(path: Path, name: str, head: Head) -> np.ndarray:
    """The array of that name. `head` is its entry in `heads(path)`. Raises DataError."""
    if head.dtype.hasobject:
        raise DataError(f"{path}: want numbers in {name}, got Python objects")
    with _explained(path, f", its {name}"):
        if path.suffix.lower() == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        require_memory(f"{path}: its {name}", math.prod(head.shape) * head.dtype.itemsize)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]


def listing(by_name: Mapping[str, Head]) -> str:
    """The first eight arrays of a file as text: images uint8 [10, 8, 8], ..."""
    return listed([f"{name} {head}" for name, head in by_name.items()], most=8)


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
    except Exception as error:  # a damaged archive may raise any exception
        kind = f"{path.suffix.lower()} file of arrays of numbers"
        raise DataError(f"{path}{part}: want a readable {kind}, got {type(error).__name__}: {error}") from error
