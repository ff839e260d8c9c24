"""Read images that are stored as arrays: .npz and .npy files, and the embedded Fashion-MNIST test images."""

import gzip
import itertools
import math
import re
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import torch

from gan_engine.data import array_files
from gan_engine.data.array_files import Head
from gan_engine.data.decode import decode_arrays, decode_bands
from gan_engine.data.files import counted_remarks
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.planes import AT_MOST_8_BITS
from gan_engine.system.names import listed
from gan_engine.system.pixels import COLOURS, MOST_CHANNELS, white
from gan_engine.system.resolution import Resolution, height_width

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

# Usual names of arrays. The part of the data set is removed first: x_train -> x, train_images -> images.
IMAGES = ("images", "imgs", "x", "data", "samples")
LABELS = ("labels", "label", "y", "targets", "target", "arr_1")
PARTS = {"train": "train", "training": "train"} | dict.fromkeys(
    ("test", "testing", "val", "valid", "validation"), "rest"
)

WANTED = f"[N, H, W], [N, H, W, C] or [N, C, H, W] with N >= 1 and C = 1, 3 or 4, or other C up to {MOST_CHANNELS}"
BANDS = range(2, MOST_CHANNELS + 1)

# The least maximum of 16-bit images: 1/16 of white. Images of 10 or 12 bits stay below it and would come out dark.
DARKEST = 16 * 257

# Floats may leave [0, 1] or [-1, 1] by this much, because of rounding.
SLACK = 1e-3


def load_images(path: Path, *, resolution: Resolution, channels: int | None, bits: int = 8) -> ImageSet:
    """Read the images of a .npz or .npy file, and the labels of a .npz file if it has labels. Raises DataError.

    Images are [N, H, W], [N, H, W, C] or [N, C, H, W]. C is 1 (grey), 3 (RGB) or 4 (RGBA), or any number of bands up to
    64. Values are bool, integers of 8 or 16 bits, or floats in [0, 1], [-1, 1] or [0, 255]; see `to_levels`. Labels:
    see `to_labels`. `ImageSet.notes` says which arrays were used, and how they were understood.

    Bands, and all images of 16 bits, keep their channels: no colour is converted, and no channel is an opacity.
    """
    heads = array_files.heads(path)
    name = choose_images(path, heads, channels)
    labels_name = choose_labels(path, heads, name)
    images = array_files.read(path, name, heads[name])
    images, layout = last_channels(path, name, images, channels)
    convert, values = to_levels(path, name, images, bits)
    notes = [f"images from {name} ({heads[name].dtype.name} {layout}{values})"]
    labels, class_names = None, ()
    if labels_name is not None:
        labels, class_names = to_labels(path, array_files.read(path, labels_name, heads[labels_name]), len(images))
        notes.append(f"labels from {labels_name}")
    unused = [other for other in heads if other not in (name, labels_name)]
    if unused:
        notes.append(f"{listed(unused)} not used")
    if bits == 16 and images.dtype.kind in "bui" and (images.dtype.itemsize == 1 or images.max() <= 255):
        notes.append(f"values {AT_MOST_8_BITS}")
    remarks: list[str] = []
    found = 1 if images.ndim == 3 else images.shape[3]
    if bits == 8 and found in COLOURS and channels in (None, *COLOURS):
        sizes = {"resolution": resolution, "channels": channels}
        pixels = decode_arrays(path.stem, images, convert, **sizes, remarks=remarks)
    elif channels not in (None, found):
        why = "images of 16 bits" if bits == 16 else "bands"
        raise DataError(
            f"{path}: want --channels {found}, as {why} keep the channels of {name}, which is "
            f"{heads[name]}, got {channels}"
        )
    else:
        pixels = decode_bands(path.stem, images, convert, resolution=resolution, bits=bits)
    return ImageSet(path.stem, pixels, labels, class_names, notes=(*notes, *counted_remarks(remarks)))


def choose_images(path: Path, heads: Mapping[str, Head], channels: int | None = None) -> str:
    """The name of the array that holds the images. Raises DataError if no array fits, or several do.

    An array called images, or the only array, is taken. Otherwise the array must have the shape of images. If several
    have it, arrays for testing are dropped, and then arrays with unusual names. Bands count where no array has colours,
    or these are all [N, H, W] without a usual name and `channels` is None.
    """
    if "images" in heads or len(heads) == 1:
        return "images" if "images" in heads else next(iter(heads))
    numbers = {name: head for name, head in heads.items() if head.dtype.kind in "buif"}
    if channels not in (None, *COLOURS):
        numbers = {name: head for name, head in numbers.items() if len(head.shape) == 4}
    fitting = [[name for name in numbers if _layouts(heads[name].shape, asked)] for asked in _asked(channels)]
    fits = next(filter(None, fitting), [])
    if channels is None and not any(len(heads[name].shape) == 4 or _name_and_part(name)[0] in IMAGES for name in fits):
        fits = list(dict.fromkeys(itertools.chain(*fitting)))  # a mask beside bands has the shape of grey images
    fits = [name for name in fits if _name_and_part(name)[1] != "rest"] or fits
    usual = [name for name in fits if _name_and_part(name)[0] in IMAGES]
    for names in (fits, usual):
        if len(names) == 1:
            return names[0]
    if fits:
        got = array_files.listing({name: heads[name] for name in fits})
        raise DataError(f"{path}: want one array of images, or an array called images, got {got}")
    raise DataError(f"{path}: want an array of numbers {WANTED}, got {array_files.listing(heads)}")


def choose_labels(path: Path, heads: Mapping[str, Head], images: str) -> str | None:
    """The name of the array of labels for the array `images`, or None. Raises DataError if several fit."""
    if "labels" in heads:
        return "labels"
    part, num = _name_and_part(images)[1], heads[images].shape[0]
    usual_names = {(word, part) for word in LABELS}
    usual = [name for name in heads if name != images and _name_and_part(name) in usual_names]
    fits = [name for name in usual if len(heads[name].shape) <= 2 and heads[name].shape[:1] == (num,)]
    if len(fits) > 1:
        got = array_files.listing({name: heads[name] for name in fits})
        raise DataError(f"{path}: want one array of labels, or an array called labels, got {got}")
    maps = [name for name in usual if name == "arr_1" or len(heads[name].shape) > 2]
    return fits[0] if fits else next((name for name in usual if name not in maps), None)


def _name_and_part(name: str) -> tuple[str, str]:
    """x_train -> (x, train): the name in small letters, and the part of the data set, or ''."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)]
    part = next((PARTS[word] for word in words if word in PARTS), "")
    return "_".join(word for word in words if word not in PARTS), part


def _asked(channels: int | None) -> list[Collection[int]]:
    """The channels that an array may have, in the order of trying: as pictures have, then bands; or those asked for."""
    return [COLOURS, BANDS] if channels in (None, *COLOURS) else [(channels,)]


def _layouts(shape: tuple[int, ...], channels: Collection[int]) -> list[str]:
    """The possible layouts of an array of this shape with some number of `channels`.

    None if it cannot hold images, or holds only one picture.
    """
    if 0 in shape or (len(shape) == 3 and shape[2] in (3, 4) and min(shape[:2]) > shape[2]):
        return []
    if len(shape) == 3:
        return ["NHW"]
    if len(shape) != 4:
        return []
    last = shape[3] in channels
    if channels is not COLOURS:
        return ["NHWC"] * last + ["NCHW"] * (shape[1] in channels)
    second = shape[1] in (1, 3) or (shape[1] == 4 and not last and min(shape[2:]) > 4)
    return ["NHWC"] * last + ["NCHW"] * second


def last_channels(path: Path, name: str, images: np.ndarray, channels: int | None) -> tuple[np.ndarray, str]:
    """-> images [N, H, W] or [N, H, W, C], and the layout that they had. Raises DataError for other shapes.

    channels: C, which tells bands from sides. Grey and colour are found without it.
    """
    layouts = next(filter(None, (_layouts(images.shape, asked) for asked in _asked(channels))), [])
    got = f"got {images.dtype.name} {list(images.shape)}"
    if len(layouts) > 1:
        both = f"{path}: {name} must have its channels either second or last, {got}, which may be both"
        sizes = {images.shape[1], images.shape[3]}
        tells = len(sizes) > 1 and len(_asked(channels)) > 1 and not sizes <= {*COLOURS}
        raise DataError(both + (f"; want --channels {' or '.join(map(str, sorted(sizes)))}" if tells else ""))
    if not layouts:
        wanted = WANTED if len(_asked(channels)) > 1 else f"[N, H, W, {channels}] or [N, {channels}, H, W]"
        raise DataError(f"{path}: {name} must be {wanted}, {got}")
    return (images.transpose(0, 2, 3, 1) if layouts == ["NCHW"] else images), layouts[0]


def to_levels(path: Path, name: str, images: np.ndarray, bits: int) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """-> a function that converts any of the images to uint8 in [0, 255], and the range of the images as text.

    The function makes uint16 in [0, 65535] where `bits` is 16.

    bool is black and white. Integers have 8 bits if all are in [0, 255], else 16. Floats have the range [0, 1], [-1, 1]
    or [0, 255]: the one that fits their least and largest value. Raises DataError if two ranges are possible or none,
    and for integers that are only 0 and 1.
    """
    kind, top = images.dtype.kind, white(bits)
    levels = np.uint16 if bits == 16 else np.uint8
    if kind == "b":
        return lambda image: image * levels(top), ""
    if kind not in "uif":
        raise DataError(f"{path}: {name} must be numbers, got {images.dtype.name}")
    low, high = images.min().item(), images.max().item()
    if kind in "ui" and low >= 0 and high != 1 and (high <= 255 or DARKEST <= high <= 65535):
        if high <= 255:
            step = levels(top // 255)
            return lambda image: image.astype(levels) * step, "" if images.dtype == np.uint8 else " in [0, 255]"
        if bits == 16:
            return lambda image: image.astype(np.uint16), "" if images.dtype == np.uint16 else " in [0, 65535]"
        return lambda image: np.rint(image / 257).astype(np.uint8), " in [0, 65535]"
    for first, last, least, most in ((0, 1, -SLACK, 1 + SLACK), (-1, 1, -1 - SLACK, 1 + SLACK), (0, 255, -0.5, 255.5)):
        # Refuse values just outside a range: [-0.01, 1] is not taken for [-1, 1], and [0, 1.5] not for [0, 255].
        clear = (first == 0 or low <= -0.5) and (last == 1 or high * 257 >= DARKEST)
        if kind == "f" and least <= low and high <= most and clear:
            return partial(_scaled, first=first, last=last, top=top), f" in [{first}, {last}]"
    want = "floats in [0, 1], [-1, 1] or [0, 255]" if kind == "f" else "integers in [0, 255] or [0, 65535]"
    got = f"in [{low:.6g}, {high:.6g}]" if math.isfinite(low + high) else "with values that are not finite"
    raise DataError(f"{path}: {name} must be {want}, got {images.dtype.name} {got}")


def _scaled(image: np.ndarray, *, first: float, last: float, top: int) -> np.ndarray:
    """y = top (x - first) / (last - first), rounded and clipped: floats in [first, last] -> uint8 or uint16."""
    scaled = np.rint((image.astype(np.float64) - first) * (top / (last - first)))
    return scaled.clip(0, top).astype(np.uint16 if top > 255 else np.uint8)


def to_labels(path: Path, labels: np.ndarray, num: int) -> tuple[torch.Tensor, tuple[str, ...]]:
    """-> labels int64 [num], numbered from 0, and the class names: the values in the file. Raises DataError.

    labels: [N] or [N, 1] integers, floats without fraction, or words; or [N, K] one-hot.
    """
    got = f"got {labels.dtype.name} {list(labels.shape)}"
    if labels.ndim == 2 and len(labels) == num and labels.dtype.kind in "buif":
        if labels.shape[1] > 1:
            if not (np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all()):
                raise DataError(f"{path}: labels [N, K] must be one-hot, with a single 1 in each row, {got}")
            labels = labels.argmax(1)
        else:
            labels = labels[:, 0]
    if labels.dtype.kind not in "buifU" or labels.shape != (num,):
        raise DataError(f"{path}: labels must be integers [N] = [{num}], {got}")
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
            raise DataError(f"{path}: labels must be integers [N] = [{num}], {got} with fractions")
        labels = labels.astype(np.int64)
    values, labels = np.unique(labels, return_inverse=True)
    return torch.from_numpy(labels.astype(np.int64)), tuple(map(str, values))


def load_fashion_mnist(root: Path, *, resolution: Resolution, channels: int | None) -> ImageSet:
    """The 10,000 test images of Fashion-MNIST. They are part of this package, so `root` is not used."""
    folder = resources.files("gan_engine.data") / "fashion_mnist"
    images = read_idx((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
    labels = read_idx((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
    images = pad_digits(images, resolution)
    return labelled("fashion-mnist", images, labels, FASHION_CLASSES, resolution=resolution, channels=channels)


def read_idx(packed: bytes) -> np.ndarray:
    """Read a gzipped idx file: 0, 0, 8 (uint8), number of dimensions, each size as big-endian uint32, values."""
    data = gzip.decompress(packed)
    dims = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(struct.unpack_from(f">{dims}I", data, 4))


def pad_digits(images: np.ndarray, resolution: Resolution) -> np.ndarray:
    """uint8 [N, 28, 28] -> [N, 32, 32]: add two black pixels on each side, unless the longer side is to be 28.

    Resolution 32 then needs no resizing, and other powers of two resize by a whole factor.
    """
    return images if max(height_width(resolution)) == images.shape[1] else np.pad(images, ((0, 0), (2, 2), (2, 2)))


def labelled(
    name: str,
    images: np.ndarray,
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    resolution: Resolution,
    channels: int | None,
) -> ImageSet:
    """An ImageSet of images (see `decode_arrays`) and labels [N], which are indices into class_names."""
    pixels = decode_arrays(name, images, resolution=resolution, channels=channels)
    return ImageSet(name, pixels, torch.from_numpy(np.array(labels, dtype=np.int64)), tuple(class_names))
