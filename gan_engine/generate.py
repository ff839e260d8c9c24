"""Pictures from a trained generator: `python -m gan_engine.generate CHECKPOINT --num 64 --seed 0 --out grid.png`."""

import inspect
import math
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from gan_engine import checkpoint, models
from gan_engine.checkpoint import CheckpointError
from gan_engine.devices import choose_device
from gan_engine.monitors import grid, picture, to_uint8

_OTHER_PICTURES = {".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Options:
    """Draw pictures from the averaged generator of a checkpoint."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or the directory of a run, of which the newest intact checkpoint is taken."""
    num: int = 64
    """Pictures to draw."""
    seed: int = 0
    """Of the noise. Picture i of a seed is the same whatever --num and --batch are, up to rounding."""
    out: Path = Path("grid.png")
    """A name ending in .png: one grid of all pictures. Any other: a directory of 000000.png, 000001.png, ..."""
    class_: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """Name or number of the class of all pictures. None: one class for each row of the grid, in turn."""
    truncation: float = 1
    """Distance of every w from the mean, as a factor: below 1 fewer strange pictures for less variety. stylegan2."""
    batch: int = 64
    """Pictures per pass."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one."""
    overwrite: bool = False
    """Replace files that exist."""

    def __post_init__(self) -> None:
        for name in ("num", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: want at least 1, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed: want 0 to 2^63 - 1, got {self.seed}")
        if not math.isfinite(self.truncation):
            raise ValueError(f"truncation: want a finite number, got {self.truncation}")


def load_generator(path: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """The averaged generator G_ema of a checkpoint or run directory, on `device`, in eval mode and without gradients.

        G = load_generator("runs/dcgan-1")
        img = G(torch.randn(16, G.config.z_dim))     # [16, C, H, W] in [-1, 1]

    A generator with classes also takes c [N, G.config.c_dim], one-hot.

    Raises:
        CheckpointError: there is no intact checkpoint, or it does not hold a generator that this version can build.
    """
    path = checkpoint.find(path)
    return _generator(path, checkpoint.load(path)).to(device)


def images(
    G: nn.Module, num: int, *, seed: int = 0, classes: list[int] | None = None, batch: int = 64, **options: float
) -> Iterator[Tensor]:
    """`num` images of G in batches [at most `batch`, C, H, W] in [-1, 1], on G's device.

    Args:
        G: a generator as `load_generator` returns it.
        num: images to draw.
        seed: of the noise, which is drawn on the CPU, one image after the other.
        classes: the class of each image, for a generator with classes.
        batch: images per pass.
        options: of G in its family, such as truncation.
    """
    device = next(G.parameters()).device
    noise = torch.Generator().manual_seed(seed)
    for i in range(0, num, batch):
        n = min(batch, num - i)
        z = torch.stack([torch.randn(G.config.z_dim, generator=noise) for _ in range(n)])
        c = None
        if classes is not None:
            c = torch.eye(G.config.c_dim)[classes[i : i + n]].to(device)
        with torch.no_grad():
            yield G(z.to(device), c, **options)


def generate(options: Options) -> Path:
    """Do what the command line asks and return the file or directory that was written.

    Raises:
        ValueError: an unknown class or device, a generator without truncation, or `out` is neither a .png nor a
            directory.
        CheckpointError: see `load_generator`.
        OSError: `out` exists or cannot be written. All but a full disk is found before the first picture is drawn.
    """
    device = choose_device(options.device)
    path = checkpoint.find(options.checkpoint)
    state = checkpoint.load(path)
    G = _generator(path, state).to(device)
    if isinstance(G.config, models.TRANSLATION):
        raise ValueError(
            f"{path}: want a generator that starts from noise, got {models.family(G.config)}, which does not"
        )
    columns = math.ceil(math.sqrt(options.num))
    classes = _classes(options, G.config.c_dim, list(state.get("class_names") or ()), columns)
    more = _truncation(options, G)
    as_grid = _prepare(options)

    batches = images(G, options.num, seed=options.seed, classes=classes, batch=options.batch, **more)
    drawn = []
    with tqdm(total=options.num, unit=" img", disable=None if options.num > options.batch else True) as bar:
        for first, img in zip(range(0, options.num, options.batch), batches, strict=True):
            if as_grid:
                drawn.append(img.float().cpu())
            else:
                for i, pixels in enumerate(to_uint8(img), first):
                    picture(pixels).save(options.out / _name(i))
            bar.update(len(img))
    if as_grid:
        grid(torch.cat(drawn), columns).save(options.out)
    return options.out


def _generator(path: Path, state: dict) -> nn.Module:
    checkpoint.require(state, ("model", "G_ema"), path)
    try:
        G, _ = models.build(models.from_dict(state["model"]))
        G.load_state_dict(state["G_ema"])
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its generator does not fit this version of gan_engine: {error}") from error
    return G.eval().requires_grad_(False)


def _classes(options: Options, c_dim: int, names: list[str], columns: int) -> list[int] | None:
    """The class of each picture: the one asked for, else one for each row of the grid, in turn."""
    wanted = options.class_
    if not c_dim:
        if wanted is not None:
            raise ValueError(f"class: this generator was trained without classes, got {wanted!r}")
        return None
    if wanted is None:
        return [i // columns % c_dim for i in range(options.num)]
    if wanted in names:
        return [names.index(wanted)] * options.num
    if wanted.isdecimal() and int(wanted) < c_dim:
        return [int(wanted)] * options.num
    among = f" or one of {', '.join(names)}" if names else ""
    raise ValueError(f"class: want a number from 0 to {c_dim - 1}{among}, got {wanted!r}")


def _truncation(options: Options, G: nn.Module) -> dict[str, float]:
    if options.truncation == 1:
        return {}
    if "truncation" not in inspect.signature(G.forward).parameters:
        raise ValueError(f"truncation: {models.family(G.config)} has none, got {options.truncation:g}")
    return {"truncation": options.truncation}


def _prepare(options: Options) -> bool:
    """Whether a grid is asked for. Makes the directory, and refuses what exists or cannot be written."""
    out = options.out
    as_grid = out.suffix.lower() == ".png" and not out.is_dir()
    if out.suffix.lower() in _OTHER_PICTURES and not out.is_dir():
        raise ValueError(f"out: want a name ending in .png or a directory, got {out}")
    if not as_grid and out.is_file():
        raise FileExistsError(f"{out} is a file; want a directory or a name ending in .png")
    files = [out] if as_grid else [out / _name(i) for i in range(options.num)]
    existing = next((file for file in files if file.exists()), None)
    if existing is not None and not options.overwrite:
        raise FileExistsError(f"{existing} exists; --overwrite replaces it")
    directory = out.parent if as_grid else out
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise type(error)(f"{directory} cannot be written: {error.strerror}") from error
    return as_grid


def _name(i: int) -> str:
    return f"{i:06d}.png"


def main() -> None:
    """The command line; an error is one line on standard error."""
    try:
        print(generate(tyro.cli(Options, prog="python -m gan_engine.generate")))
    except (ValueError, OSError, CheckpointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    main()
