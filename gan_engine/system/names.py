"""Names that people typed or chose: made readable, quoted for a shell, and matched to the nearest known word."""

import difflib
import os
import shlex
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path


def legible(name: str, *, most: int | None = None) -> str:
    """`name` as one line of valid Unicode, cut to `most` characters.

    Control characters, line breaks and bytes that are not UTF-8 become escapes such as \\n and \\udcff.
    """
    text = "".join(c if _visible(c) else c.encode("unicode_escape").decode() for c in name)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """'a, b, c and 7 more': the first `most` of the names, as legible text."""
    rest = f" and {len(names) - most:,} more" if len(names) > most else ""
    return legible(", ".join(names[:most])) + rest


def counted(num: int, noun: str, plural: str | None = None) -> str:
    """'1 image', '5,000 images': a number with its noun. `plural` None: the noun and an s."""
    return f"{num:,} {noun if num == 1 else plural or noun + 's'}"


def shell_word(path: str | Path) -> str:
    """`path` quoted as one word of a POSIX shell, for any characters in it; never read as an option."""
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if all(map(_visible, text)):
        return shlex.quote(text)
    printable = set(range(0x20, 0x7F)) - set(b"\\'")
    return "$'" + "".join(chr(byte) if byte in printable else f"\\x{byte:02x}" for byte in os.fsencode(text)) + "'"


def nearest(word: str, words: Iterable[str]) -> str:
    """'; did you mean A or B?' with the one or two `words` nearest to `word`, or '' if none is near."""
    likeness = {other: difflib.SequenceMatcher(None, word.lower(), other.lower()).ratio() for other in words}
    least = max(0.65, max(likeness.values(), default=0) - 0.1)
    close = sorted((other for other, ratio in likeness.items() if ratio >= least), key=likeness.get, reverse=True)
    return f"; did you mean {' or '.join(close[:2])}?" if close else ""


def _visible(c: str) -> bool:
    return unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp")
