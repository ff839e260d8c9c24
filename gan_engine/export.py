"""A trained generator for other programs: `python -m gan_engine.export RUN G.onnx`.

    .onnx    ONNX, for onnxruntime, browsers and many other programs
    .pt2     torch.export, for torch.export.load and PyTorch's compilers
    .pt      TorchScript, for torch.jit.load and C++

The file is the averaged generator as a function of named tensors; gan_engine/inference/drawing.py says which. Batches
may have any size. Before the file gets its name, it is read again, and its images are compared with PyTorch's.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from gan_engine import plugins
from gan_engine.command_line import console, flags
from gan_engine.inference.drawing import Drawing
from gan_engine.inference.generator import load
from gan_engine.inference.program_files import ENDINGS, OPSET, require_onnx, write
from gan_engine.models.checks import check_choice, check_types
from gan_engine.models.declaration import Direction
from gan_engine.pictures import targets
from gan_engine.system import fields
from gan_engine.system.resolution import height_width


@dataclass(frozen=True)
class Options:
    """Write the averaged generator of a checkpoint as ONNX, torch.export or TorchScript."""

    checkpoint: Annotated[fields.Positional[Path], fields.arg(metavar="RUN")]
    """A checkpoint, or the directory of a run, whose newest intact checkpoint is used."""
    out: Annotated[fields.Positional[Path], fields.arg(metavar="OUT")]
    """A name that ends in .onnx, .pt2 (torch.export) or .pt (TorchScript)."""
    best: bool = False
    """Use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    direction: Direction = "A2B"
    """Direction of the translation, for cyclegan."""
    opset: int | None = None
    """Version of ONNX's operators in an .onnx, 18 to 23. Older programs read lower versions only. None: 18."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in. Once for each."""
    overwrite: bool = False
    """Replace a file that exists."""

    def __post_init__(self) -> None:
        check_types(self)
        check_choice(self, direction=Direction)
        if self.out.suffix not in ENDINGS:
            raise ValueError(f"out: want a name ending in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, got {self.out}")
        if self.opset is not None and not 18 <= self.opset <= 23:
            raise ValueError(f"opset: want 18 to 23, got {self.opset}")
        if self.opset is not None and self.out.suffix != ".onnx":
            raise ValueError(f"opset: want a name ending in .onnx beside it, got {self.out}, which has no such version")


def export(options: Options) -> list[str]:
    """Do what the command line asks, and return lines that say what was written.

    Raises:
        ValueError: a direction that the generator does not have; packages that are missing; a file whose images differ
            from PyTorch's by more than 1e-4 of the largest pixel, which is removed.
        CheckpointError: see `load`.
        OSError: `out` exists or cannot be written. Its folder is made if it is missing.
    """
    if options.out.suffix == ".onnx":
        require_onnx("out: .onnx")
    plugins.load(*options.plugin)
    trained = load(options.checkpoint, "cpu", best=options.best)
    drawing = Drawing(trained, options.direction)
    targets.prepare([options.out], options.out.parent, overwrite=options.overwrite)
    difference = write(drawing, options.out, opset=options.opset or OPSET)
    shapes = _shapes(drawing)
    inputs = ", ".join(f"{name} {shapes[name]}" for name in drawing.names)
    return [
        str(options.out),
        f"{inputs} -> img {shapes['img']}, float32; N is any number",
        f"its images are PyTorch's up to {difference:.0e} of the largest pixel",
    ]


def _shapes(drawing: Drawing) -> dict[str, str]:
    """The shape of each argument and of img, as text."""
    config, sides = drawing.config, "H, W"
    scale = getattr(config, "scale", 1)
    if not drawing.any_sides:
        sides = ", ".join(str(side // scale) for side in height_width(config.resolution))
    shapes = {"z": f"[N, {config.z_dim}]", "c": f"[N, {config.c_dim}]", "truncation": "[]"}
    if drawing.from_noise:
        with torch.no_grad():
            _, *of_image = drawing(*drawing.examples(1)).shape
        return shapes | {"img": f"[N, {', '.join(map(str, of_image))}]"}
    enlarged = sides if scale == 1 else f"{scale} H, {scale} W"
    return {"source": f"[N, {config.source_channels}, {sides}]", "img": f"[N, {config.channels}, {enlarged}]"}


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    options = flags.parse(Options, argv, command="export")
    print("\n".join(export(options)))


if __name__ == "__main__":
    sys.exit(main())
