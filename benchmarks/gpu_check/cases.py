"""Cases of a stage, the most important first. Each has a time limit, and says in a line how it ended.

The lines, which the check collects:

    case NAME: done, 3.2 s
    case NAME: failed: RuntimeError: ...
    case NAME: stopped after 12 s
    case NAME: skipped: no time is left
    case NAME: stopped at its first CUDA call: ...      (only in a dry run)
"""

import argparse
import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from benchmarks.gpu_check.stages import AT_CUDA


class OutOfTime(BaseException):
    """A case has used up its time. Code that goes on after an Exception does not go on after this."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside this context after `seconds`. Only Python code notices it, not a call that hangs."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    cases: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    cap: float = math.inf,
    share: float = 1,
    dry: bool = False,
) -> int:
    """Run the cases in their order, for `seconds` in all. Returns 1 if one failed, else 0.

    A case has at most `cap` seconds, and at most `share` of the time that is left. A dry run on a machine without a GPU
    goes on to the first CUDA call of each case.
    """
    begin, failed = time.monotonic(), False
    for name, case in cases.items():
        start = time.monotonic()
        limit = min(cap, share * (seconds - (start - begin)))
        if limit <= 0:
            print(f"case {name}: skipped: no time is left", flush=True)
            continue
        try:
            with at_most(limit):
                case()
            how = f"done, {time.monotonic() - start:.1f} s"
        except OutOfTime:
            how = f"stopped after {limit:.0f} s"
        except Exception as error:  # a case must not end those behind it
            text = f"{type(error).__name__}: {str(error).strip() or 'no message'}".splitlines()[0]
            at_cuda = dry and is_first_cuda_call(text)
            failed |= not at_cuda
            how = AT_CUDA + text if at_cuda else f"failed: {text}"
        print(f"case {name}: {how}", flush=True)
    return int(failed)


def is_first_cuda_call(error: str) -> bool:
    """True if the error says that there is no GPU."""
    return not torch.cuda.is_available() and ("CUDA" in error or "NVIDIA" in error)


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that every stage with cases has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rows", type=Path, help="append the measurements to this file, one JSON object a line")
    made.add_argument("--seconds", type=float, default=60, help="time for all cases (default: 60)")
    made.add_argument("--dry-run", action="store_true", help="a missing GPU is no failure")
    return made
