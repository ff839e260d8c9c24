"""Names that people have given: as text to read, and as words for a shell."""

import os
import shlex
import unicodedata
from pathlib import Path


def legible(name: str, *, most: int | None = None) -> str:
    """`name` in one line of valid Unicode, of at most `most` characters.

    Control characters, line breaks and bytes that were no UTF-8 become escapes such as \\n and \\udcff.
    """
    text = "".join(c if _visible(c) else c.encode("unicode_escape").decode() for c in name)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def pasted(path: str | Path) -> str:
    """`path` as a word of a POSIX shell, which means this path whatever characters it has, and is not an option."""
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if all(map(_visible, text)):
        return shlex.quote(text)
    plain = set(range(0x20, 0x7F)) - set(b"\\'")
    return "$'" + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(text)) + "'"


def _visible(c: str) -> bool:
    return unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp")
