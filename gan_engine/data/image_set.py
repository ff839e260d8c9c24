"""A decoded set of images, in memory if it fits, else in a file that is mapped into memory."""

import hashlib
import math
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gan_engine.system.names import counted, legible
from gan_engine.system.pixels import MOST_CHANNELS, white
from gan_engine.system.resolution import Resolution, height_width

# {number of dimensions: allowed channels}, for images, for volumes and for points.
_CHANNELS = {4: range(1, MOST_CHANNELS + 1), 5: (1,), 2: (2,)}
# {number of dimensions: types}
_DTYPES = {4: (torch.uint8, torch.uint16), 5: (torch.uint8,), 2: (torch.float32,)}


class DataError(ValueError):
    """Data that cannot be trained on. The message is one sentence for the person who chose the data."""

    def __init__(self, message: str) -> None:
        super().__init__(legible(message))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images uint8 [N, C, H, W], or volumes uint8 [N, 1, X, Y, Z], occupied = 255, else 0, or points float32 [N, 2].

    C = 1: grey; 3: RGB; 4: RGBA, with colours that are not multiplied by the opacity; other C up to 64: bands. Images
    of 16 bits are uint16. PyTorch cannot compute with uint16: see `to_float` and `to_eight_bits`.

    labels: int64 [N] in [0, num_classes), or None. Raises DataError for other shapes and types.
    """

    name: str
    images: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of every image that could not be used."""
    source: "ImageSet | None" = None
    """The input images of a translation."""
    paired: bool = False
    """True: image i of `source` belongs to image i. False: the two sets may have different sizes."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how the data were read: what they were taken for, and what was left out."""

    def __post_init__(self):
        images, labels = self.images, self.labels
        shape_fits = images.ndim in _CHANNELS and images.shape[1] in _CHANNELS[images.ndim] and len(images) > 0
        if not shape_fits or images.dtype not in _DTYPES[images.ndim]:
            raise DataError(
                f"{self.name}: images must be uint8 or uint16 [N, C, H, W] with N >= 1 and C = 1 to {MOST_CHANNELS}, "
                "or volumes [N, 1, X, Y, Z], uint8, or points float32 [N, 2], got "
                f"{images.dtype} {list(images.shape)}"
            )
        if self.paired and (self.source is None or len(self.source) != len(images)):
            got = "none" if self.source is None else counted(len(self.source), "image")
            raise DataError(
                f"{self.name}: want a source of {counted(len(images), 'image')}, one for each pair, got {got}"
            )
        if labels is None:
            return
        if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise DataError(
                f"{self.name}: labels must be int64 [N] = [{len(images)}], got {labels.dtype} {list(labels.shape)}"
            )
        low, high = labels.aminmax()
        if low < 0 or high >= self.num_classes:
            raise DataError(f"{self.name}: labels must lie in [0, {self.num_classes}), got [{low}, {high}]")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def sha256(self) -> str:
        """Checksum of the images and labels. Two sets with the same checksum train alike."""
        digest = hashlib.sha256(str(list(self.images.shape)).encode())
        for values in (self.images, self.labels):
            if values is not None:
                for part in values.split(1024):  # a contiguous copy of the whole set may not fit in memory
                    digest.update(part.contiguous().numpy())
        return digest.hexdigest()

    @property
    def on_disk(self) -> bool:
        """True if the images lie in a file, so that reading one may wait for the disk."""
        return self.images.untyped_storage().filename is not None

    @property
    def bits(self) -> int:
        """The bits of a value: 16 for images uint16, else 8."""
        return 16 if self.images.dtype == torch.uint16 else 8

    @property
    def num_classes(self) -> int:
        """The number of classes; 0 for a set without labels."""
        return len(self.class_names) if self.labels is not None else 0


def to_float(images: Tensor) -> Tensor:
    """y = x / 127.5 - 1: uint8 of any shape -> float32 in [-1, 1], the range of all networks. Points stay.

    y = x / 32767.5 - 1 for uint16.
    """
    if images.is_floating_point():
        return images
    return images.float().div_(white(16 if images.dtype == torch.uint16 else 8) / 2).sub_(1)


def to_eight_bits(images: Tensor) -> Tensor:
    """y = round(x / 257): uint16 of any shape -> uint8. Images uint8 stay."""
    return images.float().div_(257).round_().byte() if images.dtype == torch.uint16 else images


def describe(data: ImageSet) -> str:
    """One line for a training log: name, number of images, size, classes, memory, skipped images, notes."""
    sets = [data] if data.source is None else [data.source, data]
    noun = "point" if data.images.ndim == 2 else "image"
    firsts = "".join(f"{len(part):,} and " for part in sets[:-1])
    what = f"{counted(len(data), 'pair')} of {noun}s" if data.paired else firsts + counted(len(data), noun)
    sides = "x".join(map(str, data.images.shape[1:])) if data.images.ndim > 2 else ""
    sides += f" of {data.bits} bits" if data.bits > 8 else ""
    classes = counted(data.num_classes, "class", "classes") if data.labels is not None else "no labels"
    unused = sum(len(part.skipped) for part in sets)
    skipped = f", {unused:,} skipped" if unused else ""
    megabytes = sum(part.images.nbytes for part in sets) / 1e6
    where = " on disk" if any(part.on_disk for part in sets) else ""
    notes = "".join(f"; {note}" for note in data.notes)
    return legible(
        f"{data.name}: {' '.join(filter(None, (what, sides)))}, {classes}, {megabytes:,.1f} MB{where}{skipped}{notes}"
    )


def empty_images(name: str, num: int, channels: int, resolution: Resolution, *, dims: int = 2, bits: int = 8) -> Tensor:
    """An uninitialised tensor for num images, uint8 [num, channels, H, W] of the resolution, in memory or on disk.

    A tensor that does not fit in memory is mapped from a file in TMPDIR or /var/tmp. The file has no name and
    disappears when the process ends. The operating system keeps as many of its pages in memory as fit.

    Args:
        name: name of the data, for the error message.
        dims: 2 for images; 3 for volumes [num, channels, resolution, resolution, resolution].
        bits: 8; or 16 for uint16.

    Raises:
        DataError: the images fit neither in memory nor on the disk.
    """
    height, width = height_width(resolution)
    shape = (num, channels, *(width,) * (dims - 2), height, width)
    dtype = torch.uint16 if bits == 16 else torch.uint8
    wanted = math.prod(shape) * dtype.itemsize
    available = available_bytes()
    if available is None or wanted <= available:
        return torch.empty(shape, dtype=dtype)
    folder = os.environ.get("TMPDIR") or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise DataError(
            f"{name}: {num:,} images of {'x'.join(map(str, shape[1:]))} uint{bits} need {wanted / 1e9:,.2f} GB, "
            f"{available / 1e9:,.2f} GB of memory and {free / 1e9:,.2f} GB in {folder} are available; "
            "use fewer images or a lower resolution, or set TMPDIR to a folder with more room"
        )
    with tempfile.NamedTemporaryFile(dir=folder, prefix="gan_engine-") as file:
        os.posix_fallocate(file.fileno(), 0, wanted)  # reserve the space: a full disk would kill the process later
        storage = torch.UntypedStorage.from_file(file.name, shared=True, nbytes=wanted)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def require_memory(what: str, wanted: int) -> None:
    """Raise DataError if an array does not fit in memory. Call this before an array that must be read as a whole."""
    available = available_bytes()
    if available is not None and wanted > available:
        raise DataError(
            f"{what} need {wanted / 1e9:,.2f} GB of memory, {available / 1e9:,.2f} GB are available; "
            "use fewer images, a lower resolution, or a folder of images, which need not fit in memory"
        )


def available_bytes() -> int | None:
    """Bytes of memory that this process may still use; None on systems other than Linux.

    The value is MemAvailable, or the memory that the control group still allows if that is less. Processes that
    torchrun has started on this machine share it equally.
    """
    try:
        meminfo = _kernel_table("/proc/meminfo")
    except OSError:
        return None
    available = meminfo["MemAvailable:"] * 1024
    try:
        # The group also counts the page cache, which is given back on demand. Only anonymous pages count as used.
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        available = min(available, limit - _kernel_table("/sys/fs/cgroup/memory.stat")["anon"])
    except (OSError, ValueError):
        pass  # there is no control group, or its limit is the word "max"
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _kernel_table(path: str) -> dict[str, int]:
    """Read a file of lines `key number [unit]`, the format of files in /proc and /sys."""
    rows = (line.split() for line in Path(path).read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows}
