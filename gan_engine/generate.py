"""Pictures from a trained generator: `python -m gan_engine.generate CHECKPOINT --num 64 --seed 0 --out grid.png`.

With --interpolate they are the stations of a walk (--out walk.gif), with --style-mix the edges of a table, and
--project PICTURE looks for the w of which G draws that picture. Volumes are drawn as pictures, or written as they are:
--out shapes.npz, or surfaces into a directory.
"""

import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from PIL import UnidentifiedImageError
from torch import Tensor, nn
from tqdm import tqdm

from gan_engine import animation, console, flags, models, plugins, volumes
from gan_engine.data.decode import decode_file
from gan_engine.inference.generator import images, latents, load
from gan_engine.inference.latents import MOST_NUMBERS, mixed, parse_numbers, project, walk
from gan_engine.metrics.perceptual import PerceptualDistance
from gan_engine.models.checks import check_at_least, check_types
from gan_engine.monitors import grid, picture, to_uint8, write_picture
from gan_engine.picture_files import to_tensor
from gan_engine.whole_file import replacing

_OTHER_FILES = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".npz", ".npy", ".obj"}


_MODES = ("interpolate", "style_mix", "project")


@dataclass(frozen=True)
class Options:
    """Draw pictures from the averaged generator of a checkpoint."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or the directory of a run, of which the newest intact checkpoint is taken."""
    num: int = 64
    """Pictures to draw."""
    seed: int = 0
    """Of the noise. Picture i of a seed is the same whatever --num and --batch are, up to rounding."""
    seeds: str | None = None
    """Seeds, such as 0-35,77: the first picture of each, in place of --num pictures of one seed."""
    out: Path = Path("grid.png")
    """A name ending in .png: one grid of all pictures. Any other: a directory of 000000.png, 000001.png, ... Of volumes
    also a name ending in .npz, for all of them, and a directory has their surfaces, 000000.obj, 000001.obj, ..."""
    class_: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Name or number of the class of all pictures. None: one class for each row of the grid, in turn."""
    truncation: float = 1
    """Distance of every w from the mean, as a factor: below 1 fewer strange pictures for less variety. stylegan2."""
    interpolate: int | None = None
    """Frames from each picture to the next: a closed walk through --num of them, as a .gif, a .webp or, by ffmpeg, an
    .mp4."""
    style_mix: str | None = None
    """Layers, such as 0-3,7: a table whose pictures have the w of these layers from the top edge, and the others from
    the left one. It has as many rows and columns as a grid of --num; of --seeds the first half is the left edge.
    stylegan2."""
    project: Path | None = None
    """A picture: the w of which G draws the nearest to it is looked for. `out` shows both side by side, and a file of
    that name with .npz has w. stylegan2."""
    steps: int = 500
    """Of that search."""
    batch: int = 64
    """Pictures per pass."""
    plugin: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in; once for each."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one."""
    overwrite: bool = False
    """Replace files that exist."""

    def __post_init__(self) -> None:
        check_types(self, largest=dict.fromkeys(("num", "batch", "steps", "interpolate"), MOST_NUMBERS))
        check_at_least(self, 1, "num", "batch", "steps")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: want 0 to 2^63 - 1, got {self.seed}")
        if self.seeds is not None:
            if self.project is not None:
                raise ValueError("seeds: a search starts from one, --seed")
            object.__setattr__(self, "num", len(self.sources))
            if self.style_mix is not None and self.num % 2:
                raise ValueError(f"seeds: want as many for the left edge as for the top one, got {self.num}")
        if self.interpolate is not None and self.interpolate < 1:
            raise ValueError(f"interpolate: want at least 1 frame or None, got {self.interpolate}")
        modes = [f"--{name.replace('_', '-')}" for name in _MODES if getattr(self, name) is not None]
        if len(modes) > 1:
            raise ValueError(f"want one of {', '.join(modes)}, got all of them")

    @property
    def sources(self) -> int | list[int]:
        """The seed of all pictures, or that of each."""
        return self.seed if self.seeds is None else parse_numbers("seeds", self.seeds, 2**63)

    @property
    def columns(self) -> int:
        """Of the grid, or of the table behind its left edge."""
        edges = self.style_mix is not None and self.seeds is not None
        return self.num // 2 if edges else math.ceil(math.sqrt(self.num))


def generate(options: Options) -> Path:
    """Do what the command line asks and return the file or directory that was written.

    Raises:
        ValueError: an unknown class or device, a generator without truncation, or an `out` that is neither a directory
            nor ends in .png (of volumes: or .npz).
        CheckpointError: see `load`.
        OSError: `out` exists or cannot be written. All but a full disk is found before the first picture is drawn.
    """
    plugins.load(*options.plugin)
    trained = load(options.checkpoint, options.device)
    trained.require_noise()
    G = trained.network
    classes = trained.classes(options.num, options.class_, columns=options.columns)
    _check_styles(options, G)
    more = trained.truncated(options.truncation)
    as_volumes = models.data_kind(G.config) == "voxels"
    in_one = _prepare(options, as_volumes)
    if options.interpolate is not None:
        return _walk(options, G, classes, **more)
    if options.project is not None:
        return _find(options, G, classes)
    if options.style_mix is not None:
        return _table(options, G, classes, **more)

    batches = images(G, options.num, seed=options.sources, classes=classes, batch=options.batch, **more)
    drawn = []
    with tqdm(total=options.num, unit=" img", disable=None if options.num > options.batch else True) as bar:
        for first, img in zip(range(0, options.num, options.batch), batches, strict=True):
            if in_one:
                drawn.append(img.float().cpu())
            elif as_volumes:
                for i, volume in enumerate(img[:, 0].float().cpu().numpy(), first):
                    volumes.write_obj(options.out / _name(i, ".obj"), volume)
            else:
                for i, pixels in enumerate(to_uint8(img), first):
                    write_picture(picture(pixels), options.out / _name(i))
            bar.update(len(img))
    if in_one and options.out.suffix.lower() == ".npz":
        with replacing(options.out) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, voxels=(torch.cat(drawn)[:, 0] > 0).numpy())
    elif in_one:
        write_picture(grid(models.pictures(G.config, torch.cat(drawn)), options.columns), options.out)
    return options.out


def _walk(options: Options, G: nn.Module, classes: list[int] | None, **more: float) -> Path:
    z, c = latents(G, options.num, seed=options.sources, classes=classes)
    frames = (
        frame
        for img in walk(G, z, c, options.interpolate, batch=options.batch, **more)
        for frame in to_uint8(models.pictures(G.config, img))
    )
    animation.write(
        options.out, iter(tqdm(frames, total=options.num * options.interpolate, unit=" frame", disable=None))
    )
    return options.out


def _table(options: Options, G: nn.Module, classes: list[int] | None, **more: float) -> Path:
    side = options.columns
    layers = parse_numbers("style_mix", options.style_mix, G.config.num_ws)
    z, c = latents(G, 2 * side, seed=options.sources, classes=classes and (classes * 2)[: 2 * side])
    ws = G.ws(z, c, **more)
    edges = torch.cat([G.synthesis(part) for part in ws.split(options.batch)]).float().cpu()
    left, top = edges.split(side)
    rows = [torch.cat([torch.ones_like(top[:1]), top])]
    mixtures = mixed(G, *ws.split(side), layers, batch=options.batch)
    for edge, row in zip(left, tqdm(mixtures, total=side, unit=" row", disable=None)):
        rows.append(torch.cat([edge[None], row.float().cpu()]))
    write_picture(grid(torch.cat(rows), side + 1), options.out)
    return options.out


def _find(options: Options, G: nn.Module, classes: list[int] | None) -> Path:
    config, device = G.config, next(G.parameters()).device
    try:
        with open(options.project, "rb") as file:
            pixels = decode_file(file, resolution=config.resolution, channels=config.channels)
    except UnidentifiedImageError:
        raise ValueError(f"project: want a picture, and {options.project} is none that Pillow can read") from None
    img = to_tensor(pixels).to(device)
    perceptual = PerceptualDistance().to(device)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        small = max(1, 32 // config.resolution)  # what the classifier sees at least
        x, y = (F.interpolate(each, scale_factor=small) if small > 1 else each for each in (x, y))
        return perceptual(x, y) + (x - y).square().mean((1, 2, 3))

    c = None if classes is None else torch.eye(config.c_dim, device=device)[classes[:1]]
    steps = project(G, img, c, distance, steps=options.steps, seed=options.seed)
    search = tqdm(steps, total=options.steps, disable=None)
    for found in search:
        w, off = found
        search.set_postfix(distance=f"{off:.4f}", refresh=False)
    with torch.no_grad():
        drawn = G.synthesis(w[:, None].expand(-1, config.num_ws, -1))
    write_picture(grid(torch.cat([img, drawn]).cpu(), 2), options.out)
    with replacing(options.out.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        np.savez(file, w=w.cpu().numpy())
    return options.out


def _check_styles(options: Options, G: nn.Module) -> None:
    """Refuse what needs w of a family without, and a search for a picture that is not there."""
    for name in ("style_mix", "project"):
        if getattr(options, name) is not None and not hasattr(G, "ws"):
            raise ValueError(f"{name}: {models.family(G.config)} has no styles")
    if options.project is not None and not options.project.is_file():
        raise FileNotFoundError(f"project: want a picture, and there is no file {options.project}")


def _prepare(options: Options, as_volumes: bool) -> bool:
    """Whether one file is asked for. Makes the directory, and refuses what exists or cannot be written."""
    out = options.out
    if options.interpolate is not None:
        animation.check(out)
        _prepare_files([out], out.parent, options.overwrite)
        return False
    endings = (".png", ".npz") if as_volumes else (".png",)
    names = f"a name ending in {' or '.join(endings)}"
    in_one = out.suffix.lower() in endings and not out.is_dir()
    if as_volumes and not in_one:
        volumes.require_surfaces()
    if out.suffix.lower() in _OTHER_FILES.difference(endings) and not out.is_dir():
        raise ValueError(f"out: want {names} or a directory, got {out}")
    if not in_one and out.is_file():
        raise FileExistsError(f"{out} is a file; want a directory or {names}")
    if (options.style_mix is not None or options.project is not None) and not in_one:
        raise ValueError(f"out: want a name ending in .png, got {out}")
    files = (
        [out, *([out.with_suffix(".npz")] if options.project is not None else [])]
        if in_one
        else [out / _name(i, ".obj" if as_volumes else ".png") for i in range(options.num)]
    )
    _prepare_files(files, out.parent if in_one else out, options.overwrite)
    return in_one


def _prepare_files(files: list[Path], directory: Path, overwrite: bool) -> None:
    existing = next((file for file in files if file.exists()), None)
    if existing is not None and not overwrite:
        raise FileExistsError(f"{existing} exists; --overwrite replaces it")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise type(error)(f"{directory} cannot be written: {error.strerror}") from error


def _name(i: int, ending: str = ".png") -> str:
    return f"{i:06d}{ending}"


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    print(generate(flags.parse(Options, argv, command="generate")))


if __name__ == "__main__":
    sys.exit(main())
