"""The monitors of a run: metrics, TensorBoard, grids of samples, their animation and a plot of the losses.

Files in the run directory:

    metrics.jsonl               one line {"nimg", "kimg", "time" [Unix seconds], name: value, ...} per report, and
                                {"alarms": [sentence, ...]} beside them where there are some
    tensorboard/                the same for TensorBoard, where it is installed
    samples/kimg-000123.456.png the grid after 123,456 images
    training.gif  losses.png    written when the run ends, like report.html (gan_engine.runs.report)

A monitor never ends a run. If a file cannot be written, for any reason, one warning says so and the run goes on.
"""

import contextlib
import errno
import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gan_engine.data.modes import on_white
from gan_engine.pictures.picture import grid, write_picture
from gan_engine.runs.history import read_metrics
from gan_engine.runs.loss_plot import plot_losses
from gan_engine.runs.sample_grids import animate, sample_grids, sample_path
from gan_engine.system.names import legible
from gan_engine.system.whole_file import replacing, sweep


class Monitors:
    """Reports of one run, in its directory.

    Args:
        run_dir: is made if it is not there.
        tensorboard: write for TensorBoard too. A warning says where it is not installed.
        resume_nimg: the images already shown when a run is started or resumed. Later reports of an earlier process are
            dropped, so that a run that was killed and resumed leaves one history.
    """

    def __init__(self, run_dir: str | Path, *, tensorboard: bool = True, resume_nimg: int | None = None) -> None:
        self.run_dir = Path(run_dir)
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self._metrics = self.run_dir / "metrics.jsonl"
        self._board = None
        self._said: set[tuple[str, str]] = set()
        for directory in (self.run_dir, self.run_dir / "samples"):
            sweep(directory)
        if resume_nimg is not None:
            with self.watching("metrics.jsonl"):
                self._rewind(resume_nimg)
        if tensorboard:
            with self.watching("tensorboard"):
                self._board = _tensorboard(self.run_dir / "tensorboard", resume_nimg)

    @contextlib.contextmanager
    def watching(self, what: str) -> Iterator[None]:
        """Inside, an exception becomes a warning, with the place `what` in the directory, once for each kind."""
        try:
            yield
        except Exception as error:  # plots, pictures and protocol buffers may raise nearly any error
            kind = what.partition("/")[0], type(error).__name__
            if kind not in self._said:
                self._said.add(kind)
                warnings.warn(f"{self.run_dir / what}: not written: {_reason(error)}; the run goes on", stacklevel=3)

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
        if self._board is not None:
            with self.watching("tensorboard"):
                for name, value in values.items():
                    self._board.add_scalar(legible(name), float(value), nimg)
                for sentence in alarms:
                    self._board.add_text("alarms", sentence, nimg)
                self._board.flush()

    def grid(self, nimg: int, images: Tensor, columns: int | None = None) -> Path:
        """Write `images` [N, C, H, W] in [-1, 1] as one picture, samples/kimg-000123.456.png, and return its path."""
        path = sample_path(self.run_dir, nimg)
        with self.watching(f"samples/{path.name}"):
            picture = grid(images, columns)
            if self._board is not None:
                with self.watching("tensorboard"):
                    self._board.add_image(
                        "samples", np.asarray(on_white(picture).convert("RGB")), nimg, dataformats="HWC"
                    )
            path.parent.mkdir(exist_ok=True)
            write_picture(picture, path)
        return path

    def close(self) -> None:
        """Write training.gif (from two grids on) and losses.png."""
        if self._board is not None:
            with self.watching("tensorboard"):
                self._board.close()
            self._board = None
        with self.watching("training.gif"):
            animate(self.run_dir)
        with self.watching("losses.png"):
            plot_losses(self.run_dir)

    def _rewind(self, nimg: int) -> None:
        """Drop reports beyond `nimg`, and a line that a kill has cut in two."""
        for at, path in sample_grids(self.run_dir):
            if at > nimg:
                path.unlink()
        if self._metrics.exists():
            kept = [row for row in read_metrics(self.run_dir) if row["nimg"] <= nimg]
            with replacing(self._metrics) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def _reason(error: Exception) -> str:
    """The message of `error` in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _append_line(path: Path, text: str) -> None:
    """Append `text` as a line, whole or not at all."""
    line = text.encode() + b"\n"
    with open(path, "ab", buffering=0) as file:
        written = file.write(line)
        if written < len(line):
            file.truncate(file.tell() - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _tensorboard(directory: Path, resume_nimg: int | None) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        warnings.warn("nothing is written for TensorBoard: it is not installed (pip install tensorboard)", stacklevel=3)
        return None
    return SummaryWriter(str(directory), purge_step=None if resume_nimg is None else resume_nimg + 1)
