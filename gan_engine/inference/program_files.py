"""A trained generator as a file of other programs: ONNX, torch.export or TorchScript, compared with PyTorch."""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from gan_engine import models
from gan_engine.inference.drawing import Drawing
from gan_engine.system.whole_file import replacing

ENDINGS = (".onnx", ".pt2", ".pt")
PIP = "'gan-engine[export]'"
OPSET = 18  # version of ONNX's operators
# The largest difference from PyTorch's images that is rounding, as a share of the largest pixel.
TOLERANCE = 1e-4

Images = Callable[[tuple[Tensor, ...]], Tensor]


def write(drawing: Drawing, path: Path, *, opset: int = OPSET) -> float:
    """Write a file whose ending is in `ENDINGS`, with the family, its configuration and names of classes as metadata.

    The file is read again before it gets its name. Returns the largest |images - PyTorch's|, as a share of the largest
    pixel.

    Raises:
        ValueError: this difference is more than 1e-4, or an image is not finite; `path` stays as it was.
        OSError: the file cannot be written.
    """
    size = sum(tensor.nbytes for tensor in drawing.state_dict().values())
    about = {
        "family": models.family(drawing.config),
        "config": json.dumps(models.to_dict(drawing.config)),
        "class_names": json.dumps(drawing.class_names),
        "range": "-1 to 1",
    }
    with _quiet(), replacing(path, size=size) as unfinished:
        images = _WRITE[path.suffix](drawing, unfinished, about, opset)
        difference = _largest_difference(drawing, images)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"{path}: not written: its images differ from PyTorch's by {difference:.1e} of the largest"
                f" pixel; want at most {TOLERANCE:.0e}"
            )
    return difference


def require_onnx(option: str) -> None:
    """Raises ValueError if a package for .onnx files is missing. `option` is what needs it, for the message."""
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"{option} needs {', '.join(missing)}: pip install {PIP}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings and the log of PyTorch's exporters."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def _to_onnx(drawing: Drawing, path: Path, about: dict[str, str], opset: int) -> Images:
    import onnxruntime

    program = _program(drawing)
    names = {"input_names": list(drawing.names), "output_names": ["img"]}
    written = torch.onnx.export(program, dynamo=True, verbose=False, opset_version=opset, **names)
    written.model.metadata_props.update(about)
    written.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def images(inputs: tuple[Tensor, ...]) -> Tensor:
        given = {name: value.numpy() for name, value in zip(drawing.names, inputs, strict=True)}
        return torch.from_numpy(session.run(["img"], given)[0])

    return images


def _to_program(drawing: Drawing, path: Path, about: dict[str, str], opset: int) -> Images:
    file = io.BytesIO()  # PyTorch ends the process where it writes to a full disk by itself
    torch.export.save(_program(drawing), file, extra_files=about)
    path.write_bytes(file.getbuffer())
    read = torch.export.load(path).module()
    return lambda inputs: read(*inputs)


def _to_script(drawing: Drawing, path: Path, about: dict[str, str], opset: int) -> Images:
    traced = torch.jit.trace(drawing, drawing.examples(), check_trace=False)
    file = io.BytesIO()  # as above
    torch.jit.save(traced, file, _extra_files=about)
    path.write_bytes(file.getbuffer())
    read = torch.jit.load(path)
    return lambda inputs: read(*inputs)


_WRITE = {".onnx": _to_onnx, ".pt2": _to_program, ".pt": _to_script}


def _program(drawing: Drawing) -> torch.export.ExportedProgram:
    return torch.export.export(drawing, drawing.examples(), dynamic_shapes=(drawing.varying(),), strict=False)


def _largest_difference(drawing: Drawing, images: Images) -> float:
    """|images - PyTorch's| as a share of the largest pixel, over batches and, where they may vary, sides.

    NaN where an image is not finite.
    """
    differences = []
    for num, taller in ((1, 0), (3, 2 if drawing.any_sides else 0)):
        inputs = drawing.examples(num, taller=taller)
        with torch.no_grad():
            wanted = drawing(*inputs)
        got = images(inputs)
        if got.shape != wanted.shape:
            return float("inf")
        differences.append(float((got - wanted).abs().max() / wanted.abs().max()))
    return float(torch.tensor(differences).max())  # max() of Python would lose NaN
