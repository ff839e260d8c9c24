"""Picture files become picture files: the names of the results, and the conversion of one file after the other."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from gan_engine.data import to_float
from gan_engine.data.decode import read_picture
from gan_engine.data.files import counted_remarks, pictures, walk
from gan_engine.data.planes import AT_MOST_8_BITS, Planes
from gan_engine.pictures.picture import picture, to_levels, write_picture

Job = tuple[Path, Path]  # a picture, and the .png that is made of it


def jobs(source: Path, out: Path, *, overwrite: bool = False) -> list[Job]:
    """One job for a file, or one for each picture below a folder, which keeps its name and place below `out`.

    Raises:
        ValueError: no pictures, two pictures that would become one file, or an `out` that does not end in .png.
        OSError: there is no such file or folder, or `out` exists.
    """
    if source.is_dir():
        if out.is_file():
            raise FileExistsError(f"{out} is a file; want a directory for the pictures of {source}")
        if source.resolve() in (out.resolve(), *out.resolve().parents):
            raise ValueError(f"out: want a directory outside of {source}, whose pictures are read, got {out}")
        made = {}
        for file in pictures(str(source), walk(source)[0]):
            target = out / PurePosixPath(file).with_suffix(".png")
            if target in made:
                raise ValueError(f"{source}: want pictures of different names, got {made[target]} and {file}")
            made[target] = file
        found = [(source / file, target) for target, file in made.items()]
    elif source.is_file():
        if out.suffix and out.suffix.lower() != ".png" and not out.is_dir():
            raise ValueError(f"out: want a name ending in .png or a directory, got {out}")
        found = [(source, out if out.suffix and not out.is_dir() else out / f"{source.stem}.png")]
    else:
        raise FileNotFoundError(f"{source}: no such file or folder")
    existing = next((target for _, target in found if target.exists()), None)
    if existing is not None and not overwrite:
        raise FileExistsError(f"{existing} exists; --overwrite replaces it")
    return found


def read(path: Path, channels: int, **options: Any) -> Image.Image | Planes:
    """The picture; see `decode.read_picture` and its options.

    Raises ValueError that names `path` if it is not a picture.
    """
    try:
        with open(path, "rb") as file:
            return read_picture(file, channels=channels, **options)
    except UnidentifiedImageError:
        raise ValueError(f"{path}: not an image that Pillow can read") from None
    except Exception as error:  # decoders read arbitrary bytes, and raise nearly anything
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def convert(
    todo: Sequence[Job],
    make: Callable[[Path], Image.Image],
    then: Callable[[Path, Image.Image], None] = lambda source, made: None,
) -> list[str]:
    """Write make(picture) for every job, call then(picture, made), and return a sentence for each failure.

    Both may raise ValueError, whose message is the sentence: `make` for a picture that cannot be read, and `then` after
    the result was written.
    """
    failures = []
    with warnings.catch_warnings(), tqdm(todo, unit=" img", disable=None if len(todo) > 1 else True) as bar:
        warnings.filterwarnings("ignore", module="PIL")
        for source, target in bar:
            try:
                made = make(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                write_picture(made, target)
                then(source, made)
            except ValueError as error:
                failures.append(str(error))
    return failures


def warn_of(source: Path, remarks: Sequence[str]) -> None:
    """Warn of what the pictures of `source` have that was not read, or was changed. See `modes.to_grey_or_rgb`.

    A run of 16 bits may well read pictures of 8 bits.
    """
    if notes := counted_remarks([remark for remark in remarks if remark != AT_MOST_8_BITS]):
        warnings.warn(f"{source}: {'; '.join(notes)}", stacklevel=3)


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 or uint16 [C, H, W] -> img [1, C, H, W] in [-1, 1]"""
    return to_float(torch.from_numpy(pixels.copy())[None])


def to_picture(img: Tensor, bits: int = 8) -> Image.Image:
    """img [1, C, H, W] in [-1, 1] as a picture, rounded to 8 bits, or to 16 where it is grey"""
    return picture(to_levels(img, bits)[0])
