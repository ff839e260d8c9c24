"""The directory of a run: its name, the claim to it, and the lock that keeps other runs out."""

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two runs out of one directory
    fcntl = None

from gan_engine.config import Config

RUNS = Path("runs")  # where runs without a name are


@contextlib.contextmanager
def claimed(config: Config, start: Path | None) -> Iterator[Path]:
    """Make the run directory and try to write in it. If the body raises, new and empty directories are removed again.

    A numbered directory is claimed by making it, so two runs that start together have different numbers.

    Args:
        config: config.out is the directory. A resumed run keeps its directory if it is None, and a new run gets a
            number.
        start: the checkpoint from which a resumed run goes on.

    Raises ValueError for a directory that cannot be written or holds another run.
    """
    resumed = None if start is None else home(start)
    named = config.out or resumed
    other = named is not None and (resumed is None or named.resolve() != resumed.resolve())
    if other and holds_run(named):
        raise ValueError(f"out: {named} holds a run already; go on with it by --resume {named}, or name another")
    run_dir, made = _make_numbered(config.preset) if named is None else (named, _make(named, may_exist=True))
    try:
        yield run_dir
    except BaseException:
        _remove_empty(made)
        raise


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other processes out of the run directory. The lock ends with the process, however the process ends.

    Raises ValueError where another process has the lock.
    """
    directory = os.open(run_dir, os.O_RDONLY) if fcntl is not None else None
    try:
        if directory is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                try:
                    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(f"out: {run_dir} is in use by another run, which is not over") from None
        yield
    finally:
        if directory is not None:
            os.close(directory)


def holds_run(run_dir: Path) -> bool:
    """True if there is a checkpoint. A run that ended before its first checkpoint has nothing to lose."""
    return any((run_dir / "checkpoints").glob("kimg-*.pt"))


def home(checkpoint: Path) -> Path:
    """The directory of the run that has written `checkpoint`."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def last_run(preset: str | None) -> Path:
    """The run in RUNS, of `preset` if one is named, that was saved last. Raises ValueError if there is none."""
    saved = list(RUNS.glob("*/checkpoints/kimg-*.pt"))
    if preset is not None:
        saved = [path for path in saved if path.parts[-3].rpartition("-")[0] == preset]
    if not saved:
        of_preset = f" of the preset {preset}" if preset else ""
        raise ValueError(f"resume: no run{of_preset} with a checkpoint in {RUNS}/; name its directory")
    return max(saved, key=lambda path: path.stat().st_mtime_ns).parent.parent


def _make(run_dir: Path, *, may_exist: bool) -> list[Path]:
    """Make `run_dir`, try to write in it, and return the directories that are new.

    Raises FileExistsError for a directory that is there and must not be, and ValueError for any other reason.
    """
    made = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
    try:
        run_dir.mkdir(parents=True, exist_ok=may_exist)
        with tempfile.TemporaryFile(dir=run_dir):
            return made
    except OSError as error:
        if isinstance(error, FileExistsError) and not may_exist:
            raise
        _remove_empty(made)
        raise ValueError(f"out: want a directory that can be written, got {run_dir}: {error.strerror}") from None


def _make_numbered(preset: str) -> tuple[Path, list[Path]]:
    """Make the directory with the next number that no other run has, and return it and the directories that are new."""
    while True:
        run_dir = _next_run(preset)
        with contextlib.suppress(FileExistsError):  # another run took the number in between
            return run_dir, _make(run_dir, may_exist=False)


def _remove_empty(directories: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for directory in directories:
            directory.rmdir()


def _next_run(preset: str) -> Path:
    numbers = (path.name.removeprefix(f"{preset}-") for path in RUNS.glob(f"{glob.escape(preset)}-*"))
    return RUNS / f"{preset}-{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"
