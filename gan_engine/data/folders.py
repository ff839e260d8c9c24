"""Read a folder: its pictures, or its files in another format that holds pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_engine.data import databases, endings, tables, tars
from gan_engine.data.files import load_files, walk
from gan_engine.data.image_set import ImageSet


def load_folder(path: Path, **options: Any) -> ImageSet:
    """Read every picture below a folder. The `options` are those of `files.load_files`.

    A folder with data.mdb is an LMDB database. If there are no pictures, tar archives are read, and else tables.
    """
    found, skipped = walk(path)
    if databases.DATA in found:
        return databases.load_lmdb(path, **options)
    name = path.resolve().name
    kind, files = archives_in(path, found)
    if kind:
        return (tars.load_tars if kind == ".tar" else tables.load_tables)(name, files, **options)
    return load_files(name, found, lambda file: open(path / file, "rb"), skipped, **options)


def archives_in(path: Path, found: Sequence[str]) -> tuple[str, list[Path]]:
    """-> the ending of the archives or tables that hold the pictures of a folder, and these files. ("", []) if none do.

    Args:
        found: all files below `path`. Pictures among them win over archives, and archives over tables.
    """
    visible = [file for file in found if not endings.hidden(file)]
    if not any(file.lower().endswith(endings.endings()) for file in visible):
        for ending in (".tar", *tables.ENDINGS):
            if files := sorted(path / file for file in visible if file.lower().endswith(ending)):
                return ending, files
    return "", []
