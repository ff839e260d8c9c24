"""Which files are pictures that can be read, by the endings of their names, and what is said of the others."""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Iterable
from typing import BinaryIO

from PIL import Image

# Pillow's readers for everyday pictures. Naming them keeps the exotic ones out: some start other programs (EPS), some
# never were photographs (HDF5, GRIB).
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")

# Files that lie beside pictures and hold none.
_NO_PICTURES = frozenset(
    f".{ending}"
    for ending in (
        *("aae", "bib", "cfg", "css", "csv", "db", "doc", "docx", "htm", "html", "ini", "ipynb", "js", "json", "jsonl"),
        *("lnk", "lock", "log", "md", "md5", "nfo", "odt", "py", "rst", "rtf", "sh", "sha1", "sha256", "srt", "tex"),
        *("toml", "tsv", "txt", "url", "xls", "xlsx", "xml", "xmp", "yaml", "yml"),
    )
)
_HINTS = dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "pip install pillow-heif")

# What the programs of some systems leave in folders, and what other hidden files and folders begin with.
_LEFT_BEHIND = re.compile(r"(^|/)(\._|__MACOSX|@eaDir|\.(git|cache|thumbnails|ipynb_checkpoints|Trash|DS_Store))")
_ABOUT = re.compile(r"(^|/)([A-Z]{4,}|[Mm]akefile)$")  # README, LICENSE
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX|@eaDir)")
_ENDING = re.compile(r"\.(?=[0-9_~-]*[a-z])[a-z0-9_~-]{1,12}$")


@functools.cache
def formats() -> tuple[str, ...]:
    """The names of Pillow's readers that are used: everyday pictures, and HEIF where pillow-heif is installed."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in (*_FORMATS, "HEIF") if name in Image.OPEN)


@functools.cache
def endings() -> tuple[str, ...]:
    """The endings of files that `formats` reads, in small letters."""
    names = (*formats(), "MPO")  # the JPEGs of some cameras, which Pillow opens as such
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in names))


def ending(path: str) -> str:
    """The ending of a file's name, in small letters; none where what follows the last dot is a number or a sentence."""
    match = _ENDING.search(path.lower().rpartition("/")[2])
    return match[0] if match else ""


def hidden(path: str) -> bool:
    """Whether a file or a folder that it lies in is hidden."""
    return _HIDDEN.search(path) is not None


def begins_like_picture(file: BinaryIO) -> bool:
    """Whether one of the readers takes the first bytes for a picture."""
    start = file.read(16)
    readers = (Image.OPEN[name][1] for name in formats() if name != "DIB")  # which begins with a small number only
    return any(accepts is not None and accepts(start) is True for accepts in readers)


def unread(found: Iterable[str]) -> str:
    """What those may be that are found and not read, in words: 9 .heic (pip install pillow-heif), 1 .psd, 2 hidden."""
    kinds: Counter[str] = Counter()
    for path in found:
        if not hidden(path):
            kind = ending(path) or "without an ending"
            kinds[kind] += kind not in _NO_PICTURES and not _ABOUT.search(path)
        elif path.lower().endswith(endings()) and not _LEFT_BEHIND.search(path):
            kinds["hidden"] += 1
    frequent = (+kinds).most_common()
    said = ", ".join(f"{count:,} {hinted(kind)}" for kind, count in frequent[:6])
    return said + (f" and {sum(count for _, count in frequent[6:]):,} others" if len(frequent) > 6 else "")


def hinted(ending: str) -> str:
    """The ending, and what to install for files that have it."""
    return f"{ending} ({_HINTS[ending]})" if ending in _HINTS else ending
