"""Files that are compressed as a whole: they are not read, and messages say what unpacks them."""

from pathlib import Path
from typing import NamedTuple


class Packing(NamedTuple):
    """One way to compress a file, and the program that undoes it."""

    name: str
    tool: str
    start: bytes
    """The first bytes of such a file."""
    endings: dict[str, str]
    """{ending of the packed file: ending that the tool puts in its place}"""


PACKINGS = (
    Packing("gzip", "gunzip", b"\x1f\x8b", {".gz": "", ".tgz": ".tar"}),
    Packing("bzip2", "bunzip2", b"BZh", {".bz2": "", ".tbz": ".tar", ".tbz2": ".tar"}),
    Packing("xz", "unxz", b"\xfd7zXZ\0", {".xz": "", ".txz": ".tar"}),
    Packing("zstd", "unzstd", b"\x28\xb5\x2f\xfd", {".zst": "", ".tzst": ".tar"}),
)
TOOLS = {ending: packing.tool for packing in PACKINGS for ending in packing.endings}


def unpacked(path: Path) -> Path | None:
    """The file that the tool makes of a packed one, by its name: a.tar.gz -> a.tar. None for any other name."""
    for packing in PACKINGS:
        if (new := packing.endings.get(path.suffix.lower())) is not None:
            return path.with_suffix(new)
    return None


def disguised(path: Path) -> str | None:
    """Words for a file whose content is compressed and whose name does not say so. None for another content."""
    with open(path, "rb") as file:
        start = file.read(6)
    for packing in PACKINGS:
        if start.startswith(packing.start):
            real = path.name + next(iter(packing.endings))
            return f"one compressed by {packing.name}; rename it to {real}, and {packing.tool} {real} unpacks it"
    if start.startswith(b"PK\3\4"):
        return f"a zip archive; rename it to {path.stem}.zip"
    return None
