"""Pictures from a trained generator: `python -m gan_engine.generate CHECKPOINT --num 64 --seed 0 --out grid.png`.

--interpolate walks from picture to picture (--out walk.gif). --style-mix makes a table, and the pictures are its edges.
--project PICTURE searches the w whose picture is nearest to the given one, and writes w to a file. --w FILE reads that
w. Volumes are drawn as pictures, or written as voxels (--out shapes.npz) or as surfaces (--out DIRECTORY). Points are
drawn as one scatter plot, or written as coordinates (--out points.npy or points.csv). Images are drawn as pictures, or
written as arrays (--out images.npz or images.npy), which hold 16 bits and any number of channels.
"""

import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.data.kinds import kind_of
from gan_engine.inference import search, w_files
from gan_engine.inference.generator import TrainedGenerator, images, latents, load
from gan_engine.inference.latents import MOST_NUMBERS, images_of, parse_numbers, table, walk, walk_in_w
from gan_engine.models.checks import check_at_least, check_choice, check_types
from gan_engine.pictures import animation, scatter, targets, volumes
from gan_engine.pictures.picture import grid, picture, to_levels, to_uint8, visible, write_picture, write_values
from gan_engine.system import fields
from gan_engine.system.pixels import COLOURS

_MODES = ("interpolate", "style_mix", "project")


@dataclass(frozen=True)
class Options:
    """Draw pictures from the averaged generator of a checkpoint."""

    checkpoint: Annotated[fields.Positional[Path], fields.arg(metavar="RUN")]
    """A checkpoint, or the directory of a run, whose newest intact checkpoint is used."""
    best: bool = False
    """Use the checkpoint of the run that measured best in training (train --eval-kimg)."""
    num: int = 64
    """Number of pictures to draw."""
    seed: int = 0
    """Seed of the noise. Picture i of a seed does not depend on --num and --batch, up to rounding."""
    seeds: str | None = None
    """Seeds, such as 0-35,77: draw the first picture of each seed, instead of --num pictures of one seed."""
    out: Path = Path("grid.png")
    """A name that ends in .png: one grid of all pictures. Any other name: a directory of 000000.png, 000001.png, ...
    A name that ends in .npz or .npy: the values of all images, uint8 [N, C, H, W], or uint16 after train --bits 16.
    After --bits 16 a directory has grey pictures of 16 bits, and a grid has 8 bits.
    A grid of bands shows the first three of them, or the first of two.
    Volumes: a name that ends in .npz gets all voxels, and a directory gets surfaces, 000000.obj, 000001.obj, ...
    Points: a name that ends in .npy or .csv gets the coordinates, and .png a plot of at most 2500 points."""
    w: fields.UseAppendAction[tuple[Path, ...]] = ()
    """A file that --project has written. Once for each. For stylegan2 and stylegan3.
    Its w are drawn instead of --num pictures. The pictures of --seeds follow them.
    A table of --style-mix has these w on its left edge and --seeds on its top edge.
    A table without --seeds has one half of the w on each edge."""
    class_: Annotated[str | None, fields.arg(name="class")] = None
    """Name or number of the class of all pictures. None: each row of the grid has the next class."""
    truncation: float = 1
    """Factor for the distance of every w from the mean. For stylegan2 and stylegan3.
    A factor below 1 gives fewer strange pictures, and less variety."""
    interpolate: int | None = None
    """Frames from each picture to the next, in a closed walk through --num pictures.
    --out must end in .gif, .webp or .mp4, which needs ffmpeg."""
    grid: str | None = None
    """Columns x rows, such as 3x2: show as many walks side by side. Each has its share of the pictures."""
    style_mix: str | None = None
    """Layers, such as 0-3,7: draw a table of mixed pictures. For stylegan2 and stylegan3.
    A mixed picture has the w of these layers from the top edge, and the w of the others from the left edge.
    The table has as many rows and columns as a grid of --num pictures.
    The first half of --seeds is the left edge, the second half is the top edge."""
    project: Path | None = None
    """A picture: search the w whose picture is nearest to it. For stylegan2 and stylegan3.
    The file of --out shows both pictures side by side. A file of the same name that ends in .npz holds w, for --w."""
    space: search.Space = "w"
    """Space of that search. w: one w for all layers.
    w+: a w for each layer, which comes nearer and mixes worse."""
    steps: int = 500
    """Number of steps of that search."""
    batch: int = 64
    """Pictures per pass."""
    plugin: fields.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in. Once for each."""
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
        """The seed of all pictures, or a list with the seed of each picture."""
        return self.seed if self.seeds is None else parse_numbers("seeds", self.seeds, 2**63)

    @property
    def columns(self) -> int:
        """Columns of the grid, or of the table without its left edge."""
        edges = self.style_mix is not None and self.seeds is not None
        return self.num // 2 if edges else math.ceil(math.sqrt(self.num))


def generate(options: Options) -> Path:
    """Do what the command line asks and return the file or directory that was written.

    Raises:
        ValueError: an unknown class or device; an option that the generator cannot serve; an `out` that is no directory
            and has a wrong ending.
        CheckpointError: see `load`.
        OSError: `out` exists or cannot be written. Everything but a full disk is found before the first picture.
    """
    plugins.load(*options.plugin)
    trained = load(options.checkpoint, options.device, best=options.best)
    trained.require_noise()
    _check_styles(options, trained.network)
    classes = trained.classes(options.num, options.class_, columns=options.columns)
    truncation = trained.truncated(options.truncation)
    ws = _ws(options, trained, classes, **truncation) if options.w else None
    num = options.num if ws is None else len(ws)
    axes = kind_of(models.data_kind(trained.config)).axes
    in_one = _prepare(options, num, axes, trained)
    if options.project is not None:
        _search(options, trained, classes)
    elif options.interpolate is not None:
        _walk(options, trained.network, num, ws, classes, **truncation)
    elif options.style_mix is not None:
        _mix(options, trained.network, ws, classes, **truncation)
    else:
        if ws is None:
            sources = {"seed": options.sources, "classes": classes}
            batches = images(trained.network, num, **sources, batch=options.batch, **truncation)
        else:
            batches = images_of(trained.network, ws, batch=options.batch)
        with tqdm(total=num, unit=" img", disable=None if num > options.batch else True) as bar:
            if in_one:
                columns = options.columns if ws is None else None
                _write_one_file(options.out, trained, _counted(batches, bar), columns, axes)
            else:
                _write_directory(options.out, _counted(batches, bar), trained.bits, as_volumes=axes == 3)
    return options.out


def _counted(batches: Iterator[Tensor], bar: tqdm) -> Iterator[Tensor]:
    for img in batches:
        yield img
        bar.update(len(img))


def _write_one_file(
    out: Path, trained: TrainedGenerator, batches: Iterator[Tensor], columns: int | None, axes: int
) -> None:
    """Write a grid, or values: images [N, C, H, W], volumes of occupied voxels, bool [N, X, Y, Z], or points [N, 2]."""
    drawn = torch.cat([img.float().cpu() for img in batches])
    if out.suffix.lower() == ".png":
        write_picture(grid(models.pictures(trained.config, drawn), columns), out)
    elif axes == 3:
        volumes.write_voxels(out, drawn[:, 0].numpy())
    elif axes == 0:
        scatter.write_points(out, drawn.numpy())
    else:
        write_values(to_levels(drawn, trained.bits), out)


def _write_directory(out: Path, batches: Iterator[Tensor], bits: int, *, as_volumes: bool) -> None:
    """Write 000000.png, 000001.png, ..., or the surfaces of volumes as 000000.obj, 000001.obj, ..."""
    if as_volumes:
        drawn = (volume for img in batches for volume in img[:, 0].float().cpu().numpy())
        for i, volume in enumerate(drawn):
            volumes.write_obj(out / targets.numbered(i, ".obj"), volume)
    else:
        drawn = (pixels for img in batches for pixels in to_levels(img, bits))
        for i, pixels in enumerate(drawn):
            write_picture(picture(pixels), out / targets.numbered(i))


def _ws(options: Options, trained: TrainedGenerator, classes: list[int] | None, **truncation: float) -> Tensor:
    """ws [N, num_ws, w_dim] of the files, followed by the ws of the seeds."""
    ws = w_files.read(options.w, trained.network)
    if options.seeds is not None:
        z, c = latents(trained.network, options.num, seed=options.sources, classes=classes)
        ws = torch.cat([ws, trained.network.ws(z, c, **truncation)])
    if options.style_mix is not None and options.seeds is None and len(ws) % 2:
        raise ValueError(f"w: want as many for the left edge as for the top one, or --seeds for that, got {len(ws)}")
    return ws


def _walk(
    options: Options, G: nn.Module, num: int, ws: Tensor | None, classes: list[int] | None, **truncation: float
) -> None:
    """Write an animation of walks side by side. Each walk has its share of the pictures."""
    columns, rows = map(int, (options.grid or "1x1").split("x"))
    cells = columns * rows
    if num % cells:
        raise ValueError(f"grid: want a multiple of {cells} pictures for {cells} walks side by side, got {num}")
    if num // cells < 2:
        raise ValueError(f"interpolate: want two pictures or more to walk between, got {num // cells}")
    pace = {"frames": options.interpolate, "batch": max(1, options.batch // cells)}
    shares = [slice(i, i + num // cells) for i in range(0, num, num // cells)]
    if ws is None:
        z, c = latents(G, num, seed=options.sources, classes=classes)
        walks = [walk(G, z[share], None if c is None else c[share], **pace, **truncation) for share in shares]
    else:
        walks = [walk_in_w(G, ws[share], **pace) for share in shares]
    frames = (
        frame
        for imgs in zip(*walks, strict=True)
        for frame in animation.side_by_side(
            [visible(to_uint8(models.pictures(G.config, img))) for img in imgs], columns
        )
    )
    total = num // cells * options.interpolate
    animation.write(options.out, iter(tqdm(frames, total=total, unit=" frame", disable=None)))


def _mix(options: Options, G: nn.Module, ws: Tensor | None, classes: list[int] | None, **truncation: float) -> None:
    """Write a table: its pictures have the w of some layers from the top edge, and of the others from the left edge."""
    layers = parse_numbers("style_mix", options.style_mix, G.config.num_ws)
    side = options.columns
    if ws is None:
        z, c = latents(G, 2 * side, seed=options.sources, classes=classes and (classes * 2)[: 2 * side])
        ws = G.ws(z, c, **truncation)
    else:
        side = len(ws) // 2 if options.seeds is None else len(ws) - options.num
    rows = table(G, ws[:side], ws[side:], layers, batch=options.batch)
    drawn = torch.cat(list(tqdm(rows, total=side + 1, unit=" row", disable=None)))
    write_picture(grid(drawn, len(ws) - side + 1), options.out)


def _search(options: Options, trained: TrainedGenerator, classes: list[int] | None) -> None:
    """Search the w whose picture is nearest to the given one. Write both pictures side by side, and w."""
    G = trained.network
    img = search.read(options.project, G, trained.bits)
    c = None if classes is None else torch.eye(G.config.c_dim, device=img.device)[classes[:1]]
    limits = {"steps": options.steps, "space": options.space, "seed": options.seed}
    steps = tqdm(search.project(G, img, c, search.distance(G), **limits), total=options.steps, disable=None)
    for found in steps:
        w, distance = found
        steps.set_postfix(distance=f"{distance:.4f}", refresh=False)
    (drawn,) = images_of(G, w.expand(-1, G.config.num_ws, -1), batch=1)
    write_picture(grid(torch.cat([img, drawn]).cpu(), 2), options.out)
    w_files.write(options.out.with_suffix(".npz"), w)


def _check_styles(options: Options, G: nn.Module) -> None:
    """Raise ValueError if an option needs latents w and the family has none, or if the picture to search is missing."""
    for name in ("style_mix", "project", "w"):
        if getattr(options, name) not in (None, ()) and not models.capabilities(G.config).styles:
            raise ValueError(f"{name}: {models.family(G.config)} has no styles")
    if options.project is not None and G.config.channels not in COLOURS:
        raise ValueError(f"project: want a generator of 1, 3 or 4 channels, as pictures have, got {G.config.channels}")
    if options.project is not None and not options.project.is_file():
        raise FileNotFoundError(f"project: want a picture, and there is no file {options.project}")


def _prepare(options: Options, num: int, axes: int, trained: TrainedGenerator) -> bool:
    """Make the directory, and return whether `out` is one file. Raises as `generate` does."""
    out, as_volumes = options.out, axes == 3
    if options.interpolate is not None:
        if axes == 0:
            raise ValueError("interpolate: want a generator of images or volumes, got one of points")
        animation.check(out)
        targets.prepare([out], out.parent, overwrite=options.overwrite)
        return True
    for name, what in (("style_mix", "a table"), ("project", "two pictures side by side")):
        if getattr(options, name) is not None and (out.suffix.lower() != ".png" or out.is_dir()):
            raise ValueError(
                f"out: want a name ending in .png for {what}, which --{name.replace('_', '-')} draws, got {out}"
            )
    endings = {0: (".png", *scatter.ENDINGS), 2: (".png", ".npz", ".npy"), 3: (".png", ".npz")}[axes]
    if axes == 0 and out.suffix.lower() not in endings:
        raise ValueError(f"out: want a name ending in .png (a plot), .npy or .csv (coordinates) for points, got {out}")
    in_one = axes == 0 or targets.is_one_file(out, endings)
    if as_volumes and not in_one:
        volumes.require_surfaces()
    channels, bits = trained.config.channels, trained.bits
    if not in_one and (channels not in COLOURS or (bits == 16 and channels > 1)):
        what = f"images of {bits} bits and {channels} channels, which no .png of Pillow holds"
        raise ValueError(f"out: want a name ending in .npz or .npy for {what}, or .png for a grid, got {out}")
    if in_one:
        files = [out] if options.project is None else [out, out.with_suffix(".npz")]
    else:
        files = [out / targets.numbered(i, ".obj" if as_volumes else ".png") for i in range(num)]
    targets.prepare(files, out.parent if in_one else out, overwrite=options.overwrite)
    return in_one


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    print(generate(flags.parse(Options, argv, command="generate")))


if __name__ == "__main__":
    sys.exit(main())
