"""python -m gan_engine.train [PRESET] [--flags]: train a GAN into a run directory."""

import argparse
import contextlib
import dataclasses
import glob
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two runs out of one directory
    fcntl = None

from gan_engine import backends, models, plugins
from gan_engine.command_line import console
from gan_engine.command_line.run_flags import parse
from gan_engine.config import Config, from_dict
from gan_engine.data import ImageSet, describe, load
from gan_engine.data.kinds import kind_of
from gan_engine.presets import PRESETS, table
from gan_engine.runs import ending, record
from gan_engine.system import checkpoint, malloc
from gan_engine.system.devices import busy_cpus, choose_device
from gan_engine.system.names import shell_word
from gan_engine.training import distributed, memory, transfer
from gan_engine.training.beginning import Start
from gan_engine.training.distributed import PeerError, Processes
from gan_engine.training.nonfinite import NonFiniteError
from gan_engine.training.precision import resolve
from gan_engine.training.trainer import Trainer

RUNS = Path("runs")


def with_classes(config: Config, data: ImageSet) -> Config:
    """`config` with the number of classes of `data`, where it asks for classes."""
    if not config.conditional:
        return config
    if not data.num_classes:
        raise ValueError(f"conditional: want data with classes (a folder for each), got {describe(data)}")
    return dataclasses.replace(config, model=dataclasses.replace(config.model, c_dim=data.num_classes))


def with_channels(config: Config, data: ImageSet) -> Config:
    """`config` with the channels of `data`, where it leaves them to the data."""
    if not config.channels_of_data:
        return config
    channels = data.images.shape[1]
    try:
        model = dataclasses.replace(config.model, channels=channels)
    except ValueError as error:
        raise ValueError(f"{error}, as {data.name} has {colour(channels)} images") from None
    return dataclasses.replace(config, model=model, channels_of_data=False)


def colour(channels: int) -> str:
    """In words."""
    return "colour" if channels == 3 else "grey"


def read(config: Config) -> ImageSet:
    """The data of a run, in the channels that it has or leaves to them. Toy data are painted in any, so in its own."""
    model, source = config.model, config.data_config
    channels = None if config.channels_of_data and source.source != "toy" else model.channels
    kind = models.data_kind(model)
    data = load(source, resolution=model.resolution, channels=channels, kind=kind, seed=config.seed)
    if not kind_of(kind).has_colours:
        return data
    of = data.images.shape[1]
    found = [f"{colour(of)} images"] if channels is None else []
    return dataclasses.replace(data, notes=(*data.notes, *found, f"trained in {colour(of)} (channels {of})"))


def find_start(argv: list[str]) -> Path | None:
    """The checkpoint that the command line asks to go on from, found before the rest is parsed: its run says the rest.

    Raises CheckpointError or ValueError where there is none.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", nargs="?")
    parser.add_argument("--out", nargs="?")
    parser.add_argument("--init-from", "--init_from", nargs="?")
    asked, _ = parser.parse_known_args(argv)
    if not asked.resume or {"-h", "--help"} & set(argv):
        return None
    if asked.init_from is not None:
        raise ValueError("init_from: want a new run, got --resume beside it; a run that goes on has weights of its own")
    if asked.resume != "latest":
        return checkpoint.find(asked.resume)
    return checkpoint.find(asked.out or _last_run(argv[0] if argv[0] in PRESETS else None))


@contextlib.contextmanager
def claimed(config: Config, start: Path | None) -> Iterator[Path]:
    """The run directory, made and found to be writable; if the body raises, what was made and is empty goes again.

    A number is taken by making its directory, so that of two runs that start together each has its own.
    Raises ValueError for a directory that cannot be had or holds another run.
    """
    home = None
    if start is not None:
        home = start.parent.parent if start.parent.name == "checkpoints" else start.parent
    run_dir = config.out or home
    if run_dir is not None and _holds_run(run_dir) and (home is None or run_dir.resolve() != home.resolve()):
        raise ValueError(f"out: {run_dir} holds a run already; go on with it by --resume {run_dir}, or name another")
    named, made = run_dir is not None, []
    while True:
        run_dir = run_dir if named else _next_run(config.preset)
        try:
            made = [path for path in (run_dir, *run_dir.parents) if not path.exists()]
            run_dir.mkdir(parents=True, exist_ok=named)
            with tempfile.TemporaryFile(dir=run_dir):
                break
        except OSError as error:
            if named or not isinstance(error, FileExistsError):
                _remove_empty(made)
                raise ValueError(
                    f"out: want a directory that can be written, got {run_dir}: {error.strerror}"
                ) from None
    try:
        yield run_dir
    except BaseException:
        _remove_empty(made)
        raise


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other processes out of the run directory; the lock goes with the process, however it ends.

    Raises ValueError where another process has it.
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


def _remove_empty(directories: list[Path]) -> None:
    with contextlib.suppress(OSError):
        for directory in directories:
            directory.rmdir()


def _holds_run(run_dir: Path) -> bool:
    """Whether there is something to lose: a run that ended before its first checkpoint may begin anew."""
    return any((run_dir / "checkpoints").glob("kimg-*.pt"))


def _next_run(preset: str) -> Path:
    numbers = (path.name.removeprefix(f"{preset}-") for path in RUNS.glob(f"{glob.escape(preset)}-*"))
    return RUNS / f"{preset}-{max((int(number) for number in numbers if number.isdecimal()), default=0) + 1}"


def _last_run(preset: str | None) -> Path:
    """The run in RUNS, of `preset` if one is named, that was saved last."""
    saved = [path for path in RUNS.glob("*/checkpoints/kimg-*.pt")]
    if preset is not None:
        saved = [path for path in saved if path.parts[-3].rpartition("-")[0] == preset]
    if not saved:
        of_preset = f" of the preset {preset}" if preset else ""
        raise ValueError(f"resume: no run{of_preset} with a checkpoint in {RUNS}/; name its directory")
    return max(saved, key=lambda path: path.stat().st_mtime_ns).parent.parent


def prepare(
    config: Config,
    run_dir: Path,
    start: Path | None,
    state: dict[str, Any] | None,
    *,
    device: str,
    processes: Processes,
) -> tuple[Trainer, dict]:
    """The trainer, at the beginning of a run or where `state` was saved, and what run.json says of this start.

    The first process prints the start lines. Raises ValueError, RuntimeError or OSError for whatever stands against the
    run.
    """
    device = choose_device(device)
    resolve(config.precision, device)  # before the data are read
    initial = transfer.read(config.init_from, config.model) if config.init_from and state is None else None
    memory.require(config, device)
    allocator = malloc.tune() if config.tune_malloc and device.type == "cpu" else None
    data = processes.one_per_machine_first(lambda: read(config))
    config = with_classes(with_channels(config, data), data)
    torch.backends.cudnn.benchmark = True  # batches have one shape all through a run
    x = torch.empty(1, device=device)
    ops = {op: backends.choose(op, x) for op in backends.ops()}
    trainer = Trainer(config, data, device=device, run_dir=run_dir, processes=processes)
    config = trainer.config
    taken = {} if initial is None else transfer.begin(trainer.G, trainer.D, trainer.G_ema, *initial)
    if state is not None:
        trainer.load_state_dict(state, source=start)
        ended = trainer.nimg == trainer.clock.total and not ending.is_over(
            run_dir, start
        )  # killed while it was writing
        if trainer.nimg >= trainer.clock.total and not ended:
            raise ValueError(
                f"kimg: {start} is at {trainer.nimg / 1000:g} of {config.kimg:g} kimg; go on with a larger --kimg"
            )

    reason = busy_cpus(torch.get_num_threads()) if device.type == "cpu" and processes.size == 1 else None
    if reason is not None:
        warnings.warn(reason, stacklevel=2)
    source = None if initial is None else initial[0]
    begun = Start(trainer, data, resumed=start, initial=source, taken=taken, allocator=allocator, ops=ops)
    if processes.first:
        print("\n".join(begun.lines()), end="\n\n", flush=True)
    return trainer, begun.entry()


@console.command
def main(argv: list[str]) -> int:
    """Train. The exit status is 0 at the end, 128 + N after signal N (saved), 1 after a failure, 2 for a wrong call."""
    asked, argv = argv, plugins.from_arguments(argv)
    if argv == ["--list"]:
        print(table())
        return 0
    with contextlib.ExitStack() as until_the_end:
        try:
            start, state = find_start(argv), None
            if start is None:
                config = parse(argv)
            else:
                state = checkpoint.load(start)
                checkpoint.require(state, ("config",), start)
                config = parse(argv, from_dict(state["config"], start))
            processes, device = until_the_end.enter_context(distributed.joined(config.device))
            with contextlib.ExitStack() as claim:
                run_dir = processes.from_first(lambda: claim.enter_context(claimed(config, start)))
                processes.from_first(lambda: until_the_end.enter_context(locked(run_dir)))
                trainer = failure = None
                try:
                    trainer, entry = prepare(config, run_dir, start, state, device=device, processes=processes)
                    if processes.first:
                        record.write(run_dir, trainer.config, {"arguments": asked, **entry})
                except Exception as error:
                    failure = error
                processes.agree(failure)
        except (ValueError, RuntimeError, OSError) as error:  # CheckpointError, a backend that refuses: RuntimeErrors
            print(f"error: {error}", file=sys.stderr)
            return 2
        del state  # as large as the run's networks and optimisers
        try:
            stopped_by = trainer.run()
        except (NonFiniteError, checkpoint.CheckpointError, PeerError) as error:
            processes.announce(error)
            if processes.first or not isinstance(error, NonFiniteError):  # which all processes meet together
                print(f"error: {error}", file=sys.stderr)
            return 1
        except Exception as error:  # a fault of the program, or of the disk, hours after the call was found right
            traceback.print_exc()  # before taking leave of the others, which may take long
            processes.announce(error)
            return 1
        except KeyboardInterrupt:
            processes.announce(RuntimeError("aborted"))
            again = (
                f"--resume={shell_word(run_dir)} goes on from the last checkpoint"
                if _holds_run(run_dir)
                else "nothing was saved"
            )
            print(f"aborted; {again}", file=sys.stderr)
            return 128 + signal.SIGINT
        if processes.first:
            ending.finish(run_dir, trainer.config, trainer.nimg, trainer.clock.seconds, stopped=stopped_by is not None)
        return 0 if stopped_by is None else 128 + stopped_by


if __name__ == "__main__":
    sys.exit(main())
