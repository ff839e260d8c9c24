"""The progress of a run: a bar on a terminal, and one line for each report in a log file."""

import sys
import time
from typing import TextIO

from tqdm import tqdm


def bar(*, total: int, initial: int, name: str, shown: bool) -> "tqdm | Lines":
    """A bar, or lines, for `total` images, of which `initial` were shown before. It writes only if `shown`."""
    if shown and not sys.stderr.isatty():
        return Lines(total, initial, name)
    options = {"unit": " img", "unit_scale": True, "smoothing": 0.05, "mininterval": 0.5}
    return tqdm(total=total, initial=initial, desc=name, disable=not shown, **options)


class Lines:
    """Stands in for a tqdm bar where standard error is no terminal: it writes whole lines."""

    def __init__(self, total: int, initial: int, name: str) -> None:
        self.total, self.shown, self.name = total, initial, name
        self._then, self._shown_then = time.perf_counter(), initial

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, images: int) -> None:
        self.shown += images

    def set_postfix(self, values: dict[str, str], *, refresh: bool = False) -> None:
        """Write a line: images shown, images per second since the last line, time left, and `values`."""
        now = time.perf_counter()
        rate = (self.shown - self._shown_then) / max(now - self._then, 1e-9)
        self._then, self._shown_then = now, self.shown
        left = tqdm.format_interval((self.total - self.shown) / rate) if rate else "?"
        numbers = "".join(f", {name} {value}" for name, value in values.items())
        self.write(
            f"{self.name} {self.shown / 1000:g} of {self.total / 1000:g} kimg, {rate:.3g} img/s, {left} left{numbers}"
        )

    def write(self, text: str, file: TextIO | None = None) -> None:
        print(text, file=file or sys.stderr, flush=True)
