"""From the word a person typed after --data to an ImageSet."""

import difflib
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gan_engine.data import archives, arrays, cache, endings, files, pairs, torchvision_sets, toy, voxels
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.kinds import KINDS

NAMED = {"fashion-mnist": arrays.load_fashion_mnist} | torchvision_sets.LOADERS
# What a name stands for that is of a plug-in; the others are single images.
KIND_OF: dict[str, str] = {}
# What files are read by, for each kind of data; the empty suffix is that of a folder.
READERS: dict[str, dict[str, Callable[..., ImageSet]]] = {
    "image": {
        **{"": files.load_folder, ".zip": archives.load_zip},
        **{".npz": arrays.load_images, ".npy": arrays.load_images},
    },
    "patches": {"": partial(files.load_folder, cut=True), ".zip": partial(archives.load_zip, cut=True)},
    "pairs": {"": pairs.load_pairs},
    "unpaired": {"": pairs.load_unpaired},
    "voxels": {
        **{"": voxels.load_files, ".binvox": voxels.load_files},
        **{".npz": voxels.load_arrays, ".npy": voxels.load_arrays},
    },
}
_ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".tgz", ".xz", ".zst")

# What else images are kept in, by endings, and what to do about it.
_SAVE = 'save its images by numpy.savez("images.npz", images=..., labels=...)'
_WRITE = "write its pictures into a folder"
_NOT_READ = {
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle"), f"pickles are not read: {_SAVE}"),
    **dict.fromkeys((".h5", ".hdf5"), f"HDF5 is not read: {_SAVE}"),
    **dict.fromkeys((".mat", ".safetensors"), f"such files are not read: {_SAVE}"),
    **dict.fromkeys((".lmdb", ".mdb"), f"LMDB is not read: {_WRITE}"),
    **dict.fromkeys((".parquet", ".arrow"), f"tables are not read: {_WRITE}"),
    **dict.fromkeys((".tfrecord", ".tfrecords"), f"TFRecords are not read: {_WRITE}"),
}


@dataclass(frozen=True)
class DataConfig:
    """Which images to train on. Their resolution is the model's."""

    source: str = "fashion-mnist"
    """fashion-mnist (10,000 embedded images), toy (procedural), a folder, .zip, .npz or .npy, or a torchvision
    set: mnist, fashion-mnist-full, cifar10, celeba. A name wins over a path; write ./toy for a folder called toy. Pairs
    are folders A and B with equal file names or pictures side by side, two unpaired kinds trainA and trainB. Volumes
    are a folder of meshes and .binvox files, a .binvox, .npy or .npz."""
    mirror: bool = False
    """Flip images left to right, each with probability 1/2 in every epoch."""
    root: str = "~/.cache/gan_engine"
    """Folder of the torchvision sets; they are downloaded into it where there is a network."""


def load(config: DataConfig, *, resolution: int, channels: int | None, kind: str = "image", seed: int = 0) -> ImageSet:
    """Decode a whole source into memory as uint8 [N, channels, resolution, resolution].

    Images that are not square are cut to their centre square; see `modes.plain` for colour and `arrays.pad_digits` for
    28x28 sets. Images that cannot be read are skipped: named in `ImageSet.skipped` and summed up in one warning. Raises
    DataError where nothing is left to train on, or where the source has not what the kind asks for.

    Args:
        channels: 1 for grey, 3 for RGB. None: 3 if any picture has colour, else 1.
        kind: image; patches, images cut into squares of the resolution as they are; pairs or unpaired, images and the
            `source` that a translation starts from; voxels, volumes uint8 [N, 1, resolution, resolution, resolution].
        seed: of toy data.
    """
    if resolution < 1:
        raise DataError(f"resolution must be at least 1, got {resolution}")
    if channels not in (1, 3, None):
        raise DataError(f"channels must be 1 (grey) or 3 (RGB), got {channels}")
    if kind in KINDS and channels == 3 and not KINDS[kind].has_colours:
        raise DataError(f"channels must be 1 for {kind}, got {channels}")
    if not config.source:
        raise DataError(f"data: want one of toy, {', '.join(NAMED)}, a folder, a .zip or an .npz, got ''")
    if config.source == "toy":
        if kind not in toy.KINDS:
            raise DataError(f"toy data comes in the kinds {', '.join(toy.KINDS)}, got {kind!r}")
        return toy.KINDS[kind](resolution=resolution, channels=channels, seed=seed)
    if kind not in READERS:
        raise DataError(f"kind: want one of {', '.join(READERS)}, got {kind!r}")
    if config.source in NAMED:
        if kind != (of := KIND_OF.get(config.source, "image")):
            raise DataError(f"data: want {_wanted(kind)} or toy, got {config.source}, which is {KINDS[of].contents}")
        root = Path(config.root).expanduser()
        data = NAMED[config.source](root, resolution=resolution, channels=channels)
    else:
        data = _load_path(config.source, kind, resolution=resolution, channels=channels)
    for each in filter(None, (data.source, data)):
        if each.skipped:
            warnings.warn(f"{each.name}: skipped {files.summary(each.skipped)}", stacklevel=2)
    return data


def _load_path(source: str, kind: str, *, resolution: int, channels: int | None) -> ImageSet:
    try:
        path = Path(source).expanduser()
        state = path.stat() if path.exists() else None
        is_run = (path / "run.json").is_file()
    except (OSError, RuntimeError) as error:  # of a home or a folder that the user has no way to
        raise DataError(f"data source {source}: want {_wanted(kind)}, got {error}") from None
    if is_run:
        raise DataError(f"data source {source}: want {_wanted(kind)}, got the directory of a run, of sampled pictures")
    if state is not None:
        reader = READERS[kind].get("" if path.is_dir() else path.suffix.lower() or "no suffix")
        if files.of_system(state) or reader is None or not (path.is_dir() or path.is_file()):
            raise DataError(f"data source {source}: want {_wanted(kind)}, got {_got(path, state)}")
        sizes = {"resolution": resolution, "channels": channels}
        return cache.through(path, lambda: reader(path, **sizes), kind=kind, **sizes)
    names = [*NAMED, "toy"]
    near = difflib.get_close_matches(source.lower(), names, n=1)
    raise DataError(
        f"data source {source!r}: no such file or folder, and not one of the names {', '.join(names)}"
        + (f"; did you mean {near[0]}?" if near else "")
    )


def _got(path: Path, state: os.stat_result) -> str:
    """What a path is that cannot be read, and what to do about it."""
    if path.is_dir():
        return "the root of all files" if path.samefile("/") else "a folder of the system"
    if not path.is_file():
        return files.special(state.st_mode)
    name = path.name.lower()
    if name.endswith(_ARCHIVES):
        return f"the file {path.name}; unpack it and name the folder"
    if name.endswith(endings.endings()):
        return f"the picture {path.name}; put the pictures into a folder and name that"
    if zipfile.is_zipfile(path):
        return f"the file {path.name}, a zip archive; call it {path.stem}.zip"
    advice = _NOT_READ.get(path.suffix.lower())
    return f"the file {path.name}" + (f"; {advice}" if advice else "")


def _wanted(kind: str) -> str:
    """What holds data of that kind, in words."""
    *first, last = ["a folder", *filter(None, READERS[kind])]
    return (", ".join(first) + f" or {last}" if first else last) + KINDS[kind].folder_with
