"""python -m gan_engine.train [PRESET] [--flags]: train a GAN into a run directory."""

import argparse
import contextlib
import signal
import sys
import traceback
from pathlib import Path

import torch

from gan_engine import plugins
from gan_engine.command_line import console
from gan_engine.presets import PRESETS, table
from gan_engine.runs import directory, ending, record
from gan_engine.runs.loggers import LoggerError
from gan_engine.saved_config import from_dict
from gan_engine.system import checkpoint
from gan_engine.system.names import shell_word
from gan_engine.training import distributed
from gan_engine.training.beginning import prepare
from gan_engine.training.distributed import PeerError
from gan_engine.training.nonfinite import NonFiniteError
from gan_engine.training.run_flags import parse
from gan_engine.training.trainer import Trainer


@console.command
def main(argv: list[str]) -> int:
    """Train. The exit status is 0 at the end, 128 + N after signal N (saved), 1 after a failure, 2 for a wrong call."""
    arguments, argv = argv, plugins.from_arguments(argv)
    if argv == ["--list"]:
        print(table())
        return 0
    with contextlib.ExitStack() as until_the_end:
        until_the_end.callback(torch.set_num_threads, torch.get_num_threads())  # the caller may go on in this process
        try:
            trainer = begin(argv, arguments, until_the_end)
        except (ValueError, RuntimeError, OSError) as error:  # CheckpointError, a backend that refuses: RuntimeErrors
            print(f"error: {error}", file=sys.stderr)
            return 2
        return run(trainer)


def begin(argv: list[str], arguments: list[str], until_the_end: contextlib.ExitStack) -> Trainer:
    """The trainer, ready for its first step, in a run directory that is locked; the first process prints the start.

    Args:
        argv: the command line without its plug-ins, which are loaded already.
        arguments: the whole command line, for run.json.
        until_the_end: keeps the lock and the group of processes.

    Raises ValueError, RuntimeError or OSError for everything that stands against the run. Nothing is left then.
    """
    resumed, state = find_checkpoint(argv), None
    if resumed is None:
        config = parse(argv)
    else:
        state = checkpoint.load(resumed)
        checkpoint.require(state, ("config",), resumed)
        config = parse(argv, from_dict(state["config"], resumed))
    processes, device = until_the_end.enter_context(distributed.joined(config.device))
    with contextlib.ExitStack() as claim:
        run_dir = processes.from_first(lambda: claim.enter_context(directory.claimed(config, resumed)))
        processes.from_first(lambda: until_the_end.enter_context(directory.locked(run_dir)))
        start = failure = None
        try:
            start = prepare(config, run_dir, device=device, processes=processes, resumed=resumed, state=state)
            if processes.first:
                print("\n".join(start.lines()), end="\n\n", flush=True)
                record.write(run_dir, start.trainer.config, {"arguments": arguments, **start.entry()})
        except Exception as error:
            failure = error
        processes.agree(failure)
    return start.trainer


def find_checkpoint(argv: list[str]) -> Path | None:
    """The checkpoint that --resume names. It is found before the other flags are parsed: its run is their default.

    Raises CheckpointError or ValueError where there is none.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", nargs="?")
    parser.add_argument("--out", nargs="?")
    parser.add_argument("--init-from", "--init_from", nargs="?")
    flags, _ = parser.parse_known_args(argv)
    if not flags.resume or {"-h", "--help"} & set(argv):
        return None
    if flags.init_from is not None:
        raise ValueError("init_from: want a new run, got --resume beside it; a run that goes on has weights of its own")
    if flags.resume != "latest":
        return checkpoint.find(flags.resume)
    return checkpoint.find(flags.out or directory.last_run(argv[0] if argv[0] in PRESETS else None))


def run(trainer: Trainer) -> int:
    """Carry out the run, say how it ended, and return the exit status."""
    processes = trainer.processes
    try:
        stopped_by = trainer.run()
    except (NonFiniteError, checkpoint.CheckpointError, LoggerError, PeerError) as error:
        processes.announce(error)
        if processes.first or not isinstance(error, NonFiniteError):  # all processes meet a NonFiniteError together
            print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # a fault of the program or of the disk, hours after the call was found right
        traceback.print_exc()  # at once: to announce the error may take long
        processes.announce(error)
        return 1
    except KeyboardInterrupt:
        processes.announce(RuntimeError("aborted"))
        saved = directory.holds_run(trainer.run_dir)
        again = (
            f"--resume={shell_word(trainer.run_dir)} goes on from the last checkpoint" if saved else "nothing was saved"
        )
        print(f"aborted; {again}", file=sys.stderr)
        return 128 + signal.SIGINT
    if processes.first:
        clock = trainer.clock
        end = ending.End(clock.nimg, clock.seconds, stopped_by, out_of_time=clock.out_of_time, verdict=trainer.verdict)
        ending.finish(trainer.run_dir, trainer.config, end)
    return 0 if stopped_by is None else 128 + stopped_by


if __name__ == "__main__":
    sys.exit(main())
