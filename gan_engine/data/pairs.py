"""Read two sets of images for translation: pairs, or two kinds of images without pairs.

A/cat.jpg     B/cat.jpg         pairs by file name without its ending
cat.jpg                         pairs side by side in one picture, A on the left, B on the right
A.lmdb        B.lmdb            pairs by key
cat.a.jpg, cat.b.jpg            pairs by key in .tar archives; `sides.SIDES` has the words that may stand for a and b
columns a, b                    pairs by row in .parquet and .arrow files
A/..          B/..              two kinds of images, any names and numbers

The folders may also be called trainA and trainB, train/A and train/B, or A/train and B/train, in capital or small
letters. If there is a training part, only this part is read. `ImageSet.notes` lists the folders that are left out
(test, val, testA, ...).
"""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from gan_engine.data.decode import channels_of, decode_files, fit, read_picture
from gan_engine.data.files import counted_remarks, summary
from gan_engine.data.folders import load_folder
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.planes import Planes
from gan_engine.data.sides import sides_of_archives, sides_of_folders
from gan_engine.system.names import listed
from gan_engine.system.resolution import Resolution

FOLDERS = (("a", "b"), ("traina", "trainb"), ("a.lmdb", "b.lmdb"))

# A picture less than twice as wide as high may be one photograph. It counts as a pair only if it has a seam: its two
# middle columns differ SEAM times as much as neighbouring columns on average, and by SEAM_LEVELS or more. Neighbouring
# columns inside photographs differ by 2 to 8 levels.
SEAM, SEAM_LEVELS = 3, 8


def load_pairs(path: Path, *, resolution: Resolution, channels: int | None, bits: int = 8) -> ImageSet:
    """Read pairs: the images of B, with the images of A as their `source`, both cut and resized to the same sides.

    bits: see `files.load_pictures`.
    """
    folders, left_out = _layout(path) if path.is_dir() else ((path,), ())
    remarks: list[str] = []
    with ExitStack() as stack:
        found = sides_of_archives(folders[0]) if len(folders) == 1 else None
        sides, notes = found or sides_of_folders(path, folders, stack)

        def decode(name: str, channels: int = 3, remarks: list[str] | None = None) -> np.ndarray:
            halves = [_read(side[name], channels, remarks, bits) for side in sides]
            if len(halves) == 1:
                halves = _halves(halves[0])
            a, b = halves
            if a.width * b.height != a.height * b.width:
                raise ValueError(f"want pairs of one shape, got {a.width}x{a.height} and {b.width}x{b.height} pixels")
            return np.stack([fit(half, resolution) for half in halves])

        names = sorted(sides[0])
        channels = channels or channels_of(path.name, names, decode)
        both, kept, skipped = decode_files(
            path.name,
            names,
            lambda name: decode(name, channels, remarks),
            total=2 * len(names),
            resolution=resolution,
            channels=channels,
            bits=bits,
        )
    if not kept:
        raise DataError(
            f"{path}: want pairs, in folders A and B or side by side, got none that can be used, {summary(skipped)}; "
            "pix2pix --source grey or edges makes pairs from single pictures"
        )
    source = ImageSet(path.name, both[0::2])
    notes = (*left_out, *notes, *counted_remarks(remarks))
    return ImageSet(path.name, both[1::2], skipped=skipped, source=source, paired=True, notes=notes)


def load_unpaired(path: Path, *, channels: int | None, **options: Any) -> ImageSet:
    """Read two kinds of images: the images of trainB, with the images of trainA as their `source`."""
    folders, left_out = _layout(path)
    if len(folders) == 1:
        raise DataError(f"{path}: want folders trainA and trainB (or A and B) in it, got {_content(folders[0])}")

    def load(channels: int | None) -> list[ImageSet]:
        return [load_folder(folder, channels=channels, labelled=False, **options) for folder in folders]

    a, b = load(channels)
    if a.images.shape[1] != b.images.shape[1]:
        a, b = load(3)
    source = ImageSet(a.name, a.images, skipped=a.skipped)
    skipped = [(f"{b.name}/{file}", reason) for file, reason in b.skipped]
    notes = (f"{side.name}: {note}" for side in (a, b) for note in side.notes)
    return ImageSet(path.name, b.images, skipped=skipped, source=source, notes=(*left_out, *notes))


def _layout(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """-> the two folders A and B, or one folder of pictures side by side; and a note on folders that are left out."""
    inside = _folders(path)
    for names in FOLDERS:
        if all(name in inside for name in names):
            sides = tuple(inside.pop(name) for name in names)
            parts = [_folders(side) for side in sides]
            if all("train" in part for part in parts):
                sides = tuple(part.pop("train") for part in parts)
                inside |= parts[0] | parts[1]
            return sides, _left_out(inside)
    if "train" in inside:
        return _layout(inside.pop("train"))[0], _left_out(inside)
    return (path,), ()


def _folders(path: Path) -> dict[str, Path]:
    """{name in small letters: path} of the visible folders in a folder."""
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
    return {folder.name.lower(): folder for folder in reversed(folders)}


def _left_out(unused: dict[str, Path]) -> tuple[str, ...]:
    return (f"{listed(sorted(folder.name for folder in unused.values()), most=3)} left out",) if unused else ()


def _read(
    open_file: Callable[[], BinaryIO], channels: int, remarks: list[str] | None, bits: int
) -> Image.Image | Planes:
    with open_file() as file:
        return read_picture(file, channels=channels, remarks=remarks, bits=bits)


def _halves(both: Image.Image | Planes) -> list[Image.Image | Planes]:
    """Cut a picture of a pair side by side into A, its left half, and B. Raises ValueError if it is not a pair."""
    width, height = both.size
    got = f"got {width}x{height} pixels"
    if width % 2:
        raise ValueError(f"want A and B side by side, of equal width, {got}")
    if width < 2 * height:
        grey = np.rint(both.luma() / 257) if isinstance(both, Planes) else np.asarray(both.convert("L"))
        steps = np.abs(np.diff(grey.astype(np.int16), axis=1)).mean(0)
        if steps[width // 2 - 1] < max(SEAM_LEVELS, SEAM * steps.mean()):
            raise ValueError(
                "want A and B side by side, in a picture twice as wide as high or with an edge in the middle, "
                f"{got} of one picture"
            )
    return [both.crop((left, 0, left + width // 2, height)) for left in (0, width // 2)]


def _content(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    return listed(names, most=3) if names else "nothing"
