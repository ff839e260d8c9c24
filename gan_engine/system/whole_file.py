"""Files that are written whole or not at all."""

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

_TEMPORARY = re.compile(r"\.gan_engine-[0-9a-f]{16}(\.\w+)?")


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields the path of a new empty file beside `path`, which takes its name when the block ends.

    If the block raises, the new file goes and `path` is as it was. The new file has the ending of `path`, and a random
    name that no other file has. It has the permissions that open(path, "w") would leave, and a link is followed.

    Raises OSError where the file cannot be made or renamed.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".gan_engine-{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # a person never asked for the other name
    try:
        with contextlib.suppress(OSError):  # there is no such file yet, or its file system has no permissions
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong first is what is to be told
            temporary.unlink(missing_ok=True)
        raise


def sweep(directory: Path) -> None:
    """Remove what a kill has left of `replacing` in `directory`. No other process may be writing there."""
    for path in directory.glob(".gan_engine-*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
