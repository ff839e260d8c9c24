"""Write a file completely or not at all."""

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # the disk fails, and the call was right
_TEMPORARY = re.compile(r"\.gan_engine-[0-9a-f]{16}(\.\w+)?")


class NotWrittenError(OSError):
    """A file that the disk did not take. Its text says which file, why, the space it needs and the space that is free.

    `errno` and `strerror` are those of the system, and `filename` is the file.
    """

    def __init__(self, number: int, reason: str, filename: str, sentence: str) -> None:
        super().__init__(number, reason, filename)
        self._sentence = sentence

    def __str__(self) -> str:
        return self._sentence

    def __reduce__(self) -> tuple:  # a pickle carries the error from one process to another
        return type(self), (self.errno, self.strerror, self.filename, self._sentence)


def why_not_written(path: Path, error: OSError, needs: str) -> str:
    """'PATH: not written: No space left on device; needs about 2.0 MB, 1.5 MB free on that disk'

    needs: such as 'about 2.0 MB'.
    """
    reason, directory = f"{path}: not written: {error.strerror or error}; needs {needs}", Path(os.path.realpath(path))
    if directory.parent.is_dir():
        reason += f", {megabytes(shutil.disk_usage(directory.parent).free)} free on that disk"
    return reason


def megabytes(size: int) -> str:
    """2000000 -> '2.0 MB'"""
    return f"{size / 1e6:.1f} MB"


class InMemory(io.BytesIO):
    """A file in memory that has a name, by which Pillow chooses the format."""

    name = ""


@contextlib.contextmanager
def buffered(path: str | Path) -> Iterator[InMemory]:
    """Yield a file in memory. When the block ends, its bytes become the file `path`, whole or not at all.

    For libraries that end the process, or raise an error without a reason, where the disk is full. Raises what
    `replacing` raises.
    """
    file = InMemory()
    file.name = Path(path).name
    yield file
    content = file.getbuffer()
    with replacing(path, size=len(content)) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: str | Path, *, size: int | None = None) -> Iterator[Path]:
    """Yield the path of a new empty file in the folder of `path`. The new file replaces `path` when the block ends.

    If the block raises, the new file is removed and `path` stays as it was. The new file has a random, unused name with
    the ending of `path`, and the permissions that open(path, "w") would leave. If `path` is a link, its target is
    replaced.

    Args:
        path: the file.
        size: bytes that the file will have, if known, for the message of an error.

    Raises:
        NotWrittenError: the disk is full or fails. An error of the block that names another file stays as it is.
        OSError: `path` is no file but of another kind, or the file cannot be made or renamed for another reason.
    """
    asked, path = Path(path), Path(os.path.realpath(path))
    if path.exists() and not path.is_file():  # a directory, or a device or pipe, which a file would replace
        raise OSError(errno.EINVAL, "want a file, or a name that is not in use, got another kind", str(asked))
    temporary = path.with_name(f".gan_engine-{secrets.token_hex(8)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise _not_written(asked, error, size, 0) from error
        raise type(error)(error.errno, error.strerror, str(path)) from None  # name the file that the caller knows
    written = 0
    try:
        with contextlib.suppress(OSError):  # `path` does not exist yet, or its file system has no permissions
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # report the first error, not this one
            written = temporary.stat().st_size
            temporary.unlink()
        ours = (None, temporary, str(temporary))  # an error that names another file is not about this one
        if isinstance(error, OSError) and error.errno in DISK_ERRORS and error.filename in ours:
            raise _not_written(asked, error, size, written) from error
        raise


def _not_written(path: Path, error: OSError, size: int | None, written: int) -> NotWrittenError:
    needs = f"more than {megabytes(written)}" if size is None else f"about {megabytes(size)}"
    return NotWrittenError(error.errno, error.strerror, str(path), why_not_written(path, error, needs))


def sweep(directory: Path) -> None:
    """Remove temporary files that killed processes left in `directory`. No other process may be writing there."""
    for path in directory.glob(".gan_engine-*"):
        if _TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()
