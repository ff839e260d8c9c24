"""Read volumes of occupied and empty voxels, from arrays, binvox files and meshes. Meshes are filled.

A volume is uint8 [1, X, Y, Z]: 255 for an occupied voxel, 0 for an empty one. y points upwards, as in binvox files and
most .obj files. A larger volume is reduced by the smallest whole factor that makes it fit (a voxel is occupied if any
of its parts is). A smaller volume is placed in the middle.
"""

import importlib.util
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gan_engine.data import array_files, arrays, files, meshes
from gan_engine.data.decode import decode_files
from gan_engine.data.image_set import DataError, ImageSet, empty_images
from gan_engine.data.labels import by_folder, training_part
from gan_engine.system.names import counted, legible, listed


def load_arrays(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """Read bool or integers [N, X, Y, Z] or [N, 1, X, Y, Z] from a .npy or .npz file; a voxel other than 0 is occupied.

    The array in a .npz file is called `voxels`, or is the only one of such a shape. Labels: see `arrays.choose_labels`.
    Raises DataError.
    """
    heads = array_files.heads(path)
    fits = [name for name, head in heads.items() if len(head.shape) in (4, 5)] if len(heads) > 1 else list(heads)
    name = "voxels" if "voxels" in heads else fits[0] if len(fits) == 1 else None
    if name is None:
        got = array_files.listing(heads)
        raise DataError(f"{path}: want one array [N, X, Y, Z], or an array called voxels, got {got}")
    labels_name = arrays.choose_labels(path, heads, name)
    volumes = array_files.read(path, name, heads[name])
    if volumes.ndim == 5 and volumes.shape[1] == 1:
        volumes = volumes[:, 0]
    if volumes.dtype.kind not in "bui" or volumes.ndim != 4 or volumes.size == 0:
        raise DataError(f"{path}: {name} must be bool or uint8 [N, X, Y, Z] with N >= 1, got {heads[name]}")
    labels, class_names = None, ()
    if labels_name is not None:
        values = array_files.read(path, labels_name, heads[labels_name])
        labels, class_names = arrays.to_labels(path, values, len(volumes))
    images = empty_images(path.stem, len(volumes), 1, resolution, dims=3)
    for i, (out, volume) in enumerate(zip(images.numpy(), volumes, strict=True)):
        try:
            out[:] = fit(volume != 0, resolution)
        except ValueError as error:
            raise DataError(f"{path}: volume {i}: {error}") from None
    notes = (f"volumes from {name} ({heads[name].dtype.name})",)
    return ImageSet(path.stem, images, labels, class_names, notes=notes)


def load_files(path: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """Read one .binvox file, or all .binvox files and meshes below a folder. Folders are classes. Raises DataError."""
    found, skipped = files.walk(path) if path.is_dir() else ([path.name], [])
    root, name = (path, legible(path.resolve().name)) if path.is_dir() else (path.parent, legible(path.stem))
    kept, left_out = training_part(files.with_endings(name, found, (".binvox", *meshes.ENDINGS), what="volumes"))
    mesh = next((file for file in kept if file.lower().endswith(meshes.ENDINGS)), None)
    if mesh is not None and any(importlib.util.find_spec(module) is None for module in ("trimesh", "scipy")):
        raise DataError(f"{name}: want trimesh and scipy to read {mesh}, got none: pip install trimesh scipy")

    shells = []

    def decode(file: str) -> np.ndarray:
        if file.lower().endswith(meshes.ENDINGS):
            volume, shell = meshes.read_mesh(root / file, resolution)
            if shell:
                shells.append(file)
        else:
            with open(root / file, "rb") as opened:
                volume = read_binvox(opened)
        return fit(volume, resolution)[None]

    images, kept, broken = decode_files(name, kept, decode, total=len(kept), resolution=resolution, channels=1, dims=3)
    skipped = skipped + broken
    if not kept:
        raise DataError(f"{name}: nothing can be read, {files.summary(skipped)}")
    if shells:
        names = listed(sorted(shells), most=3)
        warnings.warn(
            f"{name}: {counted(len(shells), 'open surface')}, without an inside to fill: {names}", stacklevel=2
        )
    labels, class_names, notes = by_folder(name, kept)
    return ImageSet(name, images, labels, class_names, skipped, notes=(*left_out, *notes))


def read_binvox(file: BinaryIO) -> np.ndarray:
    """Read a binvox file (Min 2004, patrickmin.com/binvox) as bool [X, Y, Z]: a head, then runs of at most 255 voxels.

    y changes fastest, then z, then x. Raises ValueError for a damaged file.
    """
    if not file.readline().startswith(b"#binvox"):
        raise ValueError("want a file that begins with #binvox")
    shape = None
    while (words := file.readline().split()) != [b"data"]:
        if not words:
            raise ValueError("want a head that ends with data")
        if words[0] == b"dim":
            shape = tuple(map(int, words[1:]))
    if shape is None or len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"want a line dim with 3 sizes in the head, got {shape}")
    runs = np.frombuffer(file.read(), np.uint8)
    values, counts = runs[: len(runs) // 2 * 2].reshape(-1, 2).T
    if counts.sum(dtype=np.int64) != np.prod(shape, dtype=np.int64):
        raise ValueError(f"want runs of {'x'.join(map(str, shape))} voxels, got {counts.sum(dtype=np.int64)}")
    return np.repeat(values != 0, counts).reshape(shape).transpose(0, 2, 1)


def fit(volume: np.ndarray, resolution: int) -> np.ndarray:
    """bool [X, Y, Z] -> uint8 [1, resolution, resolution, resolution]. Raises ValueError if nothing is occupied."""
    if not volume.any():
        raise ValueError("want occupied voxels, got none")
    factor = -(-max(volume.shape) // resolution)
    if factor > 1:
        volume = np.pad(volume, [(0, -side % factor) for side in volume.shape])
        x, y, z = (side // factor for side in volume.shape)
        volume = volume.reshape(x, factor, y, factor, z, factor).any((1, 3, 5))
    margins = [((resolution - side) // 2, (resolution - side + 1) // 2) for side in volume.shape]
    return np.pad(volume, margins).astype(np.uint8)[None] * 255
