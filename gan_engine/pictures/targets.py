"""Where pictures go: one file, or a directory of numbered files, found to be writable before any work is done."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

# Endings of files of pictures and volumes. A name with an ending that a command does not write is a mistake, and no
# directory.
_FILES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".npz", ".npy", ".csv", ".obj"}


def is_one_file(out: Path, endings: Sequence[str]) -> bool:
    """True if `out` names one file with one of the `endings`. Otherwise `out` is a directory, or becomes one.

    Raises ValueError for a name with the ending of other files, and FileExistsError for a file in place of a directory.
    """
    names = f"a name ending in {' or '.join(endings)}"
    ending = out.suffix.lower()
    if out.is_dir():
        return False
    if ending in endings:
        return True
    if ending in _FILES:
        raise ValueError(f"out: want {names} or a directory, got {out}")
    if out.is_file():
        raise FileExistsError(f"{out} is a file; want a directory or {names}")
    return False


def numbered(i: int, ending: str = ".png") -> str:
    """The name of file i in a directory, 000000.png and so on."""
    return f"{i:06d}{ending}"


def prepare(files: Sequence[Path], directory: Path, *, overwrite: bool) -> None:
    """Make the `directory` that `files` are in. Raises OSError where it cannot be written.

    Raises FileExistsError where one of the `files` exists, unless `overwrite`.
    """
    existing = next((file for file in files if file.exists()), None)
    if existing is not None and not overwrite:
        raise FileExistsError(f"{existing} exists; --overwrite replaces it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except FileExistsError:
        raise FileExistsError(f"{directory} cannot be written: want a directory, got a file") from None
    except OSError as error:
        raise type(error)(f"{directory} cannot be written: {error.strerror}") from error
