"""Read the pictures in an LMDB database: a folder with data.mdb, or a file. Needs the package lmdb.

meta_info.txt beside data.mdb (BasicSR) lists the pictures, one `name.png (height,width,channels) level` in a line. The
key of such a picture is its name without the ending. Without meta_info.txt (LSUN), every value that begins like a
picture is one.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from gan_engine.data import endings
from gan_engine.data.files import load_pictures
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.labels import by_folder, training_part
from gan_engine.data.packages import require_package
from gan_engine.system.names import counted, listed
from gan_engine.system.resolution import Resolution, height_width

DATA, META = "data.mdb", "meta_info.txt"
_META_LINE = re.compile(r"(.+?)(\.\w+)? \(\d+, *\d+(, *\d+)?\)( -?\d+)?")
_SIZED = re.compile(r"([1-9]\d*)-(\d{5,})")


def load_lmdb(path: Path, *, labelled: bool = True, **options: Any) -> ImageSet:
    """Read every picture in a database. Folders in the keys are classes. `load_pictures` has the `options`.

    Raises DataError: the file is damaged or shorter than its index says, or a key of meta_info.txt is missing.
    """
    name = path.stem
    with opened(path) as database:
        keys, notes = _of_one_size(sorted(database.keys), options["resolution"])
        paths, left_out = training_part(keys)
        labels = partial(by_folder, name) if labelled else None
        return load_pictures(name, paths, database.open_file, labels=labels, notes=(*notes, *left_out), **options)


def _of_one_size(keys: list[str], resolution: Resolution) -> tuple[list[str], tuple[str, ...]]:
    """-> the keys of one size, and a note. Keys SIZE-NUMBER (rosinality) hold every picture in each of several sizes.

    The size is the least that is not below the resolution, its longer side in rectangles, else the largest.
    """
    sizes: dict[int, set[str]] = {}
    for key in keys:
        if (match := _SIZED.fullmatch(key)) is None:
            return keys, ()
        sizes.setdefault(int(match[1]), set()).add(match[2])
    if len(sizes) < 2 or any(numbers != sizes[min(sizes)] for numbers in sizes.values()):
        return keys, ()
    size = min((size for size in sizes if size >= max(height_width(resolution))), default=max(sizes))
    return [key for key in keys if key.startswith(f"{size}-")], (f"of {len(sizes)} sizes only {size} read",)


class Database:
    """An open database: `keys` are the keys of its pictures, {key as text: key}."""

    def __init__(self, path: Path, environment: Any):
        self.environment = environment
        meta = path / META
        self.keys = _listed(meta, environment) if meta.is_file() else _pictures(path, environment)

    def open_file(self, key: str) -> BinaryIO:
        with self.environment.begin(buffers=False) as transaction:  # one for each call: threads do not share it
            return io.BytesIO(transaction.get(self.keys[key]))


@contextmanager
def opened(path: Path) -> Iterator[Database]:
    """Open a database to read it. Raises DataError."""
    lmdb = require_package("lmdb", path, extra="lmdb")
    file = path / DATA if path.is_dir() else path
    try:
        with lmdb.open(
            str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False, create=False
        ) as environment:
            # A read beyond the end of the file would kill the process.
            want = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
            got = file.stat().st_size
            if got < want:
                raise DataError(f"{file}: want {want:,} bytes as its index says, got {got:,}; it is truncated")
            yield Database(path, environment)
    except lmdb.Error as error:
        raise DataError(f"{file}: want a readable LMDB database, got {type(error).__name__}: {error}") from error


def _listed(meta: Path, environment: Any) -> dict[str, bytes]:
    """The keys that meta_info.txt lists. Raises DataError if one is missing."""
    try:
        lines = [line for line in meta.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise DataError(f"{meta}: want a readable text, got {error}") from error
    matches = [_META_LINE.fullmatch(line.strip()) for line in lines]
    if None in matches or not matches:
        got = repr(lines[matches.index(None)]) if lines else "nothing"
        raise DataError(f"{meta}: want lines 'name.png (height,width,channels) level', got {got}")
    keys = {match[1]: match[1].encode() for match in matches if match}
    with environment.begin(buffers=True) as transaction:
        missing = [name for name, key in keys.items() if transaction.get(key) is None]
    if missing:
        raise DataError(f"{meta}: want its {len(keys):,} keys in {DATA}, which lacks {listed(missing, most=3)}")
    return keys


def _pictures(path: Path, environment: Any) -> dict[str, bytes]:
    keys, others = {}, []
    with environment.begin(buffers=True) as transaction, transaction.cursor() as cursor:
        for key, value in cursor:
            text = bytes(key).decode(errors="backslashreplace")
            if endings.begins_like_picture(io.BytesIO(bytes(value[:16]))):
                keys[text] = bytes(key)
            else:
                others.append(text)
    if not keys:
        got = f"{counted(len(others), 'other value')}, of the keys {listed(others, most=3)}" if others else "none"
        raise DataError(f"{path}: want encoded pictures as its values, got {got}")
    return keys
