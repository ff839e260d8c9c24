"""What a run shows of itself: metrics.jsonl, TensorBoard, sample grids, an animation of them and a plot of the losses.

In the run directory:

    metrics.jsonl               one line {"nimg", "kimg", "time" [Unix seconds], name: value, ...} per report
    tensorboard/                the same for TensorBoard, where it is installed
    samples/kimg-000123.456.png the grid after 123,456 images
    training.gif  losses.png    written when the run ends, as is report.html (see gan_engine.report)

Watching never ends a run: what cannot be written, for whatever reason, is said once and left out.
"""

import contextlib
import errno
import json
import math
import os
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from gan_engine.runs.history import read_metrics
from gan_engine.runs.loss_plot import plot_losses
from gan_engine.system.checkpoint import stem
from gan_engine.system.names import legible
from gan_engine.system.whole_file import replacing, sweep

_SAMPLE = re.compile(r"kimg-(\d+)\.(\d{3})\.png")

# The animation: GIF, because mail programs, chats, slides and old viewers play it where they show of an animated WebP
# one picture or none. Grey grids lose nothing in its 256 colours.
_FRAMES = 80
_SECONDS = 10.0
_LAST_FRAME_SECONDS = 2.5
_SIDE = 720  # pixels, at most


class Monitors:
    """Reports of one run, in its directory.

    Args:
        run_dir: made if need be.
        tensorboard: write for TensorBoard too; where it is not installed, that is said once.
        resume_nimg: the images already shown when a run is started or resumed. What an earlier process reported beyond
            that is dropped, so that a run that was killed and resumed leaves one history.
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
        """Inside, no exception ends the run: the first of its kind is told, with the place `what` in the directory."""
        try:
            yield
        except Exception as error:  # plots, pictures and protocol buffers raise nearly anything
            kind = what.partition("/")[0], type(error).__name__
            if kind not in self._said:
                self._said.add(kind)
                warnings.warn(f"{self.run_dir / what}: not written: {_reason(error)}; the run goes on", stacklevel=3)

    def scalars(self, nimg: int, values: dict[str, float]) -> None:
        """Report `values` after `nimg` images. What is not finite is written as null, which JSON has."""
        with self.watching("metrics.jsonl"):
            numbers = {name: float(value) for name, value in values.items()}
            row = {"nimg": nimg, "kimg": nimg / 1000, "time": round(time.time(), 3)}
            row |= {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            _append_line(self._metrics, json.dumps(row))
        if self._board is not None:
            with self.watching("tensorboard"):
                for name, value in values.items():
                    self._board.add_scalar(legible(name), float(value), nimg)
                self._board.flush()

    def grid(self, nimg: int, images: Tensor, columns: int | None = None) -> Path:
        """Write `images` [N, C, H, W] in [-1, 1] as one picture, samples/kimg-000123.456.png, and return its path."""
        path = sample_path(self.run_dir, nimg)
        with self.watching(f"samples/{path.name}"):
            picture = grid(images, columns)
            if self._board is not None:
                with self.watching("tensorboard"):
                    self._board.add_image("samples", np.asarray(picture.convert("RGB")), nimg, dataformats="HWC")
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
        """Drop what was reported beyond `nimg`, and a line that a kill cut in two."""
        for at, path in sample_grids(self.run_dir):
            if at > nimg:
                path.unlink()
        if self._metrics.exists():
            kept = [row for row in read_metrics(self.run_dir) if row["nimg"] <= nimg]
            with replacing(self._metrics) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def to_uint8(images: Tensor) -> np.ndarray:
    """Images [N, C, H, W] in [-1, 1] as bytes [N, H, W, C]: round(127.5 x + 127.5), clipped, not a number as 0."""
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must be [N, C, H, W] with N > 0 and C 1 or 3, got {list(images.shape)}")
    pixels = (images.detach().float() * 127.5 + 127.5).nan_to_num(0).round().clamp(0, 255)
    return pixels.permute(0, 2, 3, 1).byte().cpu().numpy()


def picture(pixels: np.ndarray) -> Image.Image:
    """Bytes [H, W, C], C 1 or 3, as a grey or colour picture."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def grid(images: Tensor, columns: int | None = None) -> Image.Image:
    """Images [N, C, H, W] in [-1, 1] side by side, row by row, in a near-square picture unless `columns` is given.

    Small images are shown in whole multiples of their pixels, about 64 pixels wide.
    """
    pixels = to_uint8(images)
    n, height, width, channels = pixels.shape
    columns = min(n, columns or math.ceil(math.sqrt(n)))
    scale = max(1, round(64 / max(height, width)))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width, gap = height * scale, width * scale, 2
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 255, np.uint8)
    for i, one in enumerate(pixels):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = one
    return picture(sheet)


def animate(run_dir: str | Path) -> Path | None:
    """Write training.gif, the grids of a run one after the other; None if fewer than two of them are intact."""
    samples = spread(sample_grids(Path(run_dir)), _FRAMES)
    count = len(samples)
    if count < 2:
        return None
    with Image.open(samples[-1][1]) as last:
        size, mode = last.size, last.mode
    shrink = min(1.0, _SIDE / max(size))
    size = tuple(max(1, round(side * shrink)) for side in size)
    frame_ms = int(min(400, max(60, _SECONDS * 1000 / count)))

    path = Path(run_dir) / "training.gif"
    frames = (_frame(at, samples[-1][0], file, size, mode) for at, file in samples)
    with replacing(path) as temporary:
        next(frames).save(
            temporary,
            save_all=True,
            append_images=frames,
            duration=[frame_ms] * (count - 1) + [int(_LAST_FRAME_SECONDS * 1000)],
            loop=0,
        )
    return path


def _reason(error: Exception) -> str:
    """One line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _append_line(path: Path, text: str) -> None:
    """Append `text` as a line, the whole of it or nothing."""
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


def sample_path(run_dir: Path, nimg: int) -> Path:
    """Of the grid after `nimg` images."""
    return run_dir / "samples" / f"{stem(nimg)}.png"


def sample_grids(run_dir: Path) -> list[tuple[int, Path]]:
    """(nimg, path) of every sample grid, oldest first."""
    matches = [(_SAMPLE.fullmatch(path.name), path) for path in (run_dir / "samples").glob("kimg-*.png")]
    return sorted((int(match.group(1) + match.group(2)), path) for match, path in matches if match)


def spread(samples: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """The intact ones among at most `most` of `samples`, evenly spaced from the first to the last."""
    count = min(len(samples), most)
    chosen = [samples[round(i * (len(samples) - 1) / max(1, count - 1))] for i in range(count)]
    return [sample for sample in chosen if _intact(sample[1])]


def _intact(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except Exception:  # Pillow meets arbitrary bytes and raises nearly anything
        return False
    return True


def write_picture(image: Image.Image, path: Path) -> None:
    """Write `image` to `path`, whose ending says how, whole or not at all. Raises OSError."""
    with replacing(path) as temporary:
        image.save(temporary)


def _frame(nimg: int, last_nimg: int, path: Path, size: tuple[int, int], mode: str) -> Image.Image:
    """A grid above a strip that says how far the training was."""
    strip = 28
    dark, light, bar = ((40,), (225,), (0,)) if mode == "L" else ((40,) * 3, (225,) * 3, (0, 114, 178))
    frame = Image.new(mode, (size[0], size[1] + strip), "white")
    with Image.open(path) as image:
        frame.paste(image.convert(mode).resize(size, Image.Resampling.LANCZOS) if image.size != size else image, (0, 0))
    draw = ImageDraw.Draw(frame)
    label = f"{nimg / 1000:,.1f} kimg"
    font = ImageFont.load_default(14)
    middle = size[1] + strip // 2 - 2
    draw.text((6, middle), label, fill=dark, font=font, anchor="lm")
    left = round(draw.textlength(f"{last_nimg / 1000:,.1f} kimg", font=font)) + 18
    right = size[0] - 8
    if right > left:
        draw.rectangle((left, middle - 2, right, middle + 2), fill=light)
        draw.rectangle((left, middle - 2, left + (right - left) * nimg // max(1, last_nimg), middle + 2), fill=bar)
    return frame if mode == "L" else frame.quantize(256)
