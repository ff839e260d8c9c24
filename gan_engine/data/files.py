"""Find the pictures among the files of a folder or an archive, and decode them into a set."""

import functools
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from gan_engine.data import endings
from gan_engine.data.decode import (
    CHUNK,
    channels_of,
    decode_files,
    fit,
    grey_by_mode,
    num_patches,
    patches,
    pixels,
    read_picture,
)
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.labels import Labels, labels_of, training_part
from gan_engine.system.names import counted, legible, listed
from gan_engine.system.resolution import Resolution


def walk(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """-> the paths of all regular files below a folder, relative to it, and (path, reason) of other entries.

    Links are followed, but every folder is read only once, and folders `is_system_folder` are skipped.
    """
    found, skipped, seen = [], [], set()
    folders, links = [("", str(path))], []
    while folders or links:  # real folders come first, so a folder is listed by its own name and not by that of a link
        prefix, folder = (folders or links).pop()
        try:
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:  # otherwise images count twice, or a loop never ends
                continue
            if is_system_folder(state):
                skipped.append((prefix or folder, "a folder of the system"))
                continue
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append((prefix or folder, str(error.strerror)))
            continue
        seen.add((state.st_dev, state.st_ino))
        for entry in inside:
            kind = _kind(entry)
            if kind == "file":
                found.append(prefix + entry.name)
            elif kind == "folder":
                (links if entry.is_symlink() else folders).append((f"{prefix}{entry.name}/", entry.path))
            elif not endings.hidden(entry.name):
                skipped.append((prefix + entry.name, kind))
    return found, skipped


def is_system_folder(state: os.stat_result) -> bool:
    """True for the root folder, and for folders such as /proc whose files the operating system invents.

    Some of these files never end, and reading others waits forever.
    """
    root = os.stat("/")
    return state.st_dev in _system_devices() or (state.st_dev, state.st_ino) == (root.st_dev, root.st_ino)


@functools.cache
def _system_devices() -> set[int]:
    """The device numbers of /proc, /sys and /dev. Not included: / and /dev/shm, where people keep images."""
    system, others = ([*filter(os.path.isdir, folders)] for folders in (("/proc", "/sys", "/dev"), ("/", "/dev/shm")))
    return {os.stat(folder).st_dev for folder in system} - {os.stat(folder).st_dev for folder in others}


def name_of_special(mode: int) -> str:
    """The name of a kind of file that is neither regular nor a folder: 'a pipe'."""
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def _kind(entry: os.DirEntry) -> str:
    """'file', 'folder', or the reason why the entry is neither. Only links need to be looked up on the disk."""
    try:
        if entry.is_file():
            return "file"
        return "folder" if entry.is_dir() else name_of_special(entry.stat().st_mode)
    except FileNotFoundError:
        return "a link to nothing"
    except OSError as error:
        return str(error.strerror)


def pictures(name: str, found: Sequence[str], open_file: Callable[[str], BinaryIO] | None = None) -> list[str]:
    """The paths in `found` that are pictures by their ending and are not hidden, sorted.

    A warning counts the other files that may be pictures. Raises DataError if there are no pictures.

    Args:
        open_file: opens a path in `found`. If given, files without an ending are pictures if their first bytes say so.
    """

    def nameless(file: str) -> bool:
        if open_file is None or endings.ending(file) or endings.hidden(file):
            return False
        try:
            with open_file(file) as opened:
                return endings.begins_like_picture(opened)
        except Exception:  # a file that cannot be read is not counted_remarks as a picture
            return False

    wanted = endings.endings()
    also = {file for file in found if not file.lower().endswith(wanted) and nameless(file)}
    paths = with_endings(name, found, wanted, what="image files", also=also)
    if others := endings.unread(set(found).difference(paths)):
        warnings.warn(legible(f"{name}: not read: {others}"), stacklevel=3)
    return paths


def with_endings(
    name: str, found: Sequence[str], wanted: tuple[str, ...], *, what: str, also: Collection[str] = ()
) -> list[str]:
    """The paths in `found` with one of the endings `wanted` that are not hidden, and the paths `also`, sorted.

    Raises DataError if there are none; its message says that `what` was wanted.
    """
    paths = sorted(file for file in found if file.lower().endswith(wanted) and not endings.hidden(file))
    if not paths and not also:
        visible = [file for file in found if not endings.hidden(file)]
        kinds = sorted({endings.hinted(endings.ending(file)) or "no ending" for file in visible})
        got = f"{counted(len(visible), 'other file')} ({', '.join(kinds[:5])})" if visible else "none"
        got += f", {len(found) - len(visible):,} hidden" if len(found) > len(visible) else ""
        raise DataError(f"{name}: want {what} ({' '.join(wanted)}), got {got}")
    return sorted([*paths, *also]) if also else paths


def summary(skipped: Sequence[tuple[str, str]]) -> str:
    """'5 images: a.png, b.png, c.png and 1 more (want A, got 64x64 pixels for a.png); e.png (reason)'

    The number of skipped images, and the first three reasons with the first three names of each. Reasons that want the
    same are one, and the first image stands for what came.
    """
    alike: dict[str, list[tuple[str, str]]] = {}
    for path, reason in skipped:
        alike.setdefault(reason.partition(", got ")[0], []).append((path, reason))
    told = []
    for files in list(alike.values())[:3]:
        first, reason = files[0]
        of_first = f" for {first}" if any(other != reason for _, other in files) else ""
        told.append(f"{listed([path for path, _ in files], most=3)} ({legible(reason + of_first)})")
    return f"{counted(len(skipped), 'image')}: {'; '.join(told)}{'; ...' * (len(alike) > 3)}"


def load_files(
    name: str,
    found: Sequence[str],
    open_file: Callable[[str], BinaryIO],
    skipped: list[tuple[str, str]],
    *,
    labelled: bool = True,
    notes: tuple[str, ...] = (),
    **options: Any,
) -> ImageSet:
    """Decode the files of a folder or an archive that are pictures. Raises DataError if none can be read.

    Args:
        found: paths of all files, relative to the source. `pictures` and then `training_part` choose from them.
        open_file: opens a path in `found`.
        skipped: (path, reason) of entries that could not be read before.
        labelled: whether the set has labels; see `labels_of`.
        notes: the first notes of the set.
        options: see `load_pictures`.
    """
    name = legible(name)
    paths, left_out = training_part([] if skipped and not found else pictures(name, found, open_file))
    labels = partial(labels_of, name, found=found, open_file=open_file) if labelled else None
    return load_pictures(name, paths, open_file, skipped, labels=labels, notes=(*notes, *left_out), **options)


def load_pictures(
    name: str,
    paths: Sequence[str],
    open_file: Callable[[str], BinaryIO],
    skipped: Sequence[tuple[str, str]] = (),
    *,
    labels: Callable[[list[str]], Labels] | None = None,
    notes: tuple[str, ...] = (),
    resolution: Resolution,
    channels: int | None,
    cut: bool = False,
    bits: int = 8,
) -> ImageSet:
    """Decode the pictures `paths`. Raises DataError if none can be read.

    Args:
        open_file: opens a path in `paths`. It is called in threads, and mostly in the order of `paths`.
        skipped: (path, reason) of entries that could not be read before.
        labels: the classes of the paths that could be read.
        notes: the first notes of the set.
        channels: 1, 3 or 4. None: see `channels_of`.
        cut: cut pictures into patches of the resolution instead of resizing them. Such a set has no labels.
        bits: 16 keeps all bits; see `planes.sixteen_bits`.
    """
    remarks: list[str] = []

    def decode(path: str, channels: int, remarks: list[str]) -> np.ndarray:
        with open_file(path) as file:
            sizes = {"channels": channels, "resolution": None if cut else resolution, "bits": bits}
            picture = read_picture(file, remarks=remarks, **sizes)
        return patches(pixels(picture), resolution) if cut else fit(picture, resolution)[None]

    def in_colour(path: str) -> np.ndarray | None:
        with open_file(path) as file:
            grey = grey_by_mode(file)
        return None if grey else decode(path, 3, [])

    channels = channels or channels_of(name, paths, in_colour)
    total = sum(num_patches(partial(open_file, path), resolution) for path in paths) if cut else len(paths)
    images, kept, broken = decode_files(
        name,
        paths,
        partial(decode, channels=channels, remarks=remarks),
        total=total,
        resolution=resolution,
        channels=channels,
        chunk=8 if cut else CHUNK,
        bits=bits,
    )
    skipped = sorted([*skipped, *broken])
    if not kept:
        raise DataError(f"{name}: nothing can be read, {summary(skipped)}")
    values, class_names, label_notes = labels(kept) if labels is not None and not cut else (None, (), ())
    notes = (*notes, *label_notes, *counted_remarks(remarks))
    return ImageSet(name, images, values, class_names, skipped, notes=notes)


def counted_remarks(remarks: Sequence[str]) -> list[str]:
    """Turn remarks on single pictures into notes on the set: '4 with several frames'."""
    return [f"{count:,} {remark}" for remark, count in Counter(remarks).most_common()]
