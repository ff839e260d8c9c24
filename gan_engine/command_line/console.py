"""The terminal side of a command: exit status, output streams, and the signals that end a run."""

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
from types import TracebackType
from typing import Any, Protocol, TextIO

from gan_engine.system.whole_file import DISK_ERRORS


class Main(Protocol):
    """The main function of a command: (argv = sys.argv[1:]) -> exit status."""

    def __call__(self, argv: list[str] | None = None) -> int: ...


def command(work: Callable[[list[str]], int | None]) -> Main:
    """Turn `work(argv)` into the main function of a command: main(argv=None) returns the exit status.

    0    `work` returned None or 0
    1    `work` returned 1, because it could do only a part; or the disk failed (one line on standard error)
    2    a wrong call: a ValueError, another OSError, a damaged checkpoint, or a backend that cannot run what it should
         (one line on standard error)
    130  Ctrl-C

    Any other error is a fault of the program, and is raised.
    """

    @functools.wraps(work)
    def main(argv: list[str] | None = None) -> int:
        with safe_streams(), _short_warnings():
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


def short_interrupts() -> None:
    """Make Ctrl-C outside `command` one line and exit status 130, too: python -m imports PyTorch before `main` begins.

    Other errors go to the hook that was there before.
    """
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("aborted", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)
        before(kind, error, trace)

    sys.excepthook = hook


def _check_backend() -> None:
    """Raise ValueError if GAN_ENGINE_BACKEND names no backend. Commands that did not import backends skip the check."""
    backends = sys.modules.get("gan_engine.backends")  # an import here would import torch too
    if backends is not None:
        backends.asked()


def _status(error: Exception) -> int | None:
    for failure in (error, error.__cause__):  # a CheckpointError has the failure of the disk as its cause
        if isinstance(failure, OSError) and failure.errno in DISK_ERRORS:
            return 1
    wrong: list[type[Exception]] = [ValueError, OSError]
    for module, name in (("gan_engine.system.checkpoint", "CheckpointError"), ("gan_engine.backends", "Refused")):
        if (loaded := sys.modules.get(module)) is not None:  # an import here would import torch too
            wrong.append(getattr(loaded, name))
    return 2 if isinstance(error, tuple(wrong)) else None


def prog(name: str) -> str:
    """The words that called the command `name`; its usage line shows them."""
    script = Path(sys.argv[0]).stem == "gan-engine"
    return f"gan-engine {name}" if script else f"python -m gan_engine.{name}"


@contextlib.contextmanager
def _short_warnings() -> Iterator[None]:
    """Print warnings inside this context as `warning: message`, without file and line number."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = before


class SafeStream:
    """A text stream that never fails: text is dropped once the reader is gone, and odd characters become escapes.

    `train 2>&1 | tee log` needs this: Ctrl-C reaches both programs, and tee ends before the run has saved.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._reader_may_be_gone():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:  # such as a file name with characters that the terminal cannot show
                encoding = self._stream.encoding or "ascii"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        with self._reader_may_be_gone():
            self._stream.flush()

    @contextlib.contextmanager
    def _reader_may_be_gone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.EIO):
                # The rest of the buffer goes to /dev/null. Otherwise Python fails once more when it exits.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                with contextlib.suppress(OSError):
                    os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """Make standard output and standard error `SafeStream` inside this context."""
    with contextlib.redirect_stdout(SafeStream(sys.stdout)), contextlib.redirect_stderr(SafeStream(sys.stderr)):
        try:
            yield
        finally:  # flush here: otherwise Python flushes when it exits, and fails
            sys.stdout.flush()
            sys.stderr.flush()


@contextlib.contextmanager
def end_signals() -> Iterator[list[int]]:
    """Yield a list, and append the first SIGINT or SIGTERM to it. The second signal acts as it did before.

    The handler does nothing else. If it printed, it could interrupt a print that is under way.
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
        if threading.current_thread() is threading.main_thread():  # Python forbids handlers in other threads
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, handle)
        yield caught
    finally:
        restore()
