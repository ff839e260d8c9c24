"""Pictures from a trained generator: `python -m gan_engine.generate CHECKPOINT --num 64 --seed 0 --out grid.png`.

With --interpolate they are the stations of a walk (--out walk.gif), with --style-mix the edges of a table, and
--project PICTURE looks for the w of which G draws that picture. --w FILE draws what was found, walks it and mixes it.
Volumes are drawn as pictures, or written as they are: --out shapes.npz, or surfaces into a directory.
"""

import math
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.data.kinds import kind_of
from gan_engine.inference import search, w_files
from gan_engine.inference.generator import TrainedGenerator, images, latents, load
from gan_engine.inference.latents import MOST_NUMBERS, images_of, mixed, parse_numbers, walk, walk_in_w
from gan_engine.models.checks import check_at_least, check_choice, check_types
from gan_engine.pictures import animation, volumes
from gan_engine.pictures.picture import grid, picture, to_uint8, write_picture
from gan_engine.system.whole_file import replacing

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
    w: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """A file of --project; once for each. Its w are drawn in place of --num pictures, those of --seeds behind them; of
    --style-mix they are then the left edge, without --seeds both halves. stylegan2."""
    class_: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Name or number of the class of all pictures. None: one class for each row of the grid, in turn."""
    truncation: float = 1
    """Distance of every w from the mean, as a factor: below 1 fewer strange pictures for less variety. stylegan2."""
    interpolate: int | None = None
    """Frames from each picture to the next: a closed walk through --num of them, as a .gif, a .webp or, by ffmpeg, an
    .mp4."""
    grid: str | None = None
    """Columns x rows, such as 3x2: so many walks side by side, each through its share of the pictures."""
    style_mix: str | None = None
    """Layers, such as 0-3,7: a table whose pictures have the w of these layers from the top edge, and the others from
    the left one. It has as many rows and columns as a grid of --num; of --seeds the first half is the left edge.
    stylegan2."""
    project: Path | None = None
    """A picture: the w of which G draws the nearest to it is looked for. `out` shows both side by side, and a file of
    that name with .npz has w, for --w. stylegan2."""
    space: search.Space = "w"
    """Of that search: w, one for all layers, or w+, one for each, which comes nearer and mixes worse."""
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
        if self.project is not None and (self.seeds is not None or self.w):
            raise ValueError(
                "w: a search starts from the mean" if self.w else "seeds: a search starts from one, --seed"
            )
        if self.seeds is not None:
            object.__setattr__(self, "num", len(self.sources))
            if self.style_mix is not None and self.num % 2 and not self.w:
                raise ValueError(f"seeds: want as many for the left edge as for the top one, got {self.num}")
        check_choice(self, space=search.Space)
        if self.space != "w" and self.project is None:
            raise ValueError(f"space: want --project beside it, got {self.space} alone")
        if self.w and self.seeds is None and (self.class_ is not None or self.truncation != 1):
            name = "truncation" if self.class_ is None else "class"
            raise ValueError(f"{name}: want it beside --seeds, got --w alone, whose w are drawn as they are")
        if self.grid is not None and (self.interpolate is None or not re.fullmatch(r"[1-9]\d?x[1-9]\d?", self.grid)):
            raise ValueError(f"grid: want columns x rows, such as 3x2, beside --interpolate, got {self.grid!r}")
        if self.interpolate is not None and self.interpolate < 1:
            raise ValueError(f"interpolate: want at least 1 frame or None, got {self.interpolate}")
        modes = [f"--{name.replace('_', '-')}" for name in _MODES if getattr(self, name) is not None]
        if len(modes) > 1:
            raise ValueError(f"want one of {', '.join(modes)}, got {len(modes)}")

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
    _check_styles(options, G)
    classes = trained.classes(options.num, options.class_, columns=options.columns)
    more = trained.truncated(options.truncation)
    ws = _ws(options, trained, classes, **more) if options.w else None
    num = options.num if ws is None else len(ws)
    as_volumes = kind_of(models.data_kind(G.config)).axes == 3
    in_one = _prepare(options, num, as_volumes)
    if options.interpolate is not None:
        return _walk(options, G, num, ws, classes, **more)
    if options.project is not None:
        return _find(options, G, classes)
    if options.style_mix is not None:
        return _table(options, G, ws, classes, **more)

    if ws is None:
        batches = images(G, num, seed=options.sources, classes=classes, batch=options.batch, **more)
    else:
        batches = images_of(G, ws, batch=options.batch)
    drawn = []
    with tqdm(total=num, unit=" img", disable=None if num > options.batch else True) as bar:
        for first, img in zip(range(0, num, options.batch), batches, strict=True):
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
        columns = options.columns if ws is None else None
        write_picture(grid(models.pictures(G.config, torch.cat(drawn)), columns), options.out)
    return options.out


def _ws(options: Options, trained: TrainedGenerator, classes: list[int] | None, **more: float) -> Tensor:
    """ws [N, num_ws, w_dim] of the files, and behind them those of the seeds."""
    ws = w_files.read(options.w, trained.network)
    if options.seeds is not None:
        z, c = latents(trained.network, options.num, seed=options.sources, classes=classes)
        ws = torch.cat([ws, trained.network.ws(z, c, **more)])
    if options.style_mix is not None and options.seeds is None and len(ws) % 2:
        raise ValueError(f"w: want as many for the left edge as for the top one, or --seeds for that, got {len(ws)}")
    return ws


def _walk(
    options: Options, G: nn.Module, num: int, ws: Tensor | None, classes: list[int] | None, **more: float
) -> Path:
    columns, rows = map(int, (options.grid or "1x1").split("x"))
    cells = columns * rows
    if num % cells:
        raise ValueError(f"grid: want a multiple of {cells} pictures for {cells} walks side by side, got {num}")
    if num // cells < 2:
        raise ValueError(f"interpolate: want two pictures or more to walk between, got {num // cells}")
    pace = {"frames": options.interpolate, "batch": max(1, options.batch // cells)}
    parts = [slice(i, i + num // cells) for i in range(0, num, num // cells)]
    if ws is None:
        z, c = latents(G, num, seed=options.sources, classes=classes)
        walks = [walk(G, z[part], None if c is None else c[part], **pace, **more) for part in parts]
    else:
        walks = [walk_in_w(G, ws[part], **pace) for part in parts]
    frames = (
        np.vstack([np.hstack(frame[i : i + columns]) for i in range(0, cells, columns)])
        for imgs in zip(*walks, strict=True)
        for frame in zip(*(to_uint8(models.pictures(G.config, img)) for img in imgs), strict=True)
    )
    total = num // cells * options.interpolate
    animation.write(options.out, iter(tqdm(frames, total=total, unit=" frame", disable=None)))
    return options.out


def _table(options: Options, G: nn.Module, ws: Tensor | None, classes: list[int] | None, **more: float) -> Path:
    layers = parse_numbers("style_mix", options.style_mix, G.config.num_ws)
    side = options.columns
    if ws is None:
        z, c = latents(G, 2 * side, seed=options.sources, classes=classes and (classes * 2)[: 2 * side])
        ws = G.ws(z, c, **more)
    else:
        side = len(ws) // 2 if options.seeds is None else len(ws) - options.num
    edges = torch.cat(list(images_of(G, ws, batch=options.batch))).float().cpu()
    left, top = edges[:side], edges[side:]
    rows = [torch.cat([torch.ones_like(top[:1]), top])]
    mixtures = mixed(G, ws[:side], ws[side:], layers, batch=options.batch)
    for edge, row in zip(left, tqdm(mixtures, total=side, unit=" row", disable=None)):
        rows.append(torch.cat([edge[None], row.float().cpu()]))
    write_picture(grid(torch.cat(rows), len(top) + 1), options.out)
    return options.out


def _find(options: Options, G: nn.Module, classes: list[int] | None) -> Path:
    img = search.read(options.project, G)
    c = None if classes is None else torch.eye(G.config.c_dim, device=img.device)[classes[:1]]
    limits = {"steps": options.steps, "space": options.space, "seed": options.seed}
    steps = tqdm(search.project(G, img, c, search.distance(G), **limits), total=options.steps, disable=None)
    for found in steps:
        w, off = found
        steps.set_postfix(distance=f"{off:.4f}", refresh=False)
    (drawn,) = images_of(G, w.expand(-1, G.config.num_ws, -1), batch=1)
    write_picture(grid(torch.cat([img, drawn]).cpu(), 2), options.out)
    w_files.write(options.out.with_suffix(".npz"), w)
    return options.out


def _check_styles(options: Options, G: nn.Module) -> None:
    """Refuse what needs w of a family without, and a search for a picture that is not there."""
    for name in ("style_mix", "project", "w"):
        if getattr(options, name) not in (None, ()) and not models.capabilities(G.config).styles:
            raise ValueError(f"{name}: {models.family(G.config)} has no styles")
    if options.project is not None and not options.project.is_file():
        raise FileNotFoundError(f"project: want a picture, and there is no file {options.project}")


def _prepare(options: Options, num: int, as_volumes: bool) -> bool:
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
        else [out / _name(i, ".obj" if as_volumes else ".png") for i in range(num)]
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
