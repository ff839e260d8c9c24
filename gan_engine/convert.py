"""Weights of other programs: `python -m gan_engine.convert IN OUT` reads them, or writes them.

IN is a file of another program, a folder of CycleGAN or pix2pix, a checkpoint of ours, or the directory of a run. Its
format is found from its content. No code in it is run. OUT is a checkpoint of ours, or a file in the layout that `--to`
names. Nothing is written if the networks do not fit.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.models.checks import check_types
from gan_engine.system import fields
from gan_engine.system.resolution import named
from gan_engine.weights import formats

_NO_FLAGS = ("c_dim", "one_way")


@dataclass(frozen=True)
class Options:
    """Convert weights: of other programs into a checkpoint of ours, or ours into a file of other programs."""

    input: Annotated[fields.Positional[Path], fields.arg(metavar="IN")]
    """A file of another program, a checkpoint of ours, or the directory of a run: its newest intact checkpoint.
    Files of StyleGAN2, StyleGAN3, rosinality, ESRGAN, CycleGAN and pix2pix are known by their content.
    A folder of CycleGAN or pix2pix has all networks of an epoch."""
    out: Annotated[fields.Positional[Path], fields.arg(metavar="OUT")]
    """A name that ends in .pt, .pth or .safetensors; --to cyclegan: the name of a folder.
    A .safetensors has the averaged generator, G_ema, alone."""
    to: Literal["gan_engine", "rosinality", "esrgan", "cyclegan"] = "gan_engine"
    """Layout of OUT. gan_engine: a checkpoint for all our commands, and for train --init-from.
    rosinality: a stylegan2 for pSp, e4e and other editing tools.
    esrgan: an srgan of --variant rrdb --base none for ComfyUI, chaiNNer and other programs that enlarge pictures.
    cyclegan: a cyclegan of --published for pytorch-CycleGAN-and-pix2pix."""
    best: bool = False
    """Use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    slim: bool = False
    """Take the averaged generator, G_ema, alone. That is enough to draw, and to begin a training with."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in. Once for each."""
    overwrite: bool = False
    """Replace a file that exists."""

    def __post_init__(self) -> None:
        check_types(self)


def convert(options: Options) -> list[str]:
    """Do what the command line asks, and return lines that say what was found and written.

    Raises:
        ValueError: an unknown format; networks that do not fit; see `formats.read` and `formats.write`.
        CheckpointError: a file that cannot be read, or that names code.
        OSError: `out` exists, or cannot be written. Its folder is made if it is missing.
    """
    plugins.load(*options.plugin)
    if options.out.exists() and not options.overwrite:
        raise FileExistsError(f"{options.out} exists; --overwrite replaces it")
    networks = formats.read(options.input, slim=options.slim, best=options.best)
    networks = networks.slim() if options.slim else networks
    lost = formats.write(options.out, networks, options.to)
    names, config = [name for name in formats.NETWORKS if name in networks.weights], networks.config
    return [
        f"found      {networks.format}: {', '.join(names)} of {models.family(config)}",
        f"sizes      {_sizes(config)}",
        *(f"note       {sentence}" for sentence in networks.notes + lost),
        f"written    {options.out}",
    ]


def _sizes(config: models.Config) -> str:
    """The sizes that are not those of a fresh configuration, as flags of `train`."""
    values = models.to_dict(config)
    usual = models.to_dict(type(config)())
    changed = {name: value for name, value in values.items() if value != usual[name] and name not in _NO_FLAGS}
    if "resolution" in changed and not isinstance(changed["resolution"], int):
        changed["resolution"] = named(changed["resolution"])
    words = []
    for name, value in changed.items():
        values = [] if value is True else value if isinstance(value, tuple | list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return " ".join(words) or "those of the family"


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    print("\n".join(convert(flags.parse(Options, argv, command="convert"))))


if __name__ == "__main__":
    sys.exit(main())
