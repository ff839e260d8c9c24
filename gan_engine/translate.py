"""Pictures from pictures: `python -m gan_engine.translate IN OUT --checkpoint RUN`, for families that translate.

IN is a file or a folder, OUT a .png or a folder. Pictures are cut and resized as in training, to the same resolution.
A run of 16 bits reads pictures with 16 bits, and writes grey PNGs of 16 bits, and colours of 8 bits.

A picture that cannot be read is named on standard error, and the others are made. The exit status is then 1.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from PIL import Image

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.data.decode import fit
from gan_engine.inference.generator import load
from gan_engine.models.declaration import Direction
from gan_engine.pictures import files
from gan_engine.system import fields
from gan_engine.system.devices import choose_device


@dataclass(frozen=True)
class Options:
    """Translate pictures with the averaged generator of a checkpoint."""

    input: Annotated[fields.Positional[Path], fields.arg(metavar="IN")]
    """A picture, or a folder of pictures."""
    out: Annotated[fields.Positional[Path], fields.arg(metavar="OUT")]
    """A name that ends in .png, or a directory."""
    checkpoint: Path
    """A checkpoint, or the directory of a run, whose newest intact checkpoint is used."""
    best: bool = False
    """Use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    direction: Direction = "A2B"
    """Direction of the translation, for cyclegan."""
    extract: bool = False
    """Take the edges or the grey of each picture first, as a pix2pix with --source edges or grey did in training."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in. Once for each."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one."""
    overwrite: bool = False
    """Replace files that exist."""


def translate(options: Options) -> list[str]:
    """Do what the command line asks and return a sentence for each picture that could not be read.

    Raises:
        ValueError: a generator that does not translate, or not in this way; see also `files.jobs`.
        CheckpointError: see `load`.
        OSError: there is nothing to read, or `out` exists or cannot be written.
    """
    plugins.load(*options.plugin)
    device = choose_device(options.device)
    todo = files.jobs(options.input, options.out, overwrite=options.overwrite)
    trained = load(options.checkpoint, device, best=options.best)
    G = trained.network
    config, family, declared = G.config, models.family(G.config), models.capabilities(G.config)
    if declared.command != "translate":
        families = " or ".join(models.names(lambda other: other.command == "translate"))
        raise ValueError(f"{options.checkpoint}: want a generator of {families}, got {family}")
    if options.direction != "A2B" and not declared.directions:
        raise ValueError(f"direction: want A2B for {family}, which goes one way only, got {options.direction}")
    if options.extract and (not declared.extracts or config.source not in declared.extracts):
        raise ValueError(f"extract: want {_extracting()}, got {family} trained on {models.data_kind(config)}")
    channels = config.channels if options.extract else config.source_channels
    arguments = (options.direction,) if declared.directions else ()
    bits_out = trained.bits if config.channels == 1 else 8  # Pillow writes no colours of 16 bits

    remarks: list[str] = []

    def make(path: Path) -> Image.Image:
        pixels = fit(files.read(path, channels, bits=trained.bits, remarks=remarks), config.resolution)
        source = files.to_tensor(pixels).to(device)
        with torch.no_grad():
            return files.to_picture(G(G.source_of(source) if options.extract else source, *arguments), bits_out)

    failures = files.convert(todo, make)
    files.warn_of(options.input, remarks)
    return failures


def _extracting() -> str:
    """The families that make sources of targets, for messages: "pix2pix trained on grey or edges"."""
    sources = {name: models.declared(module).extracts for name, module in models.FAMILIES.items()}
    return ", ".join(f"{name} trained on {' or '.join(made)}" for name, made in sources.items() if made)


@console.command
def main(argv: list[str]) -> int:
    """The command line; the exit status is 1 if a picture could not be read."""
    options = flags.parse(Options, argv, command="translate")
    failures = translate(options)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    if options.out.exists():
        print(options.out)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
