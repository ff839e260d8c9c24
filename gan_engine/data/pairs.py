"""Two sets of images for translation: in pairs, or of two kinds that nobody has paired.

A/cat.jpg   B/cat.jpg       pairs by file name, up to the ending; folders trainA and trainB are read alike
cat.jpg                     pairs side by side in one picture, A to the left of B
trainA/..   trainB/..       two kinds of images, of any names and numbers
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from gan_engine.data.decode import decode_files, read_picture, square
from gan_engine.data.files import load_folder, pictures, summary, walk
from gan_engine.data.image_set import DataError, ImageSet

FOLDERS = (("A", "B"), ("trainA", "trainB"))


def load_pairs(path: Path, *, resolution: int, channels: int) -> ImageSet:
    """The images of B, and those of A as their source, cut to the centre square and resized alike."""
    folders = _folders(path)
    if folders is None:
        paths = pictures(path.name, walk(path)[0])
    else:
        named = [_by_stem(folder) for folder in folders]
        alone = sorted(named[0].keys() ^ named[1].keys())
        if alone:
            where = " and ".join(folder.name for folder in folders)
            raise DataError(f"{path}: want equal file names in {where}, got {_some(alone)} in one of them only")
        paths = sorted(named[0])

    def decode(name: str) -> np.ndarray:
        if folders is None:
            with open(path / name, "rb") as file:
                both = read_picture(file, channels=channels)
            if both.width != 2 * both.height:
                raise ValueError(
                    f"want A and B side by side, twice as wide as high, got {both.width}x{both.height} pixels"
                )
            half = both.height
            pair = [both.crop((0, 0, half, half)), both.crop((half, 0, 2 * half, half))]
        else:
            pair = []
            for of_stem in named:
                with open(of_stem[name], "rb") as file:
                    pair.append(read_picture(file, channels=channels))
            a, b = pair
            if a.width * b.height != a.height * b.width:
                raise ValueError(f"want pairs of one shape, got {a.width}x{a.height} and {b.width}x{b.height} pixels")
        return np.stack([square(each, resolution) for each in pair])

    both, kept, skipped = decode_files(
        path.name, paths, decode, total=2 * len(paths), resolution=resolution, channels=channels
    )
    if not kept:
        raise DataError(
            f"{path}: want pairs, in folders A and B or side by side (pix2pix --source grey or edges makes them of "
            f"single pictures), got none that can be used, {summary(skipped)}"
        )
    return ImageSet(path.name, both[1::2], skipped=skipped, source=ImageSet(path.name, both[0::2]), paired=True)


def load_unpaired(path: Path, *, resolution: int, channels: int) -> ImageSet:
    """The images of trainB, and those of trainA as their source."""
    folders = _folders(path)
    if folders is None:
        raise DataError(f"{path}: want folders trainA and trainB (or A and B) in it, got {_content(path)}")
    a, b = (load_folder(folder, resolution=resolution, channels=channels) for folder in folders)
    source = ImageSet(a.name, a.images, skipped=a.skipped)
    return ImageSet(path.name, b.images, skipped=b.skipped, source=source)


def _folders(path: Path) -> tuple[Path, Path] | None:
    found = [[path / name for name in names] for names in FOLDERS]
    return next(((a, b) for a, b in found if a.is_dir() and b.is_dir()), None)


def _by_stem(folder: Path) -> dict[str, Path]:
    """Pictures below `folder` by their path in it without the ending."""
    found: dict[str, Path] = {}
    for file in pictures(f"{folder.parent.name}/{folder.name}", walk(folder)[0]):
        stem = PurePosixPath(file).with_suffix("").as_posix()
        if stem in found:
            raise DataError(f"{folder}: want one picture of each name, got {found[stem].name} and {Path(file).name}")
        found[stem] = folder / file
    return found


def _content(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    return _some(names) if names else "nothing"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")
