"""Image files inside a zip archive, read as if it were the folder. Nothing is unpacked to disk."""

import contextlib
import io
import zipfile
from pathlib import Path

from gan_engine.data.files import load_files
from gan_engine.data.image_set import DataError, ImageSet
from gan_engine.data.labels import plain_path

_ENCRYPTED, _UTF8 = 0x1, 0x800  # bits of a member's flags


def load_zip(path: Path, *, resolution: int, channels: int | None, cut: bool = False) -> ImageSet:
    """Every image file inside a zip archive. Labels, and `cut`: see `load_files`."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DataError(f"{path}: not a zip archive that can be read ({error})") from error
    with archive:
        entries = [entry for entry in archive.infolist() if not member_path(entry).endswith("/")]
        members = {plain_path(member_path(entry)): entry for entry in entries}  # of one name, the last
        closed = [(name, "encrypted") for name, entry in members.items() if entry.flag_bits & _ENCRYPTED]
        for name, _ in closed:
            del members[name]
        repeated = len(entries) - len(members) - len(closed)
        return load_files(
            path.stem,
            list(members),
            lambda name: io.BytesIO(_read(archive, members[name])),
            closed,
            notes=(f"repeated names: {repeated:,}, of each the last one counts",) if repeated else (),
            resolution=resolution,
            channels=channels,
            cut=cut,
        )


def member_path(entry: zipfile.ZipInfo) -> str:
    """The path of a member with slashes, in UTF-8 where its bytes are that.

    Some programs write UTF-8 without the flag that says so; without it, names are those of old PCs (cp437).
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
