"""python -m gan_engine.augment: a picture of what augmentation does, with a row for each group of transforms"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from gan_engine.augment import Ada, diff_augment
from gan_engine.augment.ada import GROUPS
from gan_engine.command_line import console, flags
from gan_engine.data import DataConfig, load, to_float
from gan_engine.data.modes import on_white
from gan_engine.models.checks import Sides
from gan_engine.pictures.picture import grid, write_picture
from gan_engine.system.pixels import COLOURS

_LABEL = 96  # pixels


@dataclass(frozen=True)
class Options:
    """Draw a row of images without augmentation, and a row for each group of transforms at probability p."""

    out: Path = Path("augment.png")
    """The picture to write."""
    data: str = DataConfig.source
    """The images, as in training."""
    resolution: Sides = 32
    """Side of the images in pixels, or HEIGHTxWIDTH."""
    channels: int | None = None
    """1 for grey images, 3 for colour images, 4 for colour and transparency. None: grey or colour, like the data."""
    p: float = 1.0
    """Probability of each transform of ada, 0 to 1."""
    num: int = 8
    """Number of images in a row."""
    seed: int = 0
    """Seed of the images and of the transforms."""


def picture(images: torch.Tensor, p: float) -> Image.Image:
    """Rows of images [N, C, H, W] in [-1, 1]: unchanged, then under each group of `Ada`, then under `diff_augment`"""
    rows = {"images": images, **{name: Ada(name, p=p)(images) for name in GROUPS}, "diffaugment": diff_augment(images)}
    strips = [on_white(grid(row, len(row))) for row in rows.values()]
    sheet = Image.new("RGB", (_LABEL + strips[0].width, sum(strip.height for strip in strips)), "white")
    pen, y = ImageDraw.Draw(sheet), 0
    for name, strip in zip(rows, strips, strict=True):
        pen.text((8, y + strip.height / 2), name, fill="black", anchor="lm", font_size=14)
        sheet.paste(strip, (_LABEL, y))
        y += strip.height
    return sheet


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    options = flags.parse(Options, argv, command="augment")
    data = load(DataConfig(source=options.data), resolution=options.resolution, channels=options.channels)
    if (channels := data.images.shape[1]) not in COLOURS:
        raise ValueError(
            f"want 1, 3 or 4 channels, since ada transforms grey and colours, got {channels} in {options.data}"
        )
    torch.manual_seed(options.seed)
    index = torch.randint(len(data.images), (options.num,))
    write_picture(picture(to_float(data.images[index]), options.p), options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    sys.exit(main())
