"""Read two sets of images for translation: pairs, or two kinds of images without pairs.

A/cat.jpg     B/cat.jpg         pairs by file name without its ending
cat.jpg                         pairs side by side in one picture, A on the left, B on the right
A/..          B/..              two kinds of images, any names and numbers

The folders may also be called trainA and trainB, train/A and train/B, or A/train and B/train, in capital or small
letters. If there is a training part, only this part is read. `ImageSet.notes` lists the folders that are left out
(test, val, testA, ...).
"""

from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from gan_engine.data.decode import channels_of, decode_files, read_picture, square
from gan_engine.data.files import counted_remarks, load_folder, pictures, summary, walk
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.labels import normal_form
from gan_engine.system.names import listed

FOLDERS = (("a", "b"), ("traina", "trainb"))

# A picture less than twice as wide as high may be one photograph. It counts as a pair only if it has a seam: its two
# middle columns differ SEAM times as much as neighbouring columns on average, and by SEAM_LEVELS or more. Neighbouring
# columns inside photographs differ by 2 to 8 levels.
SEAM, SEAM_LEVELS = 3, 8


def load_pairs(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """Read pairs: the images of B, with the images of A as their `source`, both cut and resized to the same square."""
    folders, left_out = _layout(path)
    if len(folders) == 1:
        (folder,) = folders
        names = pictures(path.name, walk(folder)[0])
    else:
        sides = [_by_stem(folder) for folder in folders]
        alone = sorted(sides[0].keys() ^ sides[1].keys())
        if alone:
            where = " and ".join(folder.relative_to(path).as_posix() for folder in folders)
            got = listed(alone, most=3)
            raise DataError(f"{path}: want the same file names in {where}, got {got} in only one of them")
        names = sorted(sides[0])

    remarks: list[str] = []

    def decode(name: str, channels: int = 3, remarks: list[str] | None = None) -> np.ndarray:
        if len(folders) == 1:
            halves = _halves(_read(folder / name, channels, remarks))
        else:
            halves = [_read(files[name], channels, remarks) for files in sides]
            a, b = halves
            if a.width * b.height != a.height * b.width:
                raise ValueError(f"want pairs of one shape, got {a.width}x{a.height} and {b.width}x{b.height} pixels")
        return np.stack([square(half, resolution) for half in halves])

    channels = channels or channels_of(path.name, names, decode)
    both, kept, skipped = decode_files(
        path.name,
        names,
        lambda name: decode(name, channels, remarks),
        total=2 * len(names),
        resolution=resolution,
        channels=channels,
    )
    if not kept:
        raise DataError(
            f"{path}: want pairs, in folders A and B or side by side, got none that can be used, {summary(skipped)}; "
            "pix2pix --source grey or edges makes pairs from single pictures"
        )
    source = ImageSet(path.name, both[0::2])
    return ImageSet(
        path.name, both[1::2], skipped=skipped, source=source, paired=True, notes=(*left_out, *counted_remarks(remarks))
    )


def load_unpaired(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """Read two kinds of images: the images of trainB, with the images of trainA as their `source`."""
    folders, left_out = _layout(path)
    if len(folders) == 1:
        raise DataError(f"{path}: want folders trainA and trainB (or A and B) in it, got {_content(folders[0])}")

    def load(channels: int | None) -> list[ImageSet]:
        return [load_folder(folder, resolution=resolution, channels=channels, labelled=False) for folder in folders]

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


def _read(path: Path, channels: int, remarks: list[str] | None) -> Image.Image:
    with open(path, "rb") as file:
        return read_picture(file, channels=channels, remarks=remarks)


def _halves(both: Image.Image) -> list[Image.Image]:
    """Cut a picture of a pair side by side into A, its left half, and B. Raises ValueError if it is not a pair."""
    width, height = both.size
    got = f"got {width}x{height} pixels"
    if width % 2:
        raise ValueError(f"want A and B side by side, of equal width, {got}")
    if width < 2 * height:
        steps = np.abs(np.diff(np.asarray(both.convert("L")).astype(np.int16), axis=1)).mean(0)
        if steps[width // 2 - 1] < max(SEAM_LEVELS, SEAM * steps.mean()):
            raise ValueError(
                "want A and B side by side, in a picture twice as wide as high or with an edge in the middle, "
                f"{got} of one picture"
            )
    return [both.crop((left, 0, left + width // 2, height)) for left in (0, width // 2)]


def _by_stem(folder: Path) -> dict[str, Path]:
    """{path without its ending: path} of the pictures below `folder`. Raises DataError if two share a key."""
    by_stem: dict[str, Path] = {}
    for file in pictures(f"{folder.parent.name}/{folder.name}", walk(folder)[0]):
        stem = normal_form(PurePosixPath(file).with_suffix("").as_posix())
        if stem in by_stem:
            raise DataError(f"{folder}: want one picture of each name, got {by_stem[stem].name} and {Path(file).name}")
        by_stem[stem] = folder / file
    return by_stem


def _content(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    return listed(names, most=3) if names else "nothing"
