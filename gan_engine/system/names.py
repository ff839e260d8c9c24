"""Names that people have given: as text to read, and as words for a shell."""

import difflib
import os
import shlex
import unicodedata
from collections.abc import Iterable
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


def nearest(word: str, words: Iterable[str]) -> str:
    """'; did you mean A or B?' of the `words` that are most like `word`, or nothing."""
    likeness = {other: difflib.SequenceMatcher(None, word, other).ratio() for other in words}
    least = max(0.65, max(likeness.values(), default=0) - 0.1)
    close = sorted((other for other, ratio in likeness.items() if ratio >= least), key=likeness.get, reverse=True)
    return f"; did you mean {' or '.join(close[:2])}?" if close else ""


def _visible(c: str) -> bool:
    return unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp")
