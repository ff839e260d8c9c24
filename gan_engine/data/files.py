"""Image files in a folder or a zip archive; the folder an image lies in is its class."""

import io
import itertools
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import torch

from gan_engine.data.decode import (
    CHUNK,
    ENDINGS,
    channels_of,
    decode_files,
    grey_by_mode,
    num_patches,
    patches,
    read_picture,
    square,
)
from gan_engine.data.image_set import DataError, ImageSet


def load_folder(path: Path, *, resolution: int, channels: int | None, cut: bool = False) -> ImageSet:
    """Every image file below a folder. Labels, and `cut`: see `_load_files`."""
    found, skipped = walk(path)
    return _load_files(
        path.resolve().name,
        found,
        lambda file: open(path / file, "rb"),
        skipped,
        resolution=resolution,
        channels=channels,
        cut=cut,
    )


def walk(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Every file below a folder, relative to it, and (path, reason) of the folders that cannot be read."""
    found, skipped, seen = [], [], set()
    steps = os.walk(path, followlinks=True, onerror=lambda error: skipped.append((str(error.filename), error.strerror)))
    for folder, subfolders, names in steps:
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder already read would repeat its images, or never end
            subfolders.clear()
            continue
        seen.add(real)
        found += [Path(folder, name).relative_to(path).as_posix() for name in names]
    return found, skipped


def pictures(name: str, found: Sequence[str]) -> list[str]:
    """Those of `found` that have an image's ending and are not hidden, sorted. Raises DataError if there are none."""
    return chosen(name, found, ENDINGS, what="image files")


def chosen(name: str, found: Sequence[str], endings: tuple[str, ...], *, what: str) -> list[str]:
    """Those of `found` that have one of the endings and are not hidden, sorted. Raises DataError if there are none."""
    visible = [file for file in found if not any(part.startswith((".", "__MACOSX")) for part in file.split("/"))]
    paths = sorted(file for file in visible if file.lower().endswith(endings))
    if not paths:
        others = sorted({PurePosixPath(file).suffix or "no ending" for file in visible})
        got = f"{len(visible):,} others ({', '.join(others[:5])})" if visible else "none"
        raise DataError(f"{name}: want {what} ({' '.join(endings)}), got {got}")
    return paths


def load_zip(path: Path, *, resolution: int, channels: int | None, cut: bool = False) -> ImageSet:
    """Every image file inside a zip archive, as if it were the folder. Nothing is unpacked to disk."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path}: not a zip archive that can be read ({error})") from error
    with archive:
        found = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        return _load_files(
            path.stem,
            found,
            lambda file: io.BytesIO(archive.read(file)),
            [],
            resolution=resolution,
            channels=channels,
            cut=cut,
        )


def summary(skipped: Sequence[tuple[str, str]]) -> str:
    """How many were skipped, and the first three by name."""
    first = ", ".join(f"{path} ({reason})" for path, reason in skipped[:3])
    return f"{len(skipped):,} image{'s' * (len(skipped) > 1)}: {first}{', ...' * (len(skipped) > 3)}"


def _load_files(
    name: str,
    found: Sequence[str],
    open_file: Callable[[str], BinaryIO],
    skipped: list[tuple[str, str]],
    *,
    resolution: int,
    channels: int | None,
    cut: bool,
) -> ImageSet:
    """found: paths relative to the source. Hidden files and those without an image's ending are passed over.

    Labels: see `classes`. The set has none where images are `cut` into patches of the resolution instead of being
    resized. Channels None are those of the pictures: see `channels_of`.
    """
    paths = [] if skipped and not found else pictures(name, found)

    def decode(path: str, channels: int) -> np.ndarray:
        with open_file(path) as file:
            picture = read_picture(file, channels=channels, side=None if cut else resolution)
        return patches(picture, resolution) if cut else square(picture, resolution)[None]

    def in_colour(path: str) -> np.ndarray | None:
        with open_file(path) as file:
            grey = grey_by_mode(file)
        return None if grey else decode(path, 3)

    channels = channels or channels_of(name, paths, in_colour)

    total = sum(num_patches(partial(open_file, path), resolution) for path in paths) if cut else len(paths)
    images, kept, broken = decode_files(
        name,
        paths,
        partial(decode, channels=channels),
        total=total,
        resolution=resolution,
        channels=channels,
        chunk=8 if cut else CHUNK,
    )
    skipped = skipped + broken
    if not kept:
        raise DataError(f"{name}: nothing can be read, {summary(skipped)}")
    if cut:
        return ImageSet(name, images, skipped=skipped)
    return ImageSet(name, images, *classes(name, kept), skipped)


def classes(name: str, kept: Sequence[str]) -> tuple[torch.Tensor | None, tuple[str, ...]]:
    """labels int64 [N] of the files and the names of the classes, or None and no names.

    Classes are the folders just below the deepest folder that holds all files, in sorted order. There are none where
    all files lie in one folder, or some outside such folders.
    """
    folders = [PurePosixPath(file).parent.parts for file in kept]
    same = (len(set(level)) == 1 for level in zip(*folders))
    depth = sum(itertools.takewhile(bool, same))
    outside = [file for file, folder in zip(kept, folders) if len(folder) == depth]
    if outside:
        if len(outside) < len(kept):
            warnings.warn(f"{name}: no labels, because {outside[0]} lies outside the class folders", stacklevel=3)
        return None, ()
    class_of = [folder[depth] for folder in folders]
    class_names = tuple(sorted(set(class_of)))
    index = {class_name: i for i, class_name in enumerate(class_names)}
    return torch.tensor([index[each] for each in class_of]), class_names
