"""Images that come as arrays: .npz files and the embedded Fashion-MNIST test images."""

import gzip
import struct
import zipfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from gan_engine.data.decode import decode_arrays
from gan_engine.data.image_set import DataError, ImageSet, require_memory

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def load_npz(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """`images` uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], and optionally `labels`: integers [N] of any value.

    C is 1 (grey), 3 (RGB) or, in the last place only, 4 (RGBA). Other arrays in the file are ignored.
    """
    images, labels = read_npz(path, "images")
    if images.ndim == 4 and images.shape[3] not in (1, 3, 4) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    shape_fits = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
    if images.dtype != np.uint8 or not shape_fits or images.size == 0:
        raise DataError(
            f"{path}: images must be uint8 [N, H, W], [N, H, W, C] or [N, C, H, W] with N >= 1 and C = 1 or 3, "
            f"got {images.dtype} {list(images.shape)}"
        )
    classes = (None, ()) if labels is None else indexed(path, labels, len(images))
    return ImageSet(path.stem, decode_arrays(path.stem, images, resolution=resolution, channels=channels), *classes)


def read_npz(path: Path, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The array of that name, and the one called labels if there is one. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {Path(entry.filename).stem: entry.file_size for entry in archive.infolist()}
        if name not in sizes:
            raise DataError(f"{path}: want arrays named {name} and, optionally, labels, got {', '.join(sizes)}")
        require_memory(f"{path}: its {name}", sizes[name])
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name], arrays.get("labels")
    except DataError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: not an .npz file of plain arrays that can be read ({error})") from error


def indexed(path: Path, labels: np.ndarray, num: int) -> tuple[torch.Tensor, tuple[str, ...]]:
    """labels int64 [num] from 0 on, and the values they had in the file, which name the classes. Raises DataError."""
    if labels.dtype.kind not in "iu" or labels.shape != (num,):
        raise DataError(f"{path}: labels must be integers [N] = [{num}], got {labels.dtype} {list(labels.shape)}")
    values, labels = np.unique(labels, return_inverse=True)
    return torch.from_numpy(labels.astype(np.int64)), tuple(map(str, values))


def load_fashion_mnist(root: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """The 10,000 test images; they are part of this package, so root is not looked at."""
    folder = resources.files("gan_engine.data") / "fashion_mnist"
    images = read_idx((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = read_idx((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    images = pad_digits(images, resolution)
    return labelled("fashion-mnist", images, labels, FASHION_CLASSES, resolution=resolution, channels=channels)


def read_idx(packed: bytes) -> np.ndarray:
    """idx under gzip: 0, 0, 8 (uint8), the number of dimensions, each size as big-endian uint32, then the values."""
    data = gzip.decompress(packed)
    dims = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(struct.unpack_from(f">{dims}I", data, 4))


def pad_digits(images: np.ndarray, resolution: int) -> np.ndarray:
    """28x28 sets, uint8 [N, 28, 28] -> [N, 32, 32]: two pixels of their black background on each side.

    So resolution 32 needs no resizing, and other powers of two resize by a whole factor; 28 itself stays as it is.
    """
    return images if resolution == images.shape[1] else np.pad(images, ((0, 0), (2, 2), (2, 2)))


def labelled(
    name: str,
    images: np.ndarray,
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    resolution: int,
    channels: int | None,
) -> ImageSet:
    """images as in `decode_arrays`; labels [N] index class_names."""
    pixels = decode_arrays(name, images, resolution=resolution, channels=channels)
    return ImageSet(name, pixels, torch.from_numpy(np.array(labels, dtype=np.int64)), tuple(class_names))
