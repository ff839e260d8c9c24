"""Tensors become pictures: one picture, a grid of pictures, a file."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from gan_engine.system.whole_file import replacing


def to_uint8(images: Tensor) -> np.ndarray:
    """images [N, C, H, W] in [-1, 1] -> bytes [N, H, W, C]: round(127.5 x + 127.5)

    Values beyond [-1, 1] are clipped, and NaN becomes 0. Raises ValueError unless N > 0 and C is 1, 3 or 4.
    """
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3, 4):
        raise ValueError(f"images must be [N, C, H, W] with N > 0 and C 1, 3 or 4, got {list(images.shape)}")
    pixels = (images.detach().float() * 127.5 + 127.5).nan_to_num(0).round().clamp(0, 255)
    return pixels.permute(0, 2, 3, 1).byte().cpu().numpy()


def picture(pixels: np.ndarray) -> Image.Image:
    """Bytes [H, W, C], C 1, 3 or 4, as a grey or colour picture, or one with transparency."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images [N, C, H, W] in [-1, 1] side by side, row by row.

    The grid is nearly square if `columns` is not given. Small images are enlarged by a whole number, to about 64
    pixels.
    """
    pixels = to_uint8(images)
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


def write_picture(image: Image.Image, path: Path) -> None:
    """Write `image` to `path`, whole or not at all; the ending of `path` chooses the format. Raises OSError."""
    with replacing(path) as temporary:
        image.save(temporary)
