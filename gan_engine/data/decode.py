"""From any picture to uint8 [C, resolution, resolution]. The same picture gives the same pixels in every container."""

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from gan_engine.data.image_set import empty_images

# Pillow's readers for everyday pictures, and the endings their files have. Naming them keeps the exotic ones out: some
# start other programs (EPS), some never were photographs (HDF5, GRIB).
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
ENDINGS = (".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tga", ".tif", ".tiff", ".webp")

# Files handed to the threads at once: bounds the decoded images in flight and the wait after an interrupt.
CHUNK = 256


def decode_file(file: BinaryIO, *, resolution: int, channels: int) -> np.ndarray:
    """One image file -> uint8 [C, resolution, resolution]. Animated: the first frame. EXIF orientation is applied."""
    with Image.open(file, formats=FORMATS) as image:
        return fit(ImageOps.exif_transpose(image), resolution=resolution, channels=channels)


def fit(image: Image.Image, *, resolution: int, channels: int) -> np.ndarray:
    """Colour, then shape -> uint8 [C, resolution, resolution].

    Transparency is composited on white; 16-bit grey is scaled to 8 bits; grey becomes RGB by repetition, colour becomes
    grey by ITU-R 601 luma. The centre square is cut out and resized with an antialiasing Lanczos filter.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"integer pixels must lie in [0, 65535], got [{values.min()}, {values.max()}]")
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating point pixels have no agreed white")
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def decode_arrays(name: str, arrays: np.ndarray, *, resolution: int, channels: int) -> Tensor:
    """arrays uint8 [N, H, W] or [N, H, W, 1 | 3 | 4] -> uint8 [N, C, resolution, resolution]."""
    if arrays.ndim == 4 and arrays.shape[3] == 1:
        arrays = arrays[..., 0]
    images = empty_images(name, len(arrays), channels, resolution)
    for out, pixels in zip(images.numpy(), tqdm(arrays, f"decode {name}", unit="img", delay=1), strict=True):
        out[:] = fit(Image.fromarray(pixels), resolution=resolution, channels=channels)
    return images


def decode_files(
    name: str, paths: Sequence[str], open_file: Callable[[str], BinaryIO], *, resolution: int, channels: int
) -> tuple[Tensor, list[str], list[tuple[str, str]]]:
    """-> images uint8 [N, C, resolution, resolution], the N paths they came from, and (path, reason) of the others."""

    def decode(path: str) -> np.ndarray | str:
        try:
            with open_file(path) as file:
                return decode_file(file, resolution=resolution, channels=channels)
        except UnidentifiedImageError:
            return "not an image that Pillow can read"
        except Exception as error:  # decoders meet arbitrary bytes and raise nearly anything; one file is one file
            return f"{type(error).__name__}: {error}"

    images = empty_images(name, len(paths), channels, resolution)
    kept, skipped = [], []
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.filterwarnings("ignore", module="PIL")  # a remark per file; what matters is in `skipped`
        with tqdm(total=len(paths), desc=f"decode {name}", unit="img", delay=1) as bar:
            for start in range(0, len(paths), CHUNK):
                chunk = paths[start : start + CHUNK]
                for path, result in zip(chunk, pool.map(decode, chunk), strict=True):
                    if isinstance(result, str):
                        skipped.append((path, result))
                    else:
                        images.numpy()[len(kept)] = result
                        kept.append(path)
                    bar.update()
    return images[: len(kept)], kept, skipped
