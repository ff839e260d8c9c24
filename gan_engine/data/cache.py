"""Keep decoded sets on disk, so that a second start with the same data decodes nothing.

Folder: GAN_ENGINE_CACHE, or gan_engine/decoded in XDG_CACHE_HOME or ~/.cache. GAN_ENGINE_CACHE=0 turns the cache off.
Nothing is kept if the folder cannot be written. If the cache exceeds `LIMIT`, the sets used longest ago are removed.

A kept set is used only if all of these are unchanged:

* every file below the folder: name, size, time of modification, time of change, inode; or, in an archive, the checksum
  of every member
* the content of files that changed less than `RECENT` seconds before they were decoded: two changes within one tick of
  the file system's clock look alike
* the options, the code in this folder, and the versions of `LIBRARIES` and Pillow's decoders

Every entry has a checksum, and a damaged entry is decoded again.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import struct
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import torch
from PIL import features
from torch import Tensor

from gan_engine.data.braces import expand, folder_of
from gan_engine.data.files import walk
from gan_engine.data.image_set import ImageSet, available_bytes

LIMIT = 20e9  # bytes
RECENT = 2.0  # seconds: the largest tick of a file system's clock
# Libraries that decode. A reader that uses another library adds its name here.
LIBRARIES = ("pillow", "pillow-heif", "numpy", "trimesh", "scipy", "lmdb", "pyarrow")
_SUFFIX, _UNFINISHED = ".images", ".tmp"
_DTYPES = {str(dtype): dtype for dtype in (torch.uint8, torch.uint16, torch.int64)}


def load_or_decode(path: Path, decode: Callable[[], ImageSet], *, channels: int | None, **options: Any) -> ImageSet:
    """Return the set that is kept for the folder or file `path`. If there is none, call `decode`, and keep its set.

    A set from the cache repeats the warnings of its decoding, and has "from the cache" in `ImageSet.notes`.

    Args:
        channels: channels of the set. A set that was kept for None (the channels of the data) is used too, if it has
            this number of channels.
        options: everything else that decides what `decode` returns.
    """
    home = folder()
    try:
        files = None if home is None else _files(path)
    except (OSError, zipfile.BadZipFile):  # decoding will explain the error
        files = None
    if home is None or files is None:
        return decode()
    keys = [
        json.dumps([_versions(), str(path.absolute()), sorted(options.items()), c, files]) for c in (channels, None)
    ]
    entries = [home / (hashlib.sha256(key.encode()).hexdigest() + _SUFFIX) for key in keys]
    for entry in dict.fromkeys(entries):
        data = _read(entry, path, channels)
        if data is not None:
            return dataclasses.replace(data, notes=(*data.notes, "from the cache"))
    recent = _recent(path, files)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = decode()
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    with contextlib.suppress(OSError, zipfile.BadZipFile):
        if _files(path) == files and not any(_is_temporary(reason) for _, reason in data.skipped):
            _keep(entries[0], data, {"warnings": [str(warning.message) for warning in caught], "recent": recent})
    return data


def folder() -> Path | None:
    """The folder of decoded sets, or None if none are kept."""
    asked = os.environ.get("GAN_ENGINE_CACHE")
    if asked == "0":
        return None
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        return Path(asked).expanduser() if asked else base / "gan_engine" / "decoded"
    except RuntimeError:  # the user has no home folder
        return None


@functools.cache
def _versions() -> list[str]:
    """A hash of the code in this folder, and the versions of the libraries that decode."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        code.update(file.read_bytes())
    versions = [code.hexdigest(), *(str(features.version(name)) for name in ("libjpeg_turbo", "jpg", "webp", "zlib"))]
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return versions


def _files(path: Path) -> list[list]:
    """One row for each file or archive member. The rows change whenever a file changes."""
    parts = expand(path)
    if parts != [path]:
        return [_row(_root(path), os.path.relpath(part, _root(path))) for part in parts]
    if path.is_dir():
        names, unreadable = walk(path)
        return [_row(path, name) for name in sorted(names)] + [list(skipped) for skipped in sorted(unreadable)]
    if zipfile.is_zipfile(path):
        status = path.stat()
        with zipfile.ZipFile(path) as archive:
            members = [[entry.filename, entry.CRC, entry.file_size] for entry in archive.infolist()]
        return [[status.st_size, status.st_mtime_ns], *members]
    return [_row(path.parent, path.name)]


def _root(path: Path) -> Path:
    """The folder to which the names of `_files` are relative."""
    return path if path.is_dir() else folder_of(path)


def _row(root: Path, name: str) -> list:
    try:
        status = os.stat(root / name)
    except OSError as error:
        return [name, error.errno]
    return [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _recent(path: Path, files: list[list]) -> dict[str, str]:
    """{name: checksum of the content} of files that changed less than `RECENT` seconds ago."""
    since = (time.time() - RECENT) * 1e9
    names = [row[0] for row in files if len(row) == 5 and max(row[2:4]) > since]
    return {name: _content(_root(path) / name) for name in names}


def _content(file: Path) -> str:
    with contextlib.suppress(OSError), open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
    return ""


def _is_temporary(reason: str) -> bool:
    """True if the system failed and not the picture, which may be readable the next time."""
    return "[Errno" in reason or reason.startswith("MemoryError")


def _read(entry: Path, path: Path, channels: int | None) -> ImageSet | None:
    """The set in the file `entry`. None if it is missing or damaged, has other channels, or the data have changed."""
    try:
        with open(entry, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            about = json.loads(file.read(length))
            tensors = {
                name: _tensor(file, dtype, shape, 8 + length + start)
                for name, (dtype, shape, start) in about["arrays"].items()
            }
        if any(_content(_root(path) / name) != content for name, content in about["recent"].items()):
            return None
        data = _restored(about["set"], tensors, "")
        if about["set"]["source"] is not None:
            source = _restored(about["set"]["source"], tensors, "source.")
            data = dataclasses.replace(data, source=source, paired=about["set"]["paired"])
        if channels not in (None, data.images.shape[1]):
            return None
        with contextlib.suppress(OSError):
            os.utime(entry)
    except Exception:  # the file may hold anything; the set is decoded again
        return None
    for message in about["warnings"]:
        warnings.warn(message, stacklevel=4)
    return data


def _tensor(file: BinaryIO, dtype: str, shape: list[int], start: int) -> Tensor:
    """An array of an entry: in memory if it fits, else mapped from the file."""
    empty = torch.empty(0, dtype=_DTYPES[dtype])
    size = math.prod(shape) * empty.itemsize
    if start + size > os.fstat(file.fileno()).st_size:
        raise ValueError("truncated")
    available = available_bytes()
    if available is not None and size > available:
        storage = torch.UntypedStorage.from_file(file.name, shared=True, nbytes=start + size)  # never written to
        return empty.set_(storage)[start:].view(shape)
    values = torch.empty(shape, dtype=empty.dtype)
    file.seek(start)
    file.readinto(values.numpy())
    return values


def _restored(about: dict[str, Any], tensors: dict[str, Tensor], prefix: str) -> ImageSet:
    data = ImageSet(
        about["name"],
        tensors[f"{prefix}images"],
        tensors.get(f"{prefix}labels"),
        tuple(about["class_names"]),
        [tuple(pair) for pair in about["skipped"]],
        notes=tuple(about["notes"]),
    )
    if data.sha256 != about["sha256"]:
        raise ValueError("damaged")
    return data


def _keep(entry: Path, data: ImageSet, about: dict[str, Any]) -> None:
    """Write an entry completely or not at all, and make room for it. Warn if the disk is full, not if it is read-only.

    The names of the tensors of `data.source` begin with "source.".
    """
    sets = {"": data} if data.source is None else {"": data, "source.": data.source}
    tensors = {f"{prefix}labels": part.labels for prefix, part in sets.items() if part.labels is not None}
    tensors |= {f"{prefix}images": part.images for prefix, part in sets.items()}
    size = sum(values.nbytes for values in tensors.values())
    source = None if data.source is None else _described(data.source)
    about = {**about, "set": {**_described(data), "source": source, "paired": data.paired}}
    unfinished = None
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        if size > LIMIT:
            return
        if size > shutil.disk_usage(entry.parent).free / 2:
            raise OSError(errno.ENOSPC, "full")
        with tempfile.NamedTemporaryFile(dir=entry.parent, suffix=_UNFINISHED, delete=False) as file:
            unfinished = file.name
            for part in _pieces(tensors, about):
                file.write(part)
        os.replace(unfinished, entry)
        _make_room(entry.parent)
    except OSError as error:
        if unfinished is not None:
            with contextlib.suppress(OSError):
                os.unlink(unfinished)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            warnings.warn(f"{data.name}: not kept in the cache, because {entry.parent} is full", stacklevel=4)


def _described(data: ImageSet) -> dict[str, Any]:
    return {name: getattr(data, name) for name in ("name", "class_names", "skipped", "notes", "sha256")}


def _pieces(tensors: dict[str, Tensor], about: dict[str, Any]) -> Iterator[bytes]:
    """Yield the content of an entry: the length of its head, the head (JSON), then the arrays.

    The arrays come in pieces, because they may not fit in memory. Offsets in the head count from the end of the head.
    """
    places, end = {}, 0
    for name, values in tensors.items():
        places[name] = [str(values.dtype), list(values.shape), end]
        end += values.nbytes
    head = json.dumps({**about, "arrays": places}).encode()
    yield struct.pack("<Q", len(head)) + head
    for values in tensors.values():
        for part in values.split(1024):
            yield part.contiguous().numpy().tobytes()


def _make_room(home: Path) -> None:
    """Remove the entries used longest ago until the rest is within `LIMIT`, and old files of killed processes."""
    entries = []
    for file in home.iterdir():
        with contextlib.suppress(OSError):
            status = file.stat()
            if file.suffix == _SUFFIX:
                entries.append((status.st_mtime, status.st_size, file))
            elif file.suffix == _UNFINISHED and status.st_mtime < time.time() - 86400:
                file.unlink()
    excess = sum(size for _, size, _ in entries) - LIMIT
    for _, size, file in sorted(entries):
        if excess <= 0:
            return
        with contextlib.suppress(OSError):
            file.unlink()
        excess -= size
