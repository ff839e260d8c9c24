"""A trained generator for other programs: `python -m gan_engine.export RUN G.onnx`.

    .onnx    ONNX, for onnxruntime, browsers and many other programs
    .pt2     torch.export, for torch.export.load and PyTorch's compilers
    .pt      TorchScript, for torch.jit.load and C++

The file is the averaged generator as a function of named tensors; gan_engine/inference/drawing.py says which. Batches
may have any size. Before the file gets its name, it is read again, and its images are compared with PyTorch's.
"""

import importlib.util
import json
import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.inference.drawing import Drawing
from gan_engine.inference.generator import load
from gan_engine.models.checks import check_choice, check_types
from gan_engine.models.declaration import Direction
from gan_engine.pictures import targets
from gan_engine.system import fields
from gan_engine.system.whole_file import replacing

ENDINGS = (".onnx", ".pt2", ".pt")
PIP = "'gan-engine[export]'"
# The largest difference from PyTorch's images that is rounding, as a share of the largest pixel.
TOLERANCE = 1e-4

Images = Callable[[tuple[Tensor, ...]], Tensor]


@dataclass(frozen=True)
class Options:
    """Write the averaged generator of a checkpoint as ONNX, torch.export or TorchScript."""

    checkpoint: fields.Positional[Path]
    """A checkpoint, or the directory of a run, whose newest intact checkpoint is used."""
    out: fields.Positional[Path]
    """A name that ends in .onnx, .pt2 (torch.export) or .pt (TorchScript)."""
    best: bool = False
    """Use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    direction: Direction = "A2B"
    """Direction of the translation, for cyclegan."""
    opset: int = 18
    """Version of ONNX's operators, 18 to 23. Older programs read lower versions only."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in. Once for each."""
    overwrite: bool = False
    """Replace a file that exists."""

    def __post_init__(self) -> None:
        check_types(self)
        check_choice(self, direction=Direction)
        if self.out.suffix not in ENDINGS:
            raise ValueError(f"out: want a name ending in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, got {self.out}")
        if not 18 <= self.opset <= 23:
            raise ValueError(f"opset: want 18 to 23, got {self.opset}")


def export(options: Options) -> list[str]:
    """Do what the command line asks, and return lines that say what was written.

    Raises:
        ValueError: a direction that the generator does not have; packages that are missing; a file whose images differ
            from PyTorch's by more than 1e-4 of the largest pixel, which is removed.
        CheckpointError: see `load`.
        OSError: `out` exists or cannot be written.
    """
    if options.out.suffix == ".onnx":
        _require_onnx()
    plugins.load(*options.plugin)
    targets.prepare([options.out], options.out.parent, overwrite=options.overwrite)
    trained = load(options.checkpoint, "cpu", best=options.best)
    drawing = Drawing(trained, options.direction)
    about = {
        "family": models.family(trained.config),
        "config": json.dumps(models.to_dict(trained.config)),
        "class_names": json.dumps(trained.class_names),
        "range": "-1 to 1",
    }
    with replacing(options.out) as unfinished:
        images = _WRITE[options.out.suffix](drawing, unfinished, about, options)
        difference = _largest_difference(drawing, images)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{options.out}: not written: its images differ from PyTorch's by {difference:.1e} of the largest"
                f" pixel; want at most {TOLERANCE:.0e}"
            )
    shapes = _shapes(drawing)
    inputs = ", ".join(f"{name} {shapes[name]}" for name in drawing.names)
    return [
        str(options.out),
        f"{inputs} -> img {shapes['img']}, float32; N is any number",
        f"its images are PyTorch's up to {difference:.0e} of the largest pixel",
    ]


def _to_onnx(drawing: Drawing, path: Path, about: dict[str, str], options: Options) -> Images:
    import onnxruntime

    program = _program(drawing)
    names = {"input_names": list(drawing.names), "output_names": ["img"]}
    written = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=options.opset, **names)
    written.model.metadata_props.update(about)
    written.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def images(inputs: tuple[Tensor, ...]) -> Tensor:
        given = {name: value.numpy() for name, value in zip(drawing.names, inputs, strict=True)}
        return torch.from_numpy(session.run(["img"], given)[0])

    return images


def _to_program(drawing: Drawing, path: Path, about: dict[str, str], options: Options) -> Images:
    torch.export.save(_program(drawing), path, extra_files=about)
    read = torch.export.load(path).module()
    return lambda inputs: read(*inputs)


def _to_script(drawing: Drawing, path: Path, about: dict[str, str], options: Options) -> Images:
    traced = torch.jit.trace(drawing, drawing.examples(), check_trace=False)
    torch.jit.save(traced, path, _extra_files=about)
    read = torch.jit.load(path)
    return lambda inputs: read(*inputs)


_WRITE = {".onnx": _to_onnx, ".pt2": _to_program, ".pt": _to_script}


def _program(drawing: Drawing) -> torch.export.ExportedProgram:
    return torch.export.export(drawing, drawing.examples(), dynamic_shapes=(drawing.varying(),), strict=False)


def _largest_difference(drawing: Drawing, images: Images) -> float:
    """|images - PyTorch's| as a share of the largest pixel, over batches and, where they may vary, sides."""
    differences = []
    for num, taller in ((1, 0), (3, 2 if drawing.any_sides else 0)):
        inputs = drawing.examples(num, taller=taller)
        with torch.no_grad():
            wanted = drawing(*inputs)
        got = images(inputs)
        if got.shape != wanted.shape:
            return float("inf")
        differences.append(float((got - wanted).abs().max() / wanted.abs().max()))
    return max(differences)


def _shapes(drawing: Drawing) -> dict[str, str]:
    """The shape of each argument and of img, as text."""
    config, sides = drawing.config, "H, W"
    scale = getattr(config, "scale", 1)
    if not drawing.any_sides:
        sides = ", ".join([str(config.resolution // scale)] * 2)
    shapes = {"z": f"[N, {config.z_dim}]", "c": f"[N, {config.c_dim}]", "truncation": "[]"}
    if drawing.from_noise:
        with torch.no_grad():
            _, *of_image = drawing(*drawing.examples(1)).shape
        return shapes | {"img": f"[N, {', '.join(map(str, of_image))}]"}
    enlarged = sides if scale == 1 else f"{scale} H, {scale} W"
    return {"source": f"[N, {config.source_channels}, {sides}]", "img": f"[N, {config.channels}, {enlarged}]"}


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"out: .onnx needs {', '.join(missing)}: pip install {PIP}")


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    options = flags.parse(Options, argv, command="export")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its exporters
        lines = export(options)
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
