"""Read the pictures in tar archives, such as the shards of WebDataset. Nothing is unpacked to disk.

WebDataset: files whose paths agree up to the first dot of the name are one sample, and that part is its key. The class
of key.jpg is in key.cls (a number or a word), or in a column of key.json; `label_tables.COLUMNS` has its names.
"""

import io
import json
import os
import re
import tarfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from gan_engine.data import endings, label_tables, packed
from gan_engine.data.braces import expand, folder_of
from gan_engine.data.files import load_files, load_pictures, pictures
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.label_tables import plain_path
from gan_engine.data.labels import NO_LABELS, Labels, by_folder, by_value, training_part
from gan_engine.system.names import counted, legible, listed

# A number at the end of a shard's name: imagenet-train-000012.
_NUMBER = re.compile(r"(.*?)[-_.]?(\d+)")


@dataclass(frozen=True)
class Member:
    """A file in an archive: where its bytes are, and its path in that archive."""

    archive: Path
    start: int
    size: int
    path: str

    def open(self) -> BinaryIO:
        with open(self.archive, "rb") as file:
            file.seek(self.start)
            return io.BytesIO(file.read(self.size))


def load_tar(path: Path, **options: Any) -> ImageSet:
    """Read every picture in a tar archive, or in the archives that a path with braces names."""
    archives = expand(path)
    return load_tars(path.stem if len(archives) == 1 else folder_of(path).resolve().name, archives, **options)


def load_tars(name: str, archives: Sequence[Path], *, labelled: bool = True, **options: Any) -> ImageSet:
    """Read every picture in tar archives. Classes: see `_labels`. `load_pictures` has the other `options`.

    Raises DataError: an archive is damaged or truncated, or a sample has several pictures.
    """
    members = index(archives)
    files = partial(_open, members)
    sidecars, why = _sidecars(members)
    if not sidecars and len(archives) == 1:
        return load_files(name, list(members), files, [], labelled=labelled, notes=why, **options)
    paths = pictures(name, [path for path in members if not sidecars or not path.endswith(sidecars)])
    paths, left_out = training_part(_one_for_each_key(name, paths) if sidecars else paths)
    labels = partial(_labels, name, members, sidecars) if labelled else None
    shards = (f"{len(archives):,} archives",) if len(archives) > 1 else ()
    return load_pictures(name, paths, files, labels=labels, notes=(*shards, *left_out, *why), **options)


def index(archives: Sequence[Path]) -> dict[str, Member]:
    """{path: member} of the regular files in all archives. With several archives, paths begin with the archive's path.

    A number at the end of an archive's name becomes a folder of its own, so that train-000000 and train-000001 are one
    split.
    """
    members: dict[str, Member] = {}
    places: dict[str, Path] = {}
    root = os.path.commonpath([archive.parent for archive in archives])
    for archive in archives:
        number = _NUMBER.fullmatch(archive.stem)
        folders = [
            *archive.parent.relative_to(root).parts,
            *(filter(None, number.groups()) if number else [archive.stem]),
        ]
        above = "/".join((*folders, "")) if len(archives) > 1 else ""
        if other := places.get(above):
            raise DataError(
                f"{archive}: want a name that differs from {other.name} by letters or digits, got signs alone"
            )
        places[above] = archive
        try:
            members |= {above + path: member for path, member in _files(archive).items()}
        except (tarfile.TarError, OSError, ValueError) as error:
            got = packed.disguised(archive) or f"{type(error).__name__}: {error}"
            raise DataError(f"{archive}: want a readable tar archive, not compressed, got {got}") from error
    return members


def _files(archive: Path) -> dict[str, Member]:
    """{path: member} of the files in an archive. A hard link is the file that it names."""
    found: dict[str, Member] = {}
    others = []
    with tarfile.open(archive, "r:") as opened:
        for entry in opened:
            path = plain_path(entry.name)
            if entry.isreg() and not entry.issparse():
                found[path] = Member(archive, entry.offset_data, entry.size, path)
            elif entry.islnk() and (same := found.get(plain_path(entry.linkname))):
                found[path] = replace(same, path=path)
            elif not entry.isdir():
                others.append(path)
        end = opened.offset
    _require_an_end(archive, end)
    if others:
        what = f"{counted(len(others), 'special file')} (links, devices)"
        warnings.warn(f"{archive}: not read: {what}, such as {legible(others[0])}", stacklevel=2)
    return found


def _require_an_end(archive: Path, end: int) -> None:
    """Raises ValueError unless zeros follow the last file, and nothing else.

    tarfile takes a damaged header, or the end of a truncated file, for the end of the archive.
    """
    with open(archive, "rb") as file:
        file.seek(end)
        if not file.read(512):
            raise ValueError(f"truncated: want a block of zeros behind byte {end:,}, got the end of the file")
        file.seek(end)
        while block := file.read(1 << 20):
            if block.strip(b"\0"):
                raise ValueError(f"a damaged header, or a second archive, behind byte {end:,}")


def key_of(path: str) -> str:
    """The key of a file in WebDataset: a/b.seg.png -> a/b."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _open(members: dict[str, Member], path: str) -> BinaryIO:
    return members[path].open()


def _sidecars(members: dict[str, Member]) -> tuple[str, tuple[str, ...]]:
    """-> the ending of the files beside pictures that hold classes, .cls or .json, or '' if there are none.

    A note says why .json files beside pictures are of no use.
    """
    keys = {key_of(path) for path in members if path.lower().endswith(endings.endings())}
    for ending in (".cls", ".json"):
        beside = [path for path in members if path.endswith(ending) and key_of(path) in keys]
        if any(_value(members[path], ending) is not None for path in beside):
            return ending, ()
        if ending == ".json" and beside:
            got = listed([*_row(members[beside[0]])], most=8) or f"no such word in {beside[0]}"
            return "", (f"{NO_LABELS} from .json files: want {label_tables.WANTED}, got {got}",)
    return "", ()


def _value(member: Member, ending: str) -> Any:
    """The class in a .cls or .json file. None if there is none."""
    if ending == ".cls":
        return _text(member)
    row = _row(member)
    column = label_tables.label_column(row)
    return None if column is None else row[column]


def _row(member: Member) -> dict[str, Any]:
    """The object in a .json file. Empty if there is none."""
    try:
        row = json.loads(_text(member))
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _text(member: Member) -> str:
    return member.open().read().decode(errors="backslashreplace").strip()


def _one_for_each_key(name: str, paths: Sequence[str]) -> list[str]:
    """The picture of each sample. Of several pictures, it is the one without another dot in its ending: key.jpg.

    Raises DataError if a sample has several such pictures, or none.
    """
    samples: dict[str, list[str]] = {}
    for path in paths:
        samples.setdefault(key_of(path), []).append(path)
    chosen = []
    for key, sample in samples.items():
        plain = [path for path in sample if path.count(".") == key.count(".") + 1] if len(sample) > 1 else sample
        if len(plain) != 1:
            raise DataError(f"{name}: want one picture for each key, got {listed(sample)}")
        chosen += plain
    return chosen


def _labels(name: str, members: dict[str, Member], sidecars: str, kept: list[str]) -> Labels:
    """Classes of `kept` by their .cls or .json files. Without these, folders inside the archives are classes."""
    if not sidecars:
        return by_folder(name, [members[path].path for path in kept])
    beside = [members.get(key_of(path) + sidecars) for path in kept]
    values = [None if member is None else _value(member, sidecars) for member in beside]
    return by_value(name, kept, label_tables.as_numbers(values), f"{sidecars} files")
