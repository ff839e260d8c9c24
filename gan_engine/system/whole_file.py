"""Write a file completely or not at all."""

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
    """Yield the path of a new empty file in the folder of `path`. The new file replaces `path` when the block ends.

    If the block raises, the new file is removed and `path` stays as it was. The new file has a random, unused name with
    the ending of `path`, and the permissions that open(path, "w") would leave. If `path` is a link, its target is
    replaced. Raises OSError if the file cannot be made or renamed.
    """
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".gan_engine-{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None  # name the file that the caller knows
    try:
        with contextlib.suppress(OSError):  # `path` does not exist yet, or its file system has no permissions
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # report the first error, not this one
            temporary.unlink(missing_ok=True)
        raise


def sweep(directory: Path) -> None:
    """Remove temporary files that killed processes left in `directory`. No other process may be writing there."""
    for path in directory.glob(".gan_engine-*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
