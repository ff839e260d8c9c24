"""Image files in a folder or a zip archive; the folder an image lies in is its class."""

import io
import itertools
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import torch

from gan_engine.data.decode import ENDINGS, decode_files
from gan_engine.data.image_set import DataError, ImageSet


def load_folder(path: Path, *, resolution: int, channels: int) -> ImageSet:
    """Every image file below a folder. Labels: see `_load_files`."""
    found, skipped, seen = [], [], set()
    walk = os.walk(path, followlinks=True, onerror=lambda error: skipped.append((str(error.filename), error.strerror)))
    for folder, subfolders, names in walk:
        real = os.path.realpath(folder)
        if real in seen:  # a link back to a folder already read would repeat its images, or never end
            subfolders.clear()
            continue
        seen.add(real)
        found += [Path(folder, name).relative_to(path).as_posix() for name in names]
    return _load_files(
        path.resolve().name,
        found,
        lambda file: open(path / file, "rb"),
        skipped,
        resolution=resolution,
        channels=channels,
    )


def load_zip(path: Path, *, resolution: int, channels: int) -> ImageSet:
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
    channels: int,
) -> ImageSet:
    """found: paths relative to the source. Hidden files and those without an image's ending are passed over.

    Labels are the names of the folders just below the deepest folder that holds all images, in sorted order. The set
    has no labels where all images lie in one folder, or where some lie outside such folders.
    """
    visible = [file for file in found if not any(part.startswith((".", "__MACOSX")) for part in file.split("/"))]
    paths = sorted(file for file in visible if file.lower().endswith(ENDINGS))
    if not paths and not skipped:
        others = sorted({PurePosixPath(file).suffix or "no ending" for file in visible})
        got = f"{len(visible):,} others ({', '.join(others[:5])})" if visible else "none"
        raise DataError(f"{name}: want image files ({' '.join(ENDINGS)}), got {got}")
    images, kept, broken = decode_files(name, paths, open_file, resolution=resolution, channels=channels)
    skipped = skipped + broken
    if not kept:
        raise DataError(f"{name}: nothing can be read, {summary(skipped)}")

    folders = [PurePosixPath(file).parent.parts for file in kept]
    same = (len(set(level)) == 1 for level in zip(*folders))
    depth = sum(itertools.takewhile(bool, same))
    outside = [file for file, folder in zip(kept, folders) if len(folder) == depth]
    if outside:
        if len(outside) < len(kept):
            warnings.warn(f"{name}: no labels, because {outside[0]} lies outside the class folders", stacklevel=2)
        return ImageSet(name, images, skipped=skipped)
    class_of = [folder[depth] for folder in folders]
    class_names = tuple(sorted(set(class_of)))
    index = {class_name: i for i, class_name in enumerate(class_names)}
    return ImageSet(name, images, torch.tensor([index[each] for each in class_of]), class_names, skipped)
