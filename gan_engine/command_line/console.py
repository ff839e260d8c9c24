"""The terminal of a command: its exit status, streams that may lose their reader, and signals that ask a run to end."""

import contextlib
import errno
import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

# What a disk may do to a command that was called rightly.
_OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def command(work: Callable[[list[str]], int | None]) -> Callable[[list[str] | None], int]:
    """`work(argv)` as the main of a command, main(argv=None), which returns the exit status.

    The status is 0, or what `work` returns, which says 1 where it could do a part only. It is 2 for a wrong call, which
    is a ValueError, a CheckpointError or an OSError and is told in one line. It is 1 after a failure of the disk, told
    in one line too, and 130 after Ctrl-C. Other errors are faults of the program: they are raised.
    """

    @functools.wraps(work)
    def main(argv: list[str] | None = None) -> int:
        with unbroken(), _plain_warnings():
            try:
                _check_backend()
                return work(sys.argv[1:] if argv is None else argv) or 0
            except KeyboardInterrupt:
                print("aborted", file=sys.stderr)
                return 128 + signal.SIGINT
            except Exception as error:
                status = _status(error)
                if status is None:
                    raise
                print(f"error: {error}", file=sys.stderr)
                return status

    return main


def _check_backend() -> None:
    """Raise ValueError if GAN_ENGINE_BACKEND names no backend, in a command that has imported them."""
    backends = sys.modules.get("gan_engine.backends")  # to import it here would bring torch along
    if backends is not None:
        backends.asked()


def _status(error: Exception) -> int | None:
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return 1
    checkpoint = sys.modules.get("gan_engine.system.checkpoint")  # to import it here would bring torch along
    damaged = () if checkpoint is None else (checkpoint.CheckpointError,)
    return 2 if isinstance(error, (ValueError, OSError, *damaged)) else None


def prog(name: str) -> str:
    """How the command `name` was called, as its usage shows it."""
    script = Path(sys.argv[0]).stem == "gan-engine"
    return f"gan-engine {name}" if script else f"python -m gan_engine.{name}"


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Inside, a warning is a line that begins with its kind, without a place in the code."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


class Unbroken:
    """A text stream that can be written to when its reader is gone: what nobody reads is dropped.

    What the stream cannot encode is written as escapes.

    `train 2>&1 | tee log` is such a case: Ctrl-C reaches both, tee ends first, and the run has yet to save.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._dropped():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # a name in letters that the terminal does not have, or in bytes that are none
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._dropped():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                # What is still in the buffer needs somewhere to go, or Python fails once more when it exits.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                with contextlib.suppress(OSError):
                    os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Inside, standard output and standard error are `Unbroken`."""
    with contextlib.redirect_stdout(Unbroken(sys.stdout)), contextlib.redirect_stderr(Unbroken(sys.stderr)):
        try:
            yield
        finally:  # here, or Python flushes them when it exits, and fails
            sys.stdout.flush()
            sys.stderr.flush()


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Yields a list to which the first SIGINT or SIGTERM is appended; the second does what it did before.

    The handler does nothing else: to print from it could meet a print that it has interrupted.
    """
    caught: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        caught.append(number)
        restore()

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    try:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python does not let us
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, handle)
        yield caught
    finally:
        restore()
