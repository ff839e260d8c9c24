"""Frames become a file that plays: an animated GIF or WebP, or an MP4 by ffmpeg where ffmpeg is installed."""

import contextlib
import errno
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from gan_engine.data.modes import on_white
from gan_engine.system.whole_file import buffered, replacing

ENDINGS = (".gif", ".webp", ".mp4")
RATE = 25  # frames per second
_SMALLEST_SIDE = 256  # pixels: smaller frames are enlarged by a whole number

# The history of a run plays about 10 s in all, then holds its last frame.
_HISTORY_SECONDS = 10.0
_LAST_FRAME_SECONDS = 2.5
_LARGEST_SIDE = 720  # pixels


def check(path: Path) -> None:
    """Raises ValueError if no animation of that name can be made here."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"out: want a name ending in {', '.join(ENDINGS)} for an animation, got {path}")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError(f"out: {path.name} is written by ffmpeg, which was not found; install it, or name a .gif")


def write(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Write frames, bytes [H, W, 1, 3 or 4] of one size, at RATE; a partial file is removed. Raises OSError.

    Transparency is blended with white.
    """
    large = (_enlarged(frame) for frame in frames)
    if path.suffix.lower() == ".mp4":
        with replacing(path) as temporary:
            _write_by_ffmpeg(temporary, large, path)
    else:
        _write_by_pillow(path, (Image.fromarray(frame) for frame in large), 1000 // RATE)


def side_by_side(parts: Sequence[np.ndarray], columns: int) -> Iterator[np.ndarray]:
    """parts, each bytes [N, H, W, C] -> N frames [rows * H, columns * W, C], whose cells are the parts, row by row"""
    for frame in zip(*parts, strict=True):
        yield np.vstack([np.hstack(frame[i : i + columns]) for i in range(0, len(frame), columns)])


def write_history(path: Path, grids: Sequence[tuple[int, Path]]) -> None:
    """Write a GIF of picture files, each above a bar that shows how far the training was.

    Args:
        path: the GIF.
        grids: (images shown so far, picture file), oldest first, at least one. All take the size of the last one.

    Raises OSError.
    """
    with Image.open(grids[-1][1]) as last:
        size, mode = last.size, "L" if last.mode == "L" else "RGB"
    shrink = min(1.0, _LARGEST_SIDE / max(size))
    size = tuple(max(1, round(side * shrink)) for side in size)
    frames = (_above_a_bar(file, nimg, grids[-1][0], size, mode) for nimg, file in grids)
    milliseconds = int(min(400, max(60, _HISTORY_SECONDS * 1000 / len(grids))))
    durations = [milliseconds] * (len(grids) - 1) + [int(_LAST_FRAME_SECONDS * 1000)]
    _write_by_pillow(path, frames, durations)


def _write_by_pillow(path: Path, frames: Iterator[Image.Image], milliseconds: int | list[int]) -> None:
    """Write a GIF or a lossless WebP that repeats for ever; a list of durations has an entry for each frame."""
    options = {"lossless": True} if path.suffix.lower() == ".webp" else {}
    with buffered(path) as file:
        next(frames).save(file, save_all=True, append_images=frames, duration=milliseconds, loop=0, **options)


def _enlarged(frame: np.ndarray) -> np.ndarray:
    frame = np.asarray(on_white(Image.fromarray(frame))) if frame.shape[2] == 4 else frame
    scale = max(1, _SMALLEST_SIDE // max(frame.shape[:2]))
    return np.repeat(frame, 3 // frame.shape[2], axis=2).repeat(scale, axis=0).repeat(scale, axis=1)


def _above_a_bar(path: Path, nimg: int, last_nimg: int, size: tuple[int, int], mode: str) -> Image.Image:
    """The picture in `path` above a strip of 28 pixels: the time in kimg, and a bar that is nimg / last_nimg full."""
    strip = 28
    dark, light, bar = ((40,), (225,), (0,)) if mode == "L" else ((40,) * 3, (225,) * 3, (0, 114, 178))
    frame = Image.new(mode, (size[0], size[1] + strip), "white")
    with Image.open(path) as opened:
        image = on_white(opened)
        frame.paste(image.convert(mode).resize(size, Image.Resampling.LANCZOS) if image.size != size else image, (0, 0))
    draw = ImageDraw.Draw(frame)
    font = ImageFont.load_default(14)
    middle = size[1] + strip // 2 - 2
    draw.text((6, middle), f"{nimg / 1000:,.1f} kimg", fill=dark, font=font, anchor="lm")
    left = round(draw.textlength(f"{last_nimg / 1000:,.1f} kimg", font=font)) + 18
    right = size[0] - 8
    if right > left:
        draw.rectangle((left, middle - 2, right, middle + 2), fill=light)
        draw.rectangle((left, middle - 2, left + (right - left) * nimg // max(1, last_nimg), middle + 2), fill=bar)
    return frame if mode == "L" else frame.quantize(256)


def _write_by_ffmpeg(path: Path, frames: Iterator[np.ndarray], asked: Path) -> None:
    """Write an MP4. `path` must be absolute: ffmpeg reads a leading dash as an option, and x: as a protocol.

    Raises OSError with the number of the system if the disk is full, and otherwise with ffmpeg's message on `asked`.
    """
    first = next(frames)
    height, width = first.shape[:2]
    command = [
        *("ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
        *("-r", str(RATE), "-i", "-", "-pix_fmt", "yuv420p", "-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", str(path)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        # A pipe breaks if ffmpeg ends early, and breaks again where it is closed with a part of a frame.
        with contextlib.suppress(BrokenPipeError):
            for frame in itertools.chain([first], frames):
                process.stdin.write(frame.tobytes())
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        error = " ".join(process.stderr.read().decode(errors="replace").replace(str(path), str(asked)).split())
    if process.returncode != 0:
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            if os.strerror(number) in error:
                raise OSError(number, os.strerror(number))
        raise OSError(f"{asked}: ffmpeg failed: {error or f'exit status {process.returncode}'}")
