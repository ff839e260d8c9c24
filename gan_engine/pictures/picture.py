"""Tensors become pictures: one picture, a grid of pictures, a file."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gan_engine.system.pixels import COLOURS, white
from gan_engine.system.whole_file import buffered


def to_uint8(images: Tensor) -> np.ndarray:
    """images [N, C, H, W] in [-1, 1] -> bytes [N, H, W, C]: round(127.5 x + 127.5)

    Values beyond [-1, 1] are clipped, and NaN becomes 0. Raises ValueError unless N > 0 and C > 0.
    """
    return to_levels(images, 8)


def to_levels(images: Tensor, bits: int) -> np.ndarray:
    """`to_uint8`; or the same in uint16, round(32767.5 x + 32767.5), where `bits` is 16"""
    if images.ndim != 4 or 0 in images.shape[:2]:
        raise ValueError(f"images must be [N, C, H, W] with N > 0 and C > 0, got {list(images.shape)}")
    half = white(bits) / 2
    pixels = (images.detach().float() * half + half).nan_to_num(0).round().clamp(0, white(bits))
    whole = pixels.permute(0, 2, 3, 1).to(torch.int32 if bits == 16 else torch.uint8).cpu().numpy()
    return whole.astype(np.uint16) if bits == 16 else whole


def visible(pixels: np.ndarray) -> np.ndarray:
    """[..., C] -> [..., 1, 3 or 4], what a picture shows: of two bands the first, of five and more the first three"""
    channels = pixels.shape[-1]
    return pixels if channels in COLOURS else pixels[..., : 1 if channels == 2 else 3]


def picture(pixels: np.ndarray) -> Image.Image:
    """Bytes [H, W, C], C 1, 3 or 4, as a grey or colour picture, or one with transparency; or uint16 [H, W, 1]."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images [N, C, H, W] in [-1, 1] side by side, row by row.

    The grid is nearly square if `columns` is not given. Small images are enlarged by a whole number, to about 64
    pixels. Images of bands show what is `visible`.
    """
    pixels = visible(to_uint8(images))
    n, height, width, channels = pixels.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    scale = max(1, round(64 / max(height, width)))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width, gap = height * scale, width * scale, 2
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for i, image in enumerate(pixels):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = image
    return picture(sheet)


def write_values(pixels: np.ndarray, path: Path) -> None:
    """Write pixels [N, H, W, C] as [N, C, H, W] to a .npy, or to an .npz under the name images. Raises OSError."""
    images = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    with buffered(path) as file:
        if path.suffix.lower() == ".npy":
            np.save(file, images)
        else:
            np.savez_compressed(file, images=images)


def write_picture(image: Image.Image, path: Path) -> None:
    """Write `image` to `path`, whole or not at all; the ending of `path` chooses the format. Raises OSError."""
    with buffered(path) as file:
        image.save(file)
