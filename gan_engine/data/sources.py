"""Turn the word after --data into an ImageSet: find its reader in two tables, NAMED and READERS.

A new file format: write reader(path, *, resolution, channels) -> ImageSet in a new module, and one entry in READERS for
each kind of data. A new data set with a name: write loader(root, *, resolution, channels) -> ImageSet, and one entry in
NAMED. If the reader decodes with another library, add the library to `cache.LIBRARIES`, so that a new version decodes
again. A plug-in adds names with `gan_engine.plugins.register_data`.
"""

import difflib
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gan_engine.data import (
    archives,
    arrays,
    braces,
    cache,
    databases,
    endings,
    files,
    folders,
    gaussians,
    packed,
    pairs,
    stacked,
    tables,
    tars,
    torchvision_sets,
    toy,
    voxels,
)
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.kinds import KINDS
from gan_engine.data.planes import WHITE
from gan_engine.system.names import counted, listed
from gan_engine.system.outside import REGISTERED
from gan_engine.system.pixels import BITS, MOST_CHANNELS
from gan_engine.system.random_state import python_and_numpy_seeded
from gan_engine.system.resolution import Resolution, height_width, named, written

NAMED = {
    "fashion-mnist": arrays.load_fashion_mnist,
    stacked.NAME: stacked.load_stacked,
    **gaussians.LOADERS,
    **torchvision_sets.LOADERS,
}
# {name: kind of data}. Plug-ins add names. All other names are single images.
KIND_OF: dict[str, str] = dict.fromkeys(gaussians.LOADERS, "points")
_ARRAYS = (".npz", ".npy")
# Readers of pictures, whole or cut into patches.
_PICTURES: dict[str, Callable[..., ImageSet]] = {
    **{"": folders.load_folder, ".zip": archives.load_zip, ".tar": tars.load_tar},
    **dict.fromkeys((".lmdb", ".mdb"), databases.load_lmdb),
    **dict.fromkeys(tables.ENDINGS, tables.load_table),
}
# {kind of data: {ending: reader}}. The ending of a folder is "".
READERS: dict[str, dict[str, Callable[..., ImageSet]]] = {
    "image": {
        **_PICTURES,
        **dict.fromkeys(_ARRAYS, arrays.load_images),
    },
    "patches": {ending: partial(reader, cut=True) for ending, reader in _PICTURES.items()},
    "pairs": {ending: pairs.load_pairs for ending in ("", ".tar", *tables.ENDINGS)},
    "unpaired": {"": pairs.load_unpaired},
    "voxels": {
        **{"": voxels.load_files, ".binvox": voxels.load_files},
        **dict.fromkeys(_ARRAYS, voxels.load_arrays),
    },
    "points": {},  # these have names only
}
# Formats whose sets come in several files, which braces may name.
_IN_PARTS = (".tar", *tables.ENDINGS)
_ARCHIVES = (".7z", ".rar", ".tar", *packed.TOOLS)
# {ending: where a set of that format has classes} for messages. Other formats have folders.
_CLASSES = {
    **{".npz": "an array labels", ".npy": "an array labels, in an .npz", ".tar": "a folder for each, or .cls files"},
    **dict.fromkeys((".lmdb", ".mdb"), "folders in its keys"),
}

# {ending: what to do} for formats that are not read.
_SAVE = 'save its images by numpy.savez("images.npz", images=..., labels=...)'
_WRITE = "write its pictures into a folder"
_NOT_READ = {
    **dict.fromkeys((".pt", ".pth", ".pkl", ".pickle"), f"pickles are not read: {_SAVE}"),
    **dict.fromkeys((".h5", ".hdf5"), f"HDF5 is not read: {_SAVE}"),
    **dict.fromkeys((".mat", ".safetensors"), f"such files are not read: {_SAVE}"),
    **dict.fromkeys((".tfrecord", ".tfrecords"), f"TFRecords are not read: {_WRITE}"),
}


@dataclass(frozen=True)
class DataConfig:
    """The images to train on. The model decides their resolution."""

    source: str = "fashion-mnist"
    """A name or a path. Names: fashion-mnist (10,000 embedded images), stacked (three of them as the colours of one
    image), toy (drawn), and the torchvision sets mnist, fashion-mnist-full, cifar10, celeba. Paths of images: a folder,
    .zip, .tar (WebDataset), LMDB (.lmdb, .mdb), .parquet, .arrow, .npz or .npy; "shards/{000..012}.tar" names several
    files. Pairs: folders or LMDBs A and B with the same names, pictures side by side, or two pictures for each key of a
    .tar or each row of a .parquet. Two kinds without pairs: folders trainA and trainB. Volumes: a folder of meshes and
    .binvox files, or a .binvox, .npy or .npz file. Points: toy:ring and toy:grid, Gaussians in the plane.
    A name wins over a path: write ./toy for a folder called toy."""
    mirror: bool = False
    """Flip images left to right, each with probability 1/2 in every epoch."""
    root: str = "~/.cache/gan_engine"
    """Folder of the torchvision sets. They are downloaded into it if there is a network."""
    bits: int = 8
    """8, or 16 to keep the values of pictures and of arrays with all their bits."""


def load(
    config: DataConfig, *, resolution: Resolution, channels: int | None, kind: str = "image", seed: int = 0
) -> ImageSet:
    """Decode a whole source as uint8 [N, channels, H, W], or as uint16 if `config.bits` is 16.

    The largest centre of the wanted shape is cut from an image and resized; `modes.to_grey_or_rgb` explains colours,
    and `arrays.pad_digits` the 28x28 images of sets with names. Images that cannot be read are skipped:
    `ImageSet.skipped` lists them, and one warning counts them.

    Args:
        resolution: the side of squares, or (H, W).
        channels: 1 for grey, 3 for RGB, 4 for RGBA, 2 for points, and 2 to 64 for the bands of arrays. None: 3 if any
            picture has colour, else 1, and the channels of an array that has others or 16 bits.
        kind: a name in `kinds.KINDS`. image: single images; patches: images cut into patches of the resolution, without
            resizing; pairs, unpaired: images, and `ImageSet.source` for a translation to start from; voxels: volumes
            uint8 [N, 1, resolution, resolution, resolution]; points: float32 [N, 2].
        seed: seed of toy data, and of the numbers that a plug-in draws from `random` and `numpy.random`.

    Raises:
        DataError: nothing is left to train on, or the source does not hold data of this kind.
    """
    if min(height_width(resolution)) < 1:
        raise DataError(f"resolution must be at least 1, got {written(resolution)}")
    if kind not in READERS:
        raise DataError(f"kind: want one of {', '.join(READERS)}, got {kind!r}")
    if KINDS[kind].axes != 2 and not isinstance(resolution, int):
        raise DataError(f"resolution must be one number for {kind}, got {named(resolution)}")
    _check_pixels(config, kind, channels)
    if not config.source:
        raise DataError(f"data: want one of toy, {', '.join(NAMED)}, {_wanted(kind)}, got ''")
    if config.source in ("toy", stacked.NAME) and channels == 4:
        raise DataError(f"{config.source}: channels must be 1 or 3, got 4: these images have no transparency")
    if config.source == "toy":
        return toy.DRAW[kind](resolution=resolution, channels=channels, seed=seed)
    if config.source in NAMED:
        if kind != (named_kind := KIND_OF.get(config.source, "image")):
            contents = KINDS[named_kind].contents
            raise DataError(f"data: want toy, {_wanted(kind)}, got {config.source}, which holds {contents}")
        root = Path(config.root).expanduser()
        with python_and_numpy_seeded(seed):  # a plug-in may draw from them, and every command reads the same data
            data = NAMED[config.source](root, resolution=resolution, channels=channels)
    else:
        sizes = {"resolution": resolution, "channels": channels}
        data = _load_path(config.source, kind, **sizes, **({"bits": config.bits} if config.bits != 8 else {}))
    for part in filter(None, (data.source, data)):
        if part.skipped:
            warnings.warn(f"{part.name}: skipped {files.summary(part.skipped)}", stacklevel=2)
    return data


def _check_pixels(config: DataConfig, kind: str, channels: int | None) -> None:
    """Raise DataError for channels or bits that the data cannot have, by their name and kind alone."""
    if config.bits not in BITS:
        raise DataError(f"bits must be {' or '.join(map(str, BITS))}, got {config.bits}")
    is_path = config.source != "toy" and config.source not in NAMED
    if config.bits not in KINDS[kind].bits or (config.bits != 8 and not is_path):
        raise DataError(f"bits must be 8 for {KINDS[kind].contents if is_path else config.source}, got {config.bits}")
    of_plug_in = f"data {config.source}" in REGISTERED and KINDS[kind].has_colours
    is_array = of_plug_in or (is_path and KINDS[kind].has_colours and Path(config.source).suffix.lower() in _ARRAYS)
    if channels is None or channels in KINDS[kind].channels or (is_array and 1 <= channels <= MOST_CHANNELS):
        return
    want = f"{KINDS[kind].channels[0]} for {kind}"
    if KINDS[kind].has_colours:
        want = f"1 to {MOST_CHANNELS}" if is_array else "1 (grey), 3 (RGB) or 4 (RGBA)"
    others = "" if is_array or not KINDS[kind].has_colours else "; the arrays of an .npy or .npz may have others"
    raise DataError(f"channels must be {want}, got {channels}{others}")


def _load_path(source: str, kind: str, **sizes: Any) -> ImageSet:
    if not READERS[kind]:
        raise DataError(f"data: want toy, {_wanted(kind)}, got {source}")
    try:
        path = Path(source).expanduser()
        state = path.stat() if path.exists() else None
        is_run = (path / "run.json").is_file()
    except (OSError, RuntimeError) as error:  # there is no such home folder, or no permission
        raise DataError(f"data source {source}: want {_wanted(kind)}, got {error}") from None
    if is_run:
        raise DataError(f"data source {source}: want {_wanted(kind)}, got the directory of a run")
    if state is None and "{" in source:
        reader = _reader_of_parts(source, kind, braces.expand(path))
    elif state is not None:
        reader = READERS[kind].get("" if path.is_dir() else path.suffix.lower() or "no suffix")
        if files.is_system_folder(state) or reader is None or not (path.is_dir() or path.is_file()):
            raise DataError(f"data source {source}: want {_wanted(kind)}, got {_got(path, state, kind)}")
    else:
        names = [*NAMED, "toy"]
        near = difflib.get_close_matches(source.lower(), names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise DataError(f"data source {source!r}: no such file or folder, and no such name ({', '.join(names)}){hint}")

    def decode() -> ImageSet:
        data = reader(path, **sizes)
        for part in filter(None, (data.source, data)):
            if part.bits == 16 and (high := int(part.images.numpy().max())) < arrays.DARKEST:
                warnings.warn(f"{part.name}: {_darkness(high, path)}", stacklevel=2)  # the cache keeps warnings
        return data

    return cache.load_or_decode(path, decode, kind=kind, **sizes)


def _darkness(high: int, path: Path) -> str:
    """The words for images of 16 bits whose largest value is `high`, made of the data at `path`."""
    if not high:
        return "every value is 0, so all images are black"
    # Integers of arrays that need such advice are refused.
    advice = "; if white is 4,095 in files of 16 bits, multiply their values by 16"
    return f"the largest value is {high / WHITE:.2g} of white, so all images are nearly black" + advice * (
        path.suffix.lower() not in _ARRAYS and high < 4096
    )


def _reader_of_parts(source: str, kind: str, parts: Sequence[Path]) -> Callable[..., ImageSet]:
    """The reader of the files that a source with braces names."""
    found = {part.suffix.lower() for part in parts}
    readers = [READERS[kind][ending] for ending in found if ending in _IN_PARTS and ending in READERS[kind]]
    if len(found) > 1 or not readers:
        got = listed([endings.hinted(ending) for ending in sorted(found)])
        raise DataError(f"data source {source}: braces want files {listed(_IN_PARTS)}, got {got}")
    if missing := [str(part) for part in parts if not part.is_file()]:
        want = counted(len(parts), "file")
        raise DataError(f"data source {source}: want {want}, got no {listed(missing, most=3)}")
    return readers[0]


def where_classes(source: str) -> str:
    """The words for a message that the data `source` have no classes: where such data have them."""
    return "" if source in NAMED else _CLASSES.get(Path(source).suffix.lower(), "a folder for each")


def _got(path: Path, state: os.stat_result, kind: str) -> str:
    """Say what a path is that cannot be read, and what to do."""
    if path.is_dir():
        return "the root of all files" if path.samefile("/") else "a folder of the system"
    if not path.is_file():
        return files.name_of_special(state.st_mode)
    name = path.name.lower()
    real = packed.unpacked(path)
    if real is not None and real.suffix and real.suffix.lower() in READERS[kind]:
        return f"the file {path.name}; {packed.TOOLS[path.suffix.lower()]} makes {real.name} of it, which is read"
    if name.endswith(_ARCHIVES):
        return f"the file {path.name}; unpack it and name the folder"
    if name.endswith(endings.endings()):
        return f"the picture {path.name}; put the pictures into a folder and name that folder"
    if zipfile.is_zipfile(path):
        return f"the file {path.name}, a zip archive; rename it to {path.stem}.zip"
    advice = _NOT_READ.get(path.suffix.lower())
    return f"the file {path.name}" + (f"; {advice}" if advice else "")


def _wanted(kind: str) -> str:
    """The sources that may hold data of this kind, as text: 'a folder, .zip, .npz or .npy'."""
    named = [name for name, of in KIND_OF.items() if of == kind]
    *first, last = [f"a folder{KINDS[kind].folder_with}", *filter(None, READERS[kind])] if READERS[kind] else named
    return ", ".join(first) + f" or {last}" if first else last
