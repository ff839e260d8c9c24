"""The monitors of a run: metrics, grids of samples, their animation, a plot of the losses, and loggers.

Files in the run directory:

    metrics.jsonl               one line {"nimg", "kimg", "time" [Unix seconds], name: value, ...} per report, and
                                {"alarms": [sentence, ...]} beside them where there are some
    samples/kimg-000123.456.png the grid after 123,456 images
    training.gif  losses.png    written when the run ends, like report.html (gan_engine.runs.report)

TensorBoard and the loggers of --loggers (gan_engine.runs.loggers) get the same metrics and grids.

A monitor never ends a run. If a file cannot be written, for any reason, one warning says so and the run goes on. If a
logger fails, it is left alone for ten times as long as its failure took, so that a server that does not answer costs a
run less than a tenth of its time. It does not get later what it missed; metrics.jsonl has everything.
"""

import contextlib
import errno
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gan_engine.data.modes import on_white
from gan_engine.pictures.picture import grid, write_picture
from gan_engine.runs import loggers
from gan_engine.runs.history import read_metrics
from gan_engine.runs.loggers import Logger, LoggerError
from gan_engine.runs.loss_plot import plot_losses
from gan_engine.runs.sample_grids import animate, sample_grids, sample_path
from gan_engine.system.whole_file import replacing, sweep

SILENCE = 10  # a logger that fails is left alone for that many times the time of its failure


class Monitors:
    """Reports of one run, in its directory.

    Args:
        run_dir: is made if it is not there.
        tensorboard: write for TensorBoard too. A warning says where it is not installed.
        log: loggers that must be there, by name.
        config: what the loggers are told about the run, in simple types.
        resume_nimg: the images already shown when a run is started or resumed. Later reports of an earlier process are
            dropped, so that a run that was killed and resumed leaves one history.

    Raises LoggerError if a logger of `log` does not start.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        tensorboard: bool = True,
        log: Sequence[str] = (),
        config: dict[str, Any] | None = None,
        resume_nimg: int | None = None,
    ) -> None:
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = self.run_dir / "metrics.jsonl"
        self._loggers: dict[str, Logger] = {}
        self._silent_until: dict[str, float] = {}  # seconds of time.monotonic()
        self._said: set[tuple[str, str]] = set()
        for directory in (self.run_dir, self.run_dir / "samples"):
            sweep(directory)
        if resume_nimg is not None:
            with self.watching("metrics.jsonl"):
                self._rewind(resume_nimg)
        try:
            for name in dict.fromkeys((*log, *(["tensorboard"] if tensorboard else []))):
                with loggers.asked_for(name) if name in log else self.watching(name):
                    self._loggers[name] = loggers.started(name, self.run_dir, config or {}, resume_nimg)
        except LoggerError:
            self.close_loggers(failed=True)
            raise

    @contextlib.contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Inside, an exception becomes a warning, with the place `what` in the directory, once for each kind."""
        try:
            yield
        except Exception as error:  # plots, pictures and protocol buffers may raise nearly any error
            kind = what.partition("/")[0], type(error).__name__
            if kind not in self._said:
                self._said.add(kind)
                reason = loggers.one_line(error)
                warnings.warn(f"{self.run_dir / what}: not written: {reason}; the run goes on", stacklevel=3)

    def scalars(self, nimg: int, values: dict[str, float], *, alarms: Sequence[str] = ()) -> None:
        """Report `values` and the sentences of `alarms` after `nimg` images.

        Values that are not finite become null, as JSON has no NaN.
        """
        with self.watching("metrics.jsonl"):
            numbers = {name: float(value) for name, value in values.items()}
            row = {"nimg": nimg, "kimg": nimg / 1000, "time": round(time.time(), 3)}
            row |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            row |= {"alarms": list(alarms)} if alarms else {}
            _append_line(self._metrics, json.dumps(row))
        self._tell(lambda logger: logger.scalars(nimg, {name: float(value) for name, value in values.items()}))
        for sentence in alarms:
            self._tell(lambda logger, sentence=sentence: logger.alarm(nimg, sentence))

    def grid(self, nimg: int, images: Tensor, columns: int | None = None) -> Path:
        """Write `images` [N, C, H, W] in [-1, 1] as one picture, samples/kimg-000123.456.png, and return its path."""
        path = sample_path(self.run_dir, nimg)
        with self.watching(f"samples/{path.name}"):
            picture = grid(images, columns)
            self._tell(lambda logger: logger.picture(nimg, on_white(picture).convert("RGB")))
            path.parent.mkdir(exist_ok=True)
            write_picture(picture, path)
        return path

    def close(self, *, failed: bool = False) -> None:
        """Write training.gif (from two grids on) and losses.png, and close the loggers."""
        with self.watching("training.gif"):
            animate(self.run_dir)
        with self.watching("losses.png"):
            plot_losses(self.run_dir)
        self.close_loggers(failed=failed)

    def close_loggers(self, *, failed: bool) -> None:
        """End the loggers, each once; `failed` if an error ends the run."""
        while self._loggers:
            name, logger = self._loggers.popitem()
            with self.watching(name):
                logger.close(failed=failed)

    def _tell(self, report: Callable[[Logger], None]) -> None:
        for name, logger in self._loggers.items():
            began = time.monotonic()
            if began < self._silent_until.get(name, began):
                continue
            with self.watching(name):
                report(logger)
                continue
            now = time.monotonic()
            self._silent_until[name] = now + SILENCE * (now - began)

    def _rewind(self, nimg: int) -> None:
        """Drop reports beyond `nimg`, and a line that a kill has cut in two."""
        for at, path in sample_grids(self.run_dir):
            if at > nimg:
                path.unlink()
        if self._metrics.exists():
            kept = [row for row in read_metrics(self.run_dir) if row["nimg"] <= nimg]
            with replacing(self._metrics) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def _append_line(path: Path, text: str) -> None:
    """Append `text` as a line, whole or not at all."""
    line = text.encode() + b"\n"
    with open(path, "ab", buffering=0) as file:
        written = file.write(line)
        if written < len(line):
            file.truncate(file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
