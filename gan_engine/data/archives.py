"""Read image files inside a zip archive as if it were a folder. Nothing is unpacked to disk."""

import contextlib
import io
import zipfile
from pathlib import Path
from typing import Any

from gan_engine.data.files import load_files
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.label_tables import plain_path
from gan_engine.system.resolution import Resolution

_ENCRYPTED, _UTF8 = 0x1, 0x800  # bits in the flags of an archive member


def load_zip(path: Path, *, resolution: Resolution, channels: int | None, **options: Any) -> ImageSet:
    """Read every image file in a zip archive. `load_files` explains the labels and `options`. Raises DataError."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DataError(f"{path}: want a readable zip archive, got {type(error).__name__}: {error}") from error
    with archive:
        entries = [entry for entry in archive.infolist() if not member_path(entry).endswith("/")]
        members = {plain_path(member_path(entry)): entry for entry in entries}  # a repeated name: the last one counts
        closed = [(name, "encrypted") for name, entry in members.items() if entry.flag_bits & _ENCRYPTED]
        for name, _ in closed:
            del members[name]
        repeated = len(entries) - len(members) - len(closed)
        return load_files(
            path.stem,
            list(members),
            lambda name: io.BytesIO(_read(archive, members[name])),
            closed,
            notes=(f"repeated names: {repeated:,}, the last file of each name counts",) if repeated else (),
            resolution=resolution,
            channels=channels,
            **options,
        )


def member_path(entry: zipfile.ZipInfo) -> str:
    """The path of an archive member, with slashes, decoded as UTF-8 if possible.

    zipfile decodes a name without the UTF-8 flag as cp437, the code page of old PCs. Some programs write UTF-8 names
    without this flag, so such a name is decoded again here.
    """
    name = entry.filename
    if not entry.flag_bits & _UTF8 and not name.isascii():
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)
    except NotImplementedError:
        method = zipfile.compressor_names.get(entry.compress_type, entry.compress_type)
        raise ValueError(f"compressed by the method {method}, which this Python cannot read") from None
