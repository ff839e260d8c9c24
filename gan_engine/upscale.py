"""Larger pictures: `python -m gan_engine.upscale IN OUT --checkpoint RUN`, for families that enlarge.

IN is a file or a folder, OUT a .png or a folder. Large pictures are made in tiles without seams.

Every picture is written before it is compared with its original. A picture that cannot be read or compared is named on
standard error, and the others are made. The exit status is then 1.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from torch import Tensor

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.data.decode import pixels
from gan_engine.data.files import pictures, walk
from gan_engine.inference.generator import load
from gan_engine.inference.tiles import enlarge
from gan_engine.metrics import enlargements
from gan_engine.metrics.perceptual import PIP, PerceptualDistance, installed
from gan_engine.models.checks import check_at_least, check_types
from gan_engine.pictures import files
from gan_engine.pictures.files import Job
from gan_engine.system import fields
from gan_engine.system.devices import choose_device


@dataclass(frozen=True)
class Options:
    """Enlarge pictures with the averaged generator of a checkpoint."""

    input: Annotated[fields.Positional[Path], fields.arg(metavar="IN")]
    """A picture, or a folder of pictures."""
    out: Annotated[fields.Positional[Path], fields.arg(metavar="OUT")]
    """A name that ends in .png, or a directory."""
    checkpoint: Path
    """A checkpoint, or the directory of a run, whose newest intact checkpoint is used."""
    best: bool = False
    """Use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    original: Path | None = None
    """The original to compare with, or a folder of originals with the names of the pictures.
    Prints PSNR, SSIM and, with the extra "perceptual", a perceptual distance.
    A picture is enlarged even if its original is missing or has another size."""
    tile: int = 256
    """Side of the tiles in pixels of the source. Smaller tiles need less memory."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in. Once for each."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one."""
    overwrite: bool = False
    """Replace files that exist."""

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 16, "tile")


def upscale(options: Options) -> tuple[list[str], list[str]]:
    """Do what the command line asks.

    Returns:
        Two lists. The first has a line for each picture that was compared, and a last line with the means. The second
        has a sentence for each picture that could not be read, or was written and could not be compared.

    Raises:
        ValueError: a generator that does not enlarge, or no original at all; see also `files.jobs`.
        CheckpointError: see `load`.
        OSError: there is nothing to read, or `out` exists or cannot be written.
    """
    plugins.load(*options.plugin)
    device = choose_device(options.device)
    todo = files.jobs(options.input, options.out, overwrite=options.overwrite)
    originals = _originals(options, todo)
    G = load(options.checkpoint, device, best=options.best).network
    config = G.config
    if models.capabilities(config).command != "upscale":
        families = " or ".join(models.names(lambda other: other.command == "upscale"))
        raise ValueError(f"{options.checkpoint}: want a generator of {families}, got {models.family(config)}")
    perceptual = None
    if originals and installed():
        perceptual = PerceptualDistance().to(device)
    elif originals:
        warnings.warn(f"no perceptual distances: pip install {PIP} brings them", stacklevel=2)
    compared: dict[Path, list[list[float]]] = {}
    remarks: list[str] = []

    def read(path: Path, remarks: list[str] | None = None) -> Tensor:
        return files.to_tensor(pixels(files.read(path, config.channels, remarks=remarks)))

    def make(path: Path) -> Image.Image:
        return files.to_picture(enlarge(G, read(path, remarks), tile=options.tile))

    def compare(path: Path, made: Image.Image) -> None:
        if not originals:
            return
        original = _original(originals[path], path, made, config)
        img = files.to_tensor(pixels(made))
        try:
            compared[path] = enlargements.compare(img, read(path), original, scale=config.scale, perceptual=perceptual)
        except ValueError as error:
            raise ValueError(f"{path}: not compared: {originals[path]}: {error}") from None

    failures = files.convert(todo, make, compare)
    files.warn_of(options.input, remarks)
    return _lines(compared, len(todo)), failures


def _original(path: Path | None, source: Path, made: Image.Image, config: models.Config) -> Tensor:
    """The original of `made`. Raises ValueError, which says why there is no comparison."""
    if path is None:
        raise ValueError(f"{source}: not compared: there is no original of that name")
    try:
        original = files.read(path, config.channels)
    except ValueError as error:
        raise ValueError(f"{source}: not compared: {error}") from None
    if original.size != made.size:
        raise ValueError(
            f"{source}: not compared: {path}: want {made.width}x{made.height} pixels, {config.scale} times those of "
            f"{source.name}, got {original.width}x{original.height}"
        )
    return files.to_tensor(pixels(original))


def _originals(options: Options, todo: list[Job]) -> dict[Path, Path | None]:
    """The original of each picture, found by its place and name up to the ending; {} where none is asked for."""
    if options.original is None:
        return {}
    if not options.original.exists():
        raise FileNotFoundError(f"original: {options.original}: no such file or folder")
    if not options.original.is_dir():
        if options.input.is_dir():
            raise ValueError(f"original: want a folder for the pictures of {options.input}, got {options.original}")
        return {options.input: options.original}
    files = pictures(str(options.original), walk(options.original)[0])
    by_stem: dict[Path, Path] = {}
    for file in files:
        other = by_stem.setdefault(Path(file).with_suffix(""), options.original / file)
        if other != options.original / file:
            raise ValueError(f"original: want one picture of each name, got {other.name} and {Path(file).name}")
    root = options.input if options.input.is_dir() else options.input.parent
    found = {path: by_stem.get(path.relative_to(root).with_suffix("")) for path, _ in todo}
    if not any(found.values()):
        name = next(iter(found)).name
        raise ValueError(f"original: want a picture of each name in {options.original}, got none of {name}")
    return found


def _lines(compared: dict[Path, list[list[float]]], wanted: int) -> list[str]:
    lines = [_line(path.name, values) for path, values in compared.items()]
    if len(compared) > 1:
        tables = (zip(*rows) for rows in zip(*compared.values()))  # columns of our pictures, and of bicubic ones
        means = [[sum(column) / len(compared) for column in columns] for columns in tables]
        lines.append(_line("mean" if len(compared) == wanted else f"mean of {len(compared)} of {wanted}", means))
    return lines


def _line(name: str, compared: list[list[float]]) -> str:
    ours, bicubic = compared
    # The perceptual distance is the last number, and may be missing.
    shown = ", ".join(["PSNR {:.2f} dB", "SSIM {:.4f}", "perceptual {:.4f}"][: len(ours)]).format(*ours)
    beside = ", ".join(["{:.2f} dB", "{:.4f}", "{:.4f}"][: len(ours)]).format(*bicubic)
    return f"{name}: {shown} (bicubic {beside})"


@console.command
def main(argv: list[str]) -> int:
    """The command line; the exit status is 1 if a picture could not be read or compared."""
    options = flags.parse(Options, argv, command="upscale")
    lines, failures = upscale(options)
    for line in lines:
        print(line)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if options.out.exists():
        print(options.out)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
