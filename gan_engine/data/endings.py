"""Tell pictures from other files by the endings of their names, and describe the other files."""

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Iterable
from typing import BinaryIO

from PIL import Image

from gan_engine.data import packed
from gan_engine.system.names import counted

# Pillow's readers for common pictures. Its other readers are left out: some start other programs (EPS), and some read
# data that are not pictures (HDF5, GRIB).
_FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TGA", "TIFF", "WEBP")

# Files that are not pictures but often lie in the same folder.
_NO_PICTURES = frozenset(
    f".{ending}"
    for ending in (
        *("aae", "bib", "cfg", "css", "csv", "db", "doc", "docx", "htm", "html", "ini", "ipynb", "js", "json", "jsonl"),
        *("lnk", "lock", "log", "md", "md5", "nfo", "odt", "py", "rst", "rtf", "sh", "sha1", "sha256", "srt", "tex"),
        *("toml", "tsv", "txt", "url", "xls", "xlsx", "xml", "xmp", "yaml", "yml"),
    )
)
# What to do about files that are not read.
_HINTS = dict.fromkeys((".heic", ".heics", ".heif", ".heifs", ".hif"), "pip install pillow-heif") | packed.TOOLS

# Files that some systems and programs leave in folders.
_LEFT_BEHIND = re.compile(r"(^|/)(\._|__MACOSX|@eaDir|\.(git|cache|thumbnails|ipynb_checkpoints|Trash|DS_Store))")
_ABOUT = re.compile(r"(^|/)([A-Z]{4,}|[Mm]akefile)$")  # README, LICENSE
# All hidden files and folders.
_HIDDEN = re.compile(r"(^|/)(\.|__MACOSX|@eaDir)")
_ENDING = re.compile(r"\.(?=[0-9_~-]*[a-z])[a-z0-9_~-]{1,12}$")


@functools.cache
def formats() -> tuple[str, ...]:
    """The names of Pillow's readers that are used: `_FORMATS`, and HEIF if pillow-heif is installed."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(name for name in (*_FORMATS, "HEIF") if name in Image.OPEN)


@functools.cache
def endings() -> tuple[str, ...]:
    """The endings of files that `formats` reads, in small letters."""
    names = (*formats(), "MPO")  # JPEG files of some cameras; Pillow's JPEG reader opens them
    return tuple(sorted(ending for ending, name in Image.registered_extensions().items() if name in names))


def ending(path: str) -> str:
    """The ending of a file name, in small letters: .png. '' if a number or a sentence follows the last dot."""
    match = _ENDING.search(path.lower().rpartition("/")[2])
    return match[0] if match else ""


def hidden(path: str) -> bool:
    """True if a file, or a folder above it, is hidden."""
    return _HIDDEN.search(path) is not None


def begins_like_picture(file: BinaryIO) -> bool:
    """True if the first bytes look like a picture to one of the readers."""
    start = file.read(16)
    # DIB is left out: it begins with a small number, as many other files do.
    readers = (Image.OPEN[name][1] for name in formats() if name != "DIB")
    return any(accepts is not None and accepts(start) is True for accepts in readers)


def unread(paths: Iterable[str]) -> str:
    """Count files that are not read but may be pictures: '9 .heic (pip install pillow-heif), 1 .psd, 2 hidden'."""
    kinds: Counter[str] = Counter()
    for path in paths:
        if not hidden(path):
            kind = ending(path) or "without an ending"
            kinds[kind] += kind not in _NO_PICTURES and not _ABOUT.search(path)
        elif path.lower().endswith(endings()) and not _LEFT_BEHIND.search(path):
            kinds["hidden"] += 1
    frequent = (+kinds).most_common()
    counts = ", ".join(f"{count:,} {hinted(kind)}" for kind, count in frequent[:6])
    return counts + (f" and {counted(sum(count for _, count in frequent[6:]), 'other')}" if len(frequent) > 6 else "")


def hinted(ending: str) -> str:
    """The ending, and what makes files with this ending readable, if anything does."""
    return f"{ending} ({_HINTS[ending]})" if ending in _HINTS else ending
