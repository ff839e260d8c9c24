"""Numbers for a trained generator: `python -m gan_engine.evaluate CHECKPOINT --num 5000`.

Of 32x32 grey images, in the features of a classifier of garments:

    fd_fashion32 N=5000    Frechet distance to the data in the features of the classifier fashion32
    kd_fashion32 N=5000    kernel distance, the same; unlike the former it does not depend on N but for chance
    classes                how many classes the classifier finds in at least 1 % of the images
    accuracy               share of the images that it finds of the class they were asked to be, given classes

Of translations, of all pairs of the data; cyclegan's in both directions:

    L1                     mean absolute difference from the target, black and white being 1 apart
    perceptual             distance from it in the features of a classifier of photographs, where that is installed
    ... of the source      the same of a translation that changes nothing

Of volumes:

    occupied               mean share of occupied voxels, and its standard deviation between volumes (sd)
    ... of the data        the same of the data

fashion32 knows garments as the embedded images show them: 32x32, grey. Its distances compare generators of those, with
the same N, and are not FIDs, which are of another network. It has learnt from 8,000 of the images themselves, is right
about 94 % of those and 90 % of the others, and 1,000 of them are at a distance (fd) of 0.6 from all. A generator that
knows them by heart is not told from one that draws new ones. Enlarged photographs are compared by gan_engine.upscale.
"""

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

from gan_engine import models, plugins
from gan_engine.command_line import console, flags
from gan_engine.config import from_dict
from gan_engine.data import DataConfig, DataError, ImageSet, load, to_float
from gan_engine.data.arrays import FASHION_CLASSES
from gan_engine.inference.generator import from_state, images
from gan_engine.inference.latents import MOST_NUMBERS
from gan_engine.losses.translation import l1
from gan_engine.metrics import perceptual
from gan_engine.metrics.classifier import NAME, classify, load_classifier
from gan_engine.metrics.distances import frechet_distance, kernel_distance
from gan_engine.models.checks import check_at_least, check_types
from gan_engine.pictures.picture import to_uint8
from gan_engine.runs import run_state
from gan_engine.system import checkpoint
from gan_engine.system.devices import choose_device


@dataclass(frozen=True)
class Options:
    """Measure the averaged generator of a checkpoint against images."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or the directory of a run, of which the newest intact checkpoint is taken."""
    data: str | None = None
    """What to compare with, all of it; see the same flag of gan_engine.train. Of translations: pairs, best such as the
    run has not seen. None: what the run was trained on."""
    data_root: str = DataConfig.root
    """Folder of the torchvision sets that --data names."""
    num: int = 5000
    """Images to generate from noise; only measurements of the same number compare."""
    seed: int = 0
    """Of the noise."""
    batch: int = 100
    """Images per pass."""
    plugin: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A Python file or module that the run had as a plug-in; once for each."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one."""

    def __post_init__(self) -> None:
        check_types(self, largest={"num": MOST_NUMBERS, "batch": MOST_NUMBERS, "seed": 2**63 - 1})
        for name, least in (("num", 2), ("batch", 1), ("seed", 0)):
            check_at_least(self, least, name)


def evaluate(options: Options) -> dict[str, float]:
    """What the module says, by name.

    Raises:
        ValueError: a generator of images that the classifier does not take, or an unknown device.
        CheckpointError, DataError: see inference.generator.load and gan_engine.data.load.
    """
    path = checkpoint.find(options.checkpoint)
    plugins.load(*options.plugin)
    device = choose_device(options.device)
    state = checkpoint.load(path)
    G = from_state(state, path).network.to(device)
    config, family = G.config, models.family(G.config)
    if family == "srgan":
        raise ValueError(f"{options.checkpoint}: python -m gan_engine.upscale --original compares what srgan enlarges")
    measure = _garments
    if models.capabilities(config).measure == "translations":
        measure = _translations
    elif models.data_kind(config) == "voxels":
        measure = _volumes
    elif (config.resolution, config.channels) != (32, 1):
        size = f"{config.resolution}x{config.resolution} with {config.channels} channels"
        raise ValueError(f"{NAME}: want a generator of 32x32 grey images, got {size}")
    return measure(G, _data(options, config, state), options, tuple(run_state.class_names(state, path)))


def _data(options: Options, config: models.Config, state: dict[str, Any]) -> ImageSet:
    """What `options` names, or what the run of `state` was trained on, if that is still where it was."""
    kind = models.data_kind(config)
    if kind == "unpaired":
        if options.data is None:
            raise ValueError(
                "data: want --data with pairs for cyclegan, which learns from two sets whether they are paired or not"
            )
        kind = "pairs"
    sizes = {"resolution": config.resolution, "channels": config.channels, "kind": kind}
    if options.data is not None:
        return load(DataConfig(options.data, root=options.data_root), **sizes)
    checkpoint.require(state, ("config", "sampler"), options.checkpoint)
    run = from_dict(state["config"], options.checkpoint)
    run_state.check(state["sampler"], run_state.SAMPLER, "sampler", options.checkpoint)
    try:
        data = load(run.data_config, seed=run.seed, **sizes)
    except DataError as error:
        raise DataError(f"{error}; --data names others than those of the run") from None
    if models.capabilities(config).measure == "translations":
        warnings.warn("these pairs are those of the run, which it has seen; --data names others", stacklevel=3)
    if data.sha256 != state["sampler"]["sha256"]:
        raise DataError(
            f"data: {run.data} has other images than the run was trained on; --data names what to compare with"
        )
    return data


def _garments(G: nn.Module, data: ImageSet, options: Options, class_names: tuple[str, ...]) -> dict[str, float]:
    classifier = load_classifier(next(G.parameters()).device)
    asked = _classes(G, options)
    pixels = [torch.from_numpy(to_uint8(img)) for img in _drawn(G, options, asked)]
    features, found = classify(classifier, torch.cat(pixels).permute(0, 3, 1, 2))
    real, _ = classify(classifier, data.images)
    results = {
        f"fd_{NAME} N={options.num}": frechet_distance(features, real),
        f"kd_{NAME} N={options.num}": kernel_distance(features, real),
        "classes": int((found.bincount(minlength=len(FASHION_CLASSES)) >= options.num / 100).sum()),
    }
    if asked is not None and class_names == FASHION_CLASSES:
        results["accuracy"] = float((found == torch.tensor(asked)).float().mean())
    return results


@torch.no_grad()
def _translations(G: nn.Module, data: ImageSet, options: Options, class_names: tuple[str, ...]) -> dict[str, float]:
    device = next(G.parameters()).device
    measures = {"L1": lambda x, y: l1(x, y) / 2}
    if perceptual.installed():
        measures["perceptual"] = perceptual.PerceptualDistance().to(device)
    else:
        warnings.warn(f"no perceptual distances: pip install {perceptual.PIP} brings them", stacklevel=2)
    sums: dict[str, float] = {}

    def add(source: Tensor, target: Tensor, *direction: str) -> None:
        compared = {"": G(source, *direction), " of the source": source.expand_as(target)}
        for name, distance in measures.items():
            for whose, img in compared.items():
                key = " ".join([*direction, name + whose])
                sums[key] = sums.get(key, 0) + float(distance(img, target).sum())

    batches = zip(data.images.split(options.batch), (data.source or data).images.split(options.batch), strict=True)
    total = -(-len(data) // options.batch)
    for target, source in tqdm(batches, total=total, unit=" batches", disable=None):
        target, source = (to_float(x.to(device)) for x in (target, source))
        if models.capabilities(G.config).directions:
            add(source, target, "A2B")
            add(target, source, "B2A")
        else:
            add(G.source_of(target) if data.source is None else source, target)
    return {name: total / len(data) for name, total in sums.items()}


def _volumes(G: nn.Module, data: ImageSet, options: Options, class_names: tuple[str, ...]) -> dict[str, float]:
    shares = {
        "": torch.cat([occupied(img > 0) for img in _drawn(G, options, _classes(G, options))]).cpu(),
        " of the data": torch.cat([occupied(x > 0) for x in data.images.split(options.batch)]),
    }
    return {
        f"occupied{sd}{whose}": float(value)
        for whose, x in shares.items()
        for sd, value in (("", x.mean()), (" sd", x.std()))
    }


def occupied(volumes: Tensor) -> Tensor:
    """bool [N, ...] -> the share of True of each [N], float64"""
    return volumes.flatten(1).double().mean(1)


def _classes(G: nn.Module, options: Options) -> list[int] | None:
    """The class of each image: all of them in turn, for a generator with classes."""
    return [i % G.config.c_dim for i in range(options.num)] if G.config.c_dim else None


def _drawn(G: nn.Module, options: Options, classes: list[int] | None) -> Iterator[Tensor]:
    drawn = images(G, options.num, seed=options.seed, classes=classes, batch=options.batch)
    return tqdm(drawn, total=-(-options.num // options.batch), unit=" batches", disable=None)


@console.command
def main(argv: list[str]) -> None:
    """The command line."""
    for name, value in evaluate(flags.parse(Options, argv, command="evaluate")).items():
        print(f"{name:27} {value:.4f}" if isinstance(value, float) else f"{name:27} {value}")


if __name__ == "__main__":
    sys.exit(main())
