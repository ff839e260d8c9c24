"""The progress of a run: a bar on a terminal, and one line for each report in a log file."""

import math
import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from gan_engine.training.clock import Clock


def bar(clock: Clock, *, name: str, shown: bool) -> "Bar | Lines":
    """A bar, or lines, for the run that `clock` counts. It writes only if `shown`."""
    return Lines(clock, name) if shown and not sys.stderr.isatty() else Bar(clock, name, shown=shown)


class Bar(tqdm):
    """A bar of images. If the run ends by the clock, the bar fills with the time."""

    def __init__(self, clock: Clock, name: str, *, shown: bool, **options: Any) -> None:
        self.clock, self.timed = clock, clock.limit < math.inf
        self._from = (clock.nimg, clock.seconds)
        if self.timed:
            form = {"total": 1.0, "initial": clock.done, "bar_format": "{desc}: {percentage:3.0f}%|{bar}| {place}"}
        else:
            form = {"total": clock.total, "initial": clock.nimg, "unit": " img", "unit_scale": True}
        super().__init__(desc=name, disable=not shown, **{"smoothing": 0.05, "mininterval": 0.5, **form, **options})

    @property
    def format_dict(self) -> dict[str, Any]:
        clock, (images, seconds) = self.clock, self._from
        rate = (clock.nimg - images) / max(clock.seconds - seconds, 1e-9)
        more = f", {self.postfix}" if self.postfix else ""
        return super().format_dict | {"place": f"{place(clock)}, {_speed(rate)}{more}"}

    def follow(self) -> None:
        """Show what the clock says now."""
        self.update((self.clock.done if self.timed else self.clock.nimg) - self.n)


class Lines:
    """Stands in for a bar where standard error is no terminal: it writes whole lines."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.clock, self.name = clock, name
        self._then, self._shown_then = time.perf_counter(), clock.nimg

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def follow(self) -> None:
        """Nothing: a line comes with a report."""

    def set_postfix(self, values: dict[str, str], *, refresh: bool = False) -> None:
        """Write a line: how far the run is, images per second since the last line, time left, and `values`."""
        now, clock = time.perf_counter(), self.clock
        rate = (clock.nimg - self._shown_then) / max(now - self._then, 1e-9)
        self._then, self._shown_then = now, clock.nimg
        left = ""
        if clock.limit == math.inf:
            left = f", {tqdm.format_interval((clock.total - clock.nimg) / rate) if rate else '?'} left"
        numbers = "".join(f", {name} {value}" for name, value in values.items())
        self.write(f"{self.name} {place(clock)}, {_speed(rate)}{left}{numbers}")

    def write(self, text: str, file: TextIO | None = None) -> None:
        print(text, file=file or sys.stderr, flush=True)


def place(clock: Clock) -> str:
    """How far the run is, in time if it has a limit in time, and in images: "1:20 of 3:00, 31.2 of 100 kimg".

    Times of a run of less than 5 seconds are "0.6 of 1.2 s".
    """
    kimg = f"{clock.nimg / 1000:g}" + (f" of {clock.total / 1000:g}" if clock.total < math.inf else "") + " kimg"
    if clock.limit == math.inf:
        return kimg
    if clock.limit < 5:
        return f"{_seconds(clock.seconds)} of {_seconds(clock.limit)} s, {kimg}"
    return f"{_minutes(clock.seconds)} of {_minutes(clock.limit)}, {kimg}"


def _speed(rate: float) -> str:
    """Images a second with three digits, in full: "1,270 img/s"."""
    return f"{float(f'{rate:.3g}'):,.12g} img/s"


def _seconds(seconds: float) -> str:
    """Seconds with two digits: "0.6"."""
    return f"{float(f'{seconds:.2g}'):g}"


def _minutes(seconds: float) -> str:
    """Minutes and seconds, as on a clock: "3:00"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
