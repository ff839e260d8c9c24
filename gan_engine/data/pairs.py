"""Two sets of images for translation: in pairs, or of two kinds that nobody has paired.

A/cat.jpg     B/cat.jpg         pairs by file name, up to the ending
cat.jpg                         pairs side by side in one picture, A to the left of B
A/..          B/..              two kinds of images, of any names and numbers

The folders may also be called trainA and trainB, train/A and train/B, or A/train and B/train, in capitals or not. Of a
folder with train in it, only that is read. What else is there (test, val, testA, ...) is left out, which
`ImageSet.notes` says.
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from gan_engine.data.decode import channels_of, decode_files, read_picture, square
from gan_engine.data.files import counted, load_folder, pictures, summary, walk
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.labels import as_it_looks

FOLDERS = (("a", "b"), ("traina", "trainb"))

# Narrow pictures may be single photographs. Where two were put together, the columns in the middle differ by so many
# times as much as neighbours do elsewhere, and by so many levels (within photographs neighbours differ by 2 to 8).
SEAM, SEAM_LEVELS = 3, 8


def load_pairs(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """The images of B, and those of A as their source, cut to the centre square and resized alike."""
    folders, left_out = _layout(path)
    if len(folders) == 1:
        (folder,) = folders
        names = pictures(path.name, walk(folder)[0])
    else:
        of_stem = [_by_stem(folder) for folder in folders]
        alone = sorted(of_stem[0].keys() ^ of_stem[1].keys())
        if alone:
            where = " and ".join(folder.relative_to(path).as_posix() for folder in folders)
            raise DataError(f"{path}: want equal file names in {where}, got {_some(alone)} in one of them only")
        names = sorted(of_stem[0])

    remarks: list[str] = []

    def decode(name: str, channels: int = 3, remarks: list[str] | None = None) -> np.ndarray:
        if len(folders) == 1:
            halves = _halves(_read(folder / name, channels, remarks))
        else:
            halves = [_read(files[name], channels, remarks) for files in of_stem]
            a, b = halves
            if a.width * b.height != a.height * b.width:
                raise ValueError(f"want pairs of one shape, got {a.width}x{a.height} and {b.width}x{b.height} pixels")
        return np.stack([square(each, resolution) for each in halves])

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
            f"{path}: want pairs, in folders A and B or side by side (pix2pix --source grey or edges makes them of "
            f"single pictures), got none that can be used, {summary(skipped)}"
        )
    source = ImageSet(path.name, both[0::2])
    return ImageSet(
        path.name, both[1::2], skipped=skipped, source=source, paired=True, notes=(*left_out, *counted(remarks))
    )


def load_unpaired(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """The images of trainB, and those of trainA as their source."""
    folders, left_out = _layout(path)
    if len(folders) == 1:
        raise DataError(f"{path}: want folders trainA and trainB (or A and B) in it, got {_content(folders[0])}")

    def load(channels: int | None) -> list[ImageSet]:
        return [load_folder(each, resolution=resolution, channels=channels, labelled=False) for each in folders]

    a, b = load(channels)
    if a.images.shape[1] != b.images.shape[1]:
        a, b = load(3)
    source = ImageSet(a.name, a.images, skipped=a.skipped)
    skipped = [(f"{b.name}/{file}", reason) for file, reason in b.skipped]
    of_each = (f"{each.name}: {note}" for each in (a, b) for note in each.notes)
    return ImageSet(path.name, b.images, skipped=skipped, source=source, notes=(*left_out, *of_each))


def _layout(path: Path) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The folders of A and B, or the one of pictures side by side, and a note on what is left out beside them."""
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
    """The visible folders in a folder, by their names in small letters."""
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
    return {folder.name.lower(): folder for folder in reversed(folders)}


def _left_out(unused: dict[str, Path]) -> tuple[str, ...]:
    return (f"{_some(sorted(folder.name for folder in unused.values()))} left out",) if unused else ()


def _read(path: Path, channels: int, remarks: list[str] | None) -> Image.Image:
    with open(path, "rb") as file:
        return read_picture(file, channels=channels, remarks=remarks)


def _halves(both: Image.Image) -> list[Image.Image]:
    """A and B of a picture that holds them side by side: its left and right half. Raises ValueError for others."""
    width, height = both.size
    got = f"got {width}x{height} pixels"
    if width % 2:
        raise ValueError(f"want A and B side by side, of equal width, {got}")
    if width < 2 * height:
        steps = np.abs(np.diff(np.asarray(both.convert("L")).astype(np.int16), axis=1)).mean(0)
        if steps[width // 2 - 1] < max(SEAM_LEVELS, SEAM * steps.mean()):
            raise ValueError(
                f"want A and B side by side, twice as wide as high or with an edge in the middle, {got} of one picture"
            )
    return [both.crop((left, 0, left + width // 2, height)) for left in (0, width // 2)]


def _by_stem(folder: Path) -> dict[str, Path]:
    """Pictures below `folder` by their path in it without the ending."""
    found: dict[str, Path] = {}
    for file in pictures(f"{folder.parent.name}/{folder.name}", walk(folder)[0]):
        stem = as_it_looks(PurePosixPath(file).with_suffix("").as_posix())
        if stem in found:
            raise DataError(f"{folder}: want one picture of each name, got {found[stem].name} and {Path(file).name}")
        found[stem] = folder / file
    return found


def _content(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    return _some(names) if names else "nothing"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
