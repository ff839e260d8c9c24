"""The terminal of a run: streams that may lose their reader, and the signals that ask the run to end."""

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO


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
        yield


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
