"""The grids of samples in a run directory, samples/kimg-000123.456.png, and training.gif, which plays them."""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from gan_engine.pictures import animation
from gan_engine.system.checkpoint import stem

_NAME = re.compile(r"kimg-(\d+)\.(\d{3})\.png")
CLASSES = 10  # rows, at most, of a grid that has a row for each class
_FRAMES = 80  # at most


def sample_path(run_dir: Path, nimg: int) -> Path:
    """The file of the grid after `nimg` images."""
    return run_dir / "samples" / f"{stem(nimg)}.png"


def sample_grids(run_dir: Path) -> list[tuple[int, Path]]:
    """(nimg, path) of every grid, oldest first."""
    matches = [(_NAME.fullmatch(path.name), path) for path in (run_dir / "samples").glob("kimg-*.png")]
    return sorted((int(match.group(1) + match.group(2)), path) for match, path in matches if match)


def spread(samples: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """Evenly spaced `samples` from the first to the last, at most `most`; damaged ones among these are left out."""
    count = min(len(samples), most)
    chosen = [samples[round(i * (len(samples) - 1) / max(1, count - 1))] for i in range(count)]
    return [sample for sample in chosen if _intact(sample[1])]


def animate(run_dir: str | Path) -> Path | None:
    """Write training.gif, the grids of a run in turn, and return its path. None: fewer than two grids are intact.

    GIF, because mail programs, chats, slides and old viewers play it. Many of them show at most one picture of an
    animated WebP. The 256 colours of a GIF lose nothing of grey grids.
    """
    samples = spread(sample_grids(Path(run_dir)), _FRAMES)
    if len(samples) < 2:
        return None
    path = Path(run_dir) / "training.gif"
    animation.write_history(path, samples)
    return path


def _intact(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.verify()
    except Exception:  # damaged bytes make Pillow raise nearly any error
        return False
    return True
