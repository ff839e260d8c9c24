"""From the word a person typed after --data to an ImageSet."""

import difflib
import warnings
from dataclasses import dataclass
from pathlib import Path

from gan_engine.data import arrays, files, torchvision_sets, toy
from gan_engine.data.image_set import DataError, ImageSet

NAMED = {"fashion-mnist": arrays.load_fashion_mnist} | torchvision_sets.LOADERS
BY_SUFFIX = {".zip": files.load_zip, ".npz": arrays.load_npz}


@dataclass(frozen=True)
class DataConfig:
    """Which images to train on. Their resolution and channels are the model's."""

    source: str = "fashion-mnist"
    """fashion-mnist (10,000 embedded images), toy (procedural), a folder, .zip or .npz, or a torchvision set:
    mnist, fashion-mnist-full, cifar10, celeba. A name wins over a path; write ./toy for a folder called toy."""
    mirror: bool = False
    """Flip images left to right, each with probability 1/2 in every epoch."""
    root: str = "~/.cache/gan_engine"
    """Folder of the torchvision sets; they are downloaded into it where there is a network."""


def load(config: DataConfig, *, resolution: int, channels: int, kind: str = "image", seed: int = 0) -> ImageSet:
    """Decode a whole source into memory as uint8 [N, channels, resolution, resolution].

    Images that are not square are cut to their centre square; see `decode.fit` for colour and `arrays.pad_digits` for
    28x28 sets. kind and seed matter to toy data only. Images that cannot be read are skipped: named in
    `ImageSet.skipped` and summed up in one warning. Raises DataError where nothing is left to train on.
    """
    if resolution < 1:
        raise DataError(f"resolution must be at least 1, got {resolution}")
    if channels not in (1, 3):
        raise DataError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
    if not config.source:
        raise DataError(f"data: want one of toy, {', '.join(NAMED)}, a folder, a .zip or an .npz, got ''")
    if config.source == "toy":
        if kind not in toy.KINDS:
            raise DataError(f"toy data comes in the kinds {', '.join(toy.KINDS)}, got {kind!r}")
        return toy.KINDS[kind](resolution=resolution, channels=channels, seed=seed)
    if kind != "image":
        raise DataError(f"data source {config.source!r} holds images; data of the kind {kind!r} comes from toy only")

    if config.source in NAMED:
        root = Path(config.root).expanduser()
        data = NAMED[config.source](root, resolution=resolution, channels=channels)
    else:
        data = _load_path(config.source, resolution=resolution, channels=channels)
    if data.skipped:
        warnings.warn(f"{data.name}: skipped {files.summary(data.skipped)}", stacklevel=2)
    return data


def _load_path(source: str, *, resolution: int, channels: int) -> ImageSet:
    path = Path(source).expanduser()
    if path.is_dir():
        return files.load_folder(path, resolution=resolution, channels=channels)
    if path.is_file() and path.suffix.lower() in BY_SUFFIX:
        return BY_SUFFIX[path.suffix.lower()](path, resolution=resolution, channels=channels)
    if path.exists():
        raise DataError(f"data source {source}: want a folder, {' or '.join(BY_SUFFIX)}, got the file {path.name}")
    names = [*NAMED, "toy"]
    near = difflib.get_close_matches(source, names, n=1)
    raise DataError(
        f"data source {source!r}: no such file or folder, and not one of the names {', '.join(names)}"
        + (f"; did you mean {near[0]}?" if near else "")
    )
