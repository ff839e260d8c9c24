"""RUN/demo.html: one page that draws with the averaged generator of a run in a browser, without a network.

The page holds the generator as ONNX, the WebAssembly of onnxruntime-web from a local npm package, and the script in
demo_page/. A browser lets it load nothing else: a Content-Security-Policy says so.
"""

import base64
import gzip
import hashlib
import html
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from torch import Tensor

from gan_engine import models
from gan_engine.inference import directions, program_files
from gan_engine.inference.drawing import Drawing
from gan_engine.inference.generator import TrainedGenerator, load
from gan_engine.models.declaration import Direction
from gan_engine.pictures import volumes
from gan_engine.system.names import legible, shell_word
from gan_engine.system.resolution import height_width
from gan_engine.system.whole_file import replacing

NAME = "demo.html"
PACKAGE = "onnxruntime-web"  # of npm; its files of this name are there from version 1.21 on
_MODULE, _WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
_SLIDERS = 6
_LARGEST_SIDE = 256  # of a picture that is enlarged, in pixels: WebAssembly takes seconds for it
_PAGE = Path(__file__).parent / "demo_page"


def find_package(given: Path | None) -> Path:
    """The folder of the npm package: `given`, or node_modules/onnxruntime-web here or in a folder above.

    Raises ValueError, which says how to get the package.
    """
    here = Path.cwd()
    looked = [given] if given else [folder / "node_modules" / PACKAGE for folder in (here, *here.parents)]
    for folder in looked:
        if all((folder / name).is_file() for name in (_MODULE, _WASM)):
            return folder
    where = given or f"node_modules/{PACKAGE} here or above"
    raise ValueError(
        f"onnxruntime-web: want the npm package, 1.21 or newer, with {_MODULE} and {_WASM}, and they are not in"
        f" {where}; npm install --no-save {PACKAGE}"
    )


def write(
    run_dir: Path, *, package: Path | None = None, best: bool = False, direction: Direction = "A2B"
) -> tuple[Path, float]:
    """Write demo.html into `run_dir`.

    Args:
        package: the folder of the npm package onnxruntime-web. None: see `find_package`.
        best: use the checkpoint that measured best in training.
        direction: which of the two networks of a cyclegan.

    Returns the path, and the largest difference of the images of the ONNX from PyTorch's, as `program_files.write`.

    Raises:
        ValueError: a package is missing, or the generator has no such direction or draws no grey or RGB pictures.
        CheckpointError: see `load`.
        OSError: the page cannot be written.
    """
    trained = load(run_dir, "cpu", best=best)
    _require_pictures(trained)
    drawing = Drawing(trained, direction, shifts=True)
    program_files.require_onnx("demo")
    found = find_package(package)
    about = _about(trained, drawing) | {"command": _command(run_dir, trained, direction, best=best)}
    with tempfile.TemporaryDirectory() as folder:
        difference = program_files.write(drawing, Path(folder) / "G.onnx")
        model = (Path(folder) / "G.onnx").read_bytes()
    sentence = f"{models.family(trained.config)}, {trained.path.name}" + (f", {direction}" if drawing.arguments else "")
    text = page(legible(run_dir.resolve().name), sentence, about, model, found)
    with replacing(run_dir / NAME) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return run_dir / NAME, difference


def page(title: str, sentence: str, about: dict[str, Any], model: bytes, package: Path) -> str:
    """The page. `about` is what page.js reads, `model` an ONNX file, and `package` the folder of onnxruntime-web."""
    script, style = ((_PAGE / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    policy = {
        "default-src": "'none'",
        "script-src": f"{_hash(script)} blob: 'wasm-unsafe-eval'",  # blob: the module of onnxruntime-web, from the page
        "style-src": _hash(style),
        "worker-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    parts = {
        "policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "title": html.escape(title),
        "sentence": html.escape(legible(sentence)),
        "style": style,
        "about": json.dumps(about).replace("<", "\\u003c"),
        "model": base64.b64encode(model).decode(),
        "module": _zipped(package / _MODULE),
        "wasm": _zipped(package / _WASM),
        "script": script,
    }
    return Template((_PAGE / "page.html").read_text(encoding="utf-8")).substitute(parts)


def _require_pictures(trained: TrainedGenerator) -> None:
    """Raises ValueError for what the script cannot show, before anything is looked for that the user would install."""
    config = trained.config
    if models.capabilities(config).picture not in (None, volumes.render) or config.channels not in (1, 3):
        got = f"{models.family(config)} with {config.channels} channels"
        raise ValueError(f"demo: want a generator of grey or RGB pictures or volumes, got {got}")


def _about(trained: TrainedGenerator, drawing: Drawing) -> dict[str, Any]:
    """What the script has to know of the generator."""
    config, declared = trained.config, models.capabilities(trained.config)
    if not drawing.from_noise:
        scale = getattr(config, "scale", 1)
        return {
            "channels": config.source_channels,
            "edges": getattr(config, "source", None) == "edges",
            "sides": height_width(config.resolution) if scale == 1 else None,
            "most": _LARGEST_SIDE,
        }
    find = directions.of_w if drawing.styles else directions.of_z
    names = trained.class_names or tuple(map(str, range(config.c_dim)))
    return {
        "z_dim": config.z_dim,
        "c_dim": config.c_dim,
        "classes": [(legible(name), _word(names, i)) for i, name in enumerate(names)],
        "styles": drawing.styles,
        "w_dim": config.w_dim if drawing.styles else 0,
        "directions": _rounded(find(trained, _SLIDERS)),
        "volumes": declared.picture is volumes.render,
    }


def _command(run_dir: Path, trained: TrainedGenerator, direction: Direction, *, best: bool) -> str:
    """How the command begins that draws what the page draws."""
    declared, run = models.capabilities(trained.config), shell_word(run_dir) + (" --best" if best else "")
    if declared.from_noise:
        return f"python -m gan_engine.generate {run}"
    which = f" --direction={direction}" if declared.directions else ""
    return f"python -m gan_engine.{declared.command} PICTURE OUT.png --checkpoint={run}{which}"


def _word(names: Sequence[str], number: int) -> str:
    """A class in a command: its name where a shell takes it as it is, else its number, which may be another's name."""
    if re.fullmatch(r"[\w.+-]+", names[number]):
        return names[number]
    return str(number) if str(number) not in names else shell_word(names[number])


def _rounded(found: Tensor) -> list[list[float]]:
    return [[float(f"{x:.5g}") for x in direction] for direction in found.tolist()]


def _hash(text: str) -> str:
    """The source of a Content-Security-Policy that allows this text inside the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _zipped(path: Path) -> str:
    return base64.b64encode(gzip.compress(path.read_bytes(), mtime=0)).decode()
