"""A decoded set of images: whole in memory or, where it does not fit, in a file that is mapped into it."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from gan_engine.system.names import legible

# By the number of dimensions: of images, and of volumes.
_CHANNELS = {4: (1, 3), 5: (1,)}


class DataError(ValueError):
    """A source that cannot be trained on. The message is one sentence for the person who chose it."""

    def __init__(self, message: str) -> None:
        super().__init__(legible(message))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """images uint8 [N, C, H, W], grey (C = 1) or RGB (C = 3); labels int64 [N] in [0, num_classes), or None.

    Or volumes uint8 [N, 1, X, Y, Z], 255 where they are occupied and 0 elsewhere.
    """

    name: str
    images: Tensor
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of every image that could not be used."""
    source: "ImageSet | None" = None
    """Images that a translation starts from."""
    paired: bool = False
    """Whether image i of `source` belongs to image i; else the two are sets of any sizes."""
    notes: tuple[str, ...] = ()
    """What a person should know of how the set was read: what was taken for what, and what was left out."""

    def __post_init__(self):
        images, labels = self.images, self.labels
        shape_fits = images.ndim in _CHANNELS and images.shape[1] in _CHANNELS[images.ndim] and len(images) > 0
        if images.dtype != torch.uint8 or not shape_fits:
            raise DataError(
                f"{self.name}: images must be uint8 [N, C, H, W] with N >= 1 and C = 1 or 3, or volumes "
                f"[N, 1, X, Y, Z], got {images.dtype} {list(images.shape)}"
            )
        if self.paired and (self.source is None or len(self.source) != len(images)):
            got = "none" if self.source is None else f"{len(self.source)} images"
            raise DataError(f"{self.name}: want a source of {len(images)} images for as many pairs, got {got}")
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
        """Of the images and labels: two sets with the same one train alike, wherever they were read from."""
        digest = hashlib.sha256(str(list(self.images.shape)).encode())
        for values in (self.images, self.labels):
            if values is not None:
                for part in values.split(1024):  # pairs lie next to each other, and may not fit in memory
                    digest.update(part.contiguous().numpy())
        return digest.hexdigest()

    @property
    def on_disk(self) -> bool:
        """Whether reading an image may wait for a disk."""
        return self.images.untyped_storage().filename is not None

    @property
    def num_classes(self) -> int:
        """0 for a set without labels."""
        return len(self.class_names) if self.labels is not None else 0


def to_float(images: Tensor) -> Tensor:
    """y = x / 127.5 - 1: images uint8 of any shape in [-1, 1], float32, as all networks read them"""
    return images.float().div_(127.5).sub_(1)


def describe(data: ImageSet) -> str:
    """One line for a training log: name, images, size, classes, memory, images that were skipped, and the notes."""
    sets = [data] if data.source is None else [data.source, data]
    count = f"{len(data):,} pairs of" if data.paired else " and ".join(f"{len(each):,}" for each in sets)
    size = "x".join(map(str, data.images.shape[1:]))
    classes = f"{data.num_classes} classes" if data.labels is not None else "no labels"
    unused = sum(len(each.skipped) for each in sets)
    skipped = f", {unused:,} skipped" if unused else ""
    megabytes = sum(each.images.nbytes for each in sets) / 1e6
    where = " on disk" if any(each.on_disk for each in sets) else ""
    notes = "".join(f"; {note}" for note in data.notes)
    return legible(f"{data.name}: {count} images {size}, {classes}, {megabytes:,.1f} MB{where}{skipped}{notes}")


def empty_images(name: str, num: int, channels: int, resolution: int, *, dims: int = 2) -> Tensor:
    """Room for num images, uint8 [num, channels, resolution, resolution]: in memory where they fit, else on disk.

    With `dims` 3 for volumes, which have one more side.

    The file is in TMPDIR or /var/tmp, has no name, and is gone with the process. Of its pages the operating system
    keeps in memory what there is room for. Raises DataError where neither has room.
    """
    sides = (resolution,) * dims
    shape, wanted = (num, channels, *sides), num * channels * resolution**dims
    available = available_bytes()
    if available is None or wanted <= available:
        return torch.empty(shape, dtype=torch.uint8)
    folder = os.environ.get("TMPDIR") or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise DataError(
            f"{name}: {num:,} images of {'x'.join(map(str, shape[1:]))} uint8 need {wanted / 1e9:,.2f} GB, "
            f"{available / 1e9:,.2f} GB of memory and {free / 1e9:,.2f} GB in {folder} are available; "
            "use fewer images or a lower resolution, or set TMPDIR to a folder with more room"
        )
    with tempfile.NamedTemporaryFile(dir=folder, prefix="gan_engine-") as file:
        os.posix_fallocate(file.fileno(), 0, wanted)  # a disk that fills up later would end the process
        storage = torch.UntypedStorage.from_file(file.name, shared=True, nbytes=wanted)
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)


def require_memory(what: str, wanted: int) -> None:
    """An array that cannot be read in parts is refused before it is read, where it does not fit."""
    available = available_bytes()
    if available is not None and wanted > available:
        raise DataError(
            f"{what} need {wanted / 1e9:,.2f} GB of memory, {available / 1e9:,.2f} GB are available; "
            "use fewer images or a lower resolution, or a folder of images, which need not fit"
        )


def available_bytes() -> int | None:
    """Bytes this process can still take: MemAvailable, within the control group's limit, shared with the processes that
    torchrun has started beside it. None where Linux is not.
    """
    try:
        meminfo = _kernel_table("/proc/meminfo")
    except OSError:
        return None
    available = meminfo["MemAvailable:"] * 1024
    try:
        # Page cache is charged to the group too but given back on demand, so only anonymous pages count as taken.
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        available = min(available, limit - _kernel_table("/sys/fs/cgroup/memory.stat")["anon"])
    except (OSError, ValueError):
        pass  # no control group, or its limit is the word "max"
    return available // int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _kernel_table(path: str) -> dict[str, int]:
    """Lines of `key number [unit]` as the kernel prints them."""
    rows = (line.split() for line in Path(path).read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows}
