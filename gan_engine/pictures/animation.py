"""Frames to a file that plays: animated GIF or WebP, or MP4 by ffmpeg where that is installed."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from gan_engine.system.whole_file import replacing

ENDINGS = (".gif", ".webp", ".mp4")
RATE = 25  # frames per second
_SIDE = 256  # pixels: smaller frames are shown in whole multiples of theirs


def check(path: Path) -> None:
    """Raises ValueError for a name of which no animation can be made here."""
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(f"out: want a name ending in {', '.join(ENDINGS)} for an animation, got {path}")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError(f"out: {path.name} is written by ffmpeg, which was not found; install it, or name a .gif")


def write(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Write frames, bytes [H, W, 1 or 3] of one size, at RATE; a partial file is removed. Raises OSError."""
    large = (_enlarged(frame) for frame in frames)
    with replacing(path) as temporary:
        if path.suffix.lower() == ".mp4":
            _by_ffmpeg(temporary, large)
        else:
            pictures = (Image.fromarray(frame) for frame in large)
            options = {"lossless": True} if path.suffix.lower() == ".webp" else {}
            next(pictures).save(
                temporary, save_all=True, append_images=pictures, duration=1000 // RATE, loop=0, **options
            )


def _enlarged(frame: np.ndarray) -> np.ndarray:
    scale = max(1, _SIDE // max(frame.shape[:2]))
    return np.repeat(frame, 3 // frame.shape[2], axis=2).repeat(scale, axis=0).repeat(scale, axis=1)


def _by_ffmpeg(path: Path, frames: Iterator[np.ndarray]) -> None:
    """`path` is absolute: ffmpeg takes what begins with a dash for an option, and x: for a protocol."""
    first = next(frames)
    height, width = first.shape[:2]
    command = [
        *("ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
        *("-r", str(RATE), "-i", "-", "-pix_fmt", "yuv420p", "-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", str(path)),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            process.stdin.write(first.tobytes())
            for frame in frames:
                process.stdin.write(frame.tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # what it complains of is below
        error = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        raise OSError(f"{path}: ffmpeg failed: {error}")
