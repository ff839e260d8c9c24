"""From any picture to uint8 [C, resolution, resolution], or several. The same picture gives the same pixels always."""

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from gan_engine.data.endings import formats
from gan_engine.data.image_set import empty_images
from gan_engine.data.modes import eight_bits, plain

T = TypeVar("T")

# Files handed to the threads at once, small ones: bounds the decoded images in flight and the wait after an interrupt.
CHUNK = 256


# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where that leaves so many times the pixels that are wanted. Of 14
# photographs at 5 sizes each, resized to 32 to 256 pixels, 8 times left 98 % with no pixel that is off by more than 1
# (at most 3), 6 times 87 %, 4 times 27 % (Pillow 13, 2026-11).
FINER = 8

# Levels by which the channels of a grey picture may differ: lossy files and resizing round each channel for itself.
GREY_TOLERANCE = 8


def decode_file(file: BinaryIO, *, resolution: int, channels: int) -> np.ndarray:
    """One image file -> uint8 [C, resolution, resolution], its centre square; see `read_picture`."""
    return square(read_picture(file, channels=channels, side=resolution), resolution)


def read_picture(
    file: BinaryIO, *, channels: int, side: int | None = None, remarks: list[str] | None = None
) -> Image.Image:
    """One image file, whole, in the mode L or RGB. Animated: the first frame. EXIF orientation is applied.

    Args:
        side: pixels that the centre square will be resized to. A large JPEG then comes smaller, which its decoder does
            in a fraction of the time.
        remarks: takes what a person should know of how the picture was read; see `modes.plain`.
    """
    remarks = [] if remarks is None else remarks
    with Image.open(file, formats=formats()) as image:
        if side is not None:
            reduce_jpeg(image, side)
        if image.format != "MPO" and getattr(image, "is_animated", False):  # cameras add previews to an MPO
            remarks.append("of several frames or pages (the first is read)")
        profile = image.info.get("icc_profile")
        return plain(eight_bits(image), channels=channels, profile=profile, remarks=remarks)


def reduce_jpeg(image: Image.Image, side: int) -> None:
    """Let a JPEG that is not yet decoded come at 1/2, 1/4 or 1/8 of its size, but `FINER` times `side` or more.

    Both sides must be multiples of that divisor: a part of a pixel at the edge would move the centre. Pictures in other
    formats stay as they are.
    """
    for divisor in (8, 4, 2):
        if not any(length % divisor for length in image.size) and min(image.size) >= FINER * side * divisor:
            image.draft(None, tuple(length // divisor for length in image.size))
            return


def has_colour(pixels: np.ndarray) -> bool:
    """Whether any of the pixels uint8 [..., 3, H, W] has channels that differ by more than `GREY_TOLERANCE`."""
    return bool((pixels.max(-3).astype(np.int16) - pixels.min(-3) > GREY_TOLERANCE).any())


def channels_of(name: str, items: Iterable[T], decode: Callable[[T], np.ndarray | None]) -> int:
    """3 if any of the pictures has colour, else 1. The first one that has ends the search.

    Args:
        decode: item -> uint8 [..., 3, H, W], or None for a picture that cannot have colour; called in threads. Pictures
            that cannot be read count as grey: `decode_files` will say why.
    """

    def coloured(item: T) -> bool:
        try:
            found = decode(item)
            return found is not None and has_colour(found)
        except Exception:
            return False

    items = iter(tqdm(items, f"look for colour in {name}", unit="img", delay=1, disable=None))
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")
        while some := list(itertools.islice(items, 8)):
            if any(pool.map(coloured, some)):
                return 3
    return 1


def grey_by_mode(file: BinaryIO) -> bool:
    """Whether the head of an image file already says that it holds no colour."""
    with Image.open(file, formats=formats()) as image:
        return image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")


def square(image: Image.Image, resolution: int) -> np.ndarray:
    """uint8 [C, resolution, resolution]: the centre square, resized with an antialiasing Lanczos filter."""
    return pixels(ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS))


def pixels(image: Image.Image) -> np.ndarray:
    """A picture in the mode L or RGB as uint8 [C, H, W]"""
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def patches(image: Image.Image, resolution: int) -> np.ndarray:
    """uint8 [n, C, resolution, resolution]: all of the picture in squares as they are, evenly spaced from edge to edge.

    They overlap where a side is no multiple of the resolution.
    """
    if min(image.size) < resolution:
        raise ValueError(f"want at least {resolution}x{resolution} pixels, got {image.width}x{image.height}")
    values = pixels(image)
    xs, ys = (np.linspace(0, side - resolution, -(-side // resolution)).round().astype(int) for side in image.size)
    return np.stack([values[:, y : y + resolution, x : x + resolution] for y in ys for x in xs])


def num_patches(open_file: Callable[[], BinaryIO], resolution: int) -> int:
    """How many `patches` a file has, from its head alone; 0 for one that cannot be read."""
    try:
        with open_file() as file, Image.open(file, formats=formats()) as image:
            return math.prod(-(-side // resolution) for side in image.size) if min(image.size) >= resolution else 0
    except Exception:  # as in `decode_files`, which will say why
        return 0


def decode_arrays(
    name: str,
    arrays: np.ndarray,
    to_bytes: Callable[[np.ndarray], np.ndarray] = lambda array: array,
    *,
    resolution: int,
    channels: int | None,
) -> Tensor:
    """arrays [N, H, W] or [N, H, W, 1 | 3 | 4] -> uint8 [N, C, resolution, resolution]. C: see `channels_of`.

    Args:
        to_bytes: one of the arrays -> uint8 of its shape.
    """
    if arrays.ndim == 4 and arrays.shape[3] == 1:
        arrays = arrays[..., 0]

    def decode(array: np.ndarray, channels: int = 3) -> np.ndarray:
        return square(plain(Image.fromarray(to_bytes(array)), channels=channels), resolution)

    if channels is None:
        channels = 1 if arrays.ndim == 3 else channels_of(name, arrays, decode)
    images = empty_images(name, len(arrays), channels, resolution)
    for out, array in zip(
        images.numpy(), tqdm(arrays, f"decode {name}", unit="img", delay=1, disable=None), strict=True
    ):
        out[:] = decode(array, channels)
    return images


def decode_files(
    name: str,
    paths: Sequence[str],
    decode: Callable[[str], np.ndarray],
    *,
    total: int,
    resolution: int,
    channels: int,
    chunk: int = CHUNK,
    dims: int = 2,
) -> tuple[Tensor, list[str], list[tuple[str, str]]]:
    """-> images uint8 [N, C, resolution, resolution], the paths they came from, and (path, reason) of the others.

    Args:
        decode: path -> uint8 [n, C, resolution, resolution]; called in threads.
        total: images of all paths, or more.
        chunk: paths decoded at once.
        dims: 3 for volumes, which have one more side.
    """

    def attempt(path: str) -> np.ndarray | str:
        try:
            return decode(path)
        except UnidentifiedImageError:
            return "not an image that Pillow can read"
        except Exception as error:  # decoders meet arbitrary bytes and raise nearly anything; one file is one file
            return f"{type(error).__name__}: {error}"

    images = empty_images(name, total, channels, resolution, dims=dims)
    count, kept, skipped = 0, [], []
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")  # a remark per file; what matters is in `skipped`
        with tqdm(total=len(paths), desc=f"decode {name}", unit="img", delay=1, disable=None) as bar:
            for start in range(0, len(paths), chunk):
                some = paths[start : start + chunk]
                for path, result in zip(some, pool.map(attempt, some), strict=True):
                    if isinstance(result, str):
                        skipped.append((path, result))
                    else:
                        images.numpy()[count : count + len(result)] = result
                        count += len(result)
                        kept.append(path)
                    bar.update()
    return images[:count], kept, skipped
