"""Numbers for a trained generator: `python -m gan_engine.evaluate CHECKPOINT --num 5000`.

    fd_fashion32 N=5000    Frechet distance to the data in the features of the classifier fashion32
    kd_fashion32 N=5000    kernel distance, the same; unlike the former it does not depend on N but for chance
    classes                how many classes the classifier finds in at least 1 % of the images
    accuracy               share of the images that it finds of the class they were asked to be, given classes

fashion32 knows garments as the embedded images show them: 32x32, grey. Its distances compare generators of those, with
the same N, and are not FIDs, which are of another network.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from gan_engine import checkpoint, models
from gan_engine.checkpoint import CheckpointError
from gan_engine.data import DataConfig, load
from gan_engine.data.arrays import FASHION_CLASSES
from gan_engine.devices import choose_device
from gan_engine.generate import images, load_generator
from gan_engine.metrics.classifier import NAME, classify, load_classifier
from gan_engine.metrics.distances import frechet_distance, kernel_distance
from gan_engine.monitors import to_uint8


@dataclass(frozen=True)
class Options:
    """Measure the averaged generator of a checkpoint against images."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, or the directory of a run, of which the newest intact checkpoint is taken."""
    data: str = DataConfig.source
    """The images to compare with, all of them; see the same flag of gan_engine.train."""
    data_root: str = DataConfig.root
    """Folder of the torchvision sets."""
    num: int = 5000
    """Images to generate; only measurements of the same number compare."""
    seed: int = 0
    """Of the noise."""
    batch: int = 100
    """Images per pass."""
    device: str = "auto"
    """cpu, cuda or cuda:N. auto: the first GPU if there is one."""

    def __post_init__(self) -> None:
        for name, least in (("num", 2), ("batch", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: want at least {least}, got {getattr(self, name)}")


def evaluate(options: Options) -> dict[str, float]:
    """What the module says, by name.

    Raises:
        ValueError: a generator of images that the classifier does not take, or an unknown device.
        CheckpointError, DataError: see `load_generator` and gan_engine.data.load.
    """
    device = choose_device(options.device)
    path = checkpoint.find(options.checkpoint)
    G = load_generator(path, device)
    classes = tuple(checkpoint.load(path).get("class_names") or ())
    if isinstance(G.config, models.TRANSLATION):
        raise ValueError(
            f"{options.checkpoint}: want a generator that starts from noise, got {models.family(G.config)}"
        )
    if models.data_kind(G.config) == "voxels":
        raise ValueError(f"{NAME}: want a generator of images, got {models.family(G.config)}, which makes volumes")
    if (G.config.resolution, G.config.channels) != (32, 1):
        size = f"{G.config.resolution}x{G.config.resolution} with {G.config.channels} channels"
        raise ValueError(f"{NAME}: want a generator of 32x32 grey images, got {size}")
    data = load(DataConfig(options.data, root=options.data_root), resolution=32, channels=1)
    classifier = load_classifier(device)
    asked = [i % G.config.c_dim for i in range(options.num)] if G.config.c_dim else None

    drawn = images(G, options.num, seed=options.seed, classes=asked, batch=options.batch)
    total = -(-options.num // options.batch)
    pixels = [torch.from_numpy(to_uint8(img)) for img in tqdm(drawn, total=total, unit=" batches", disable=None)]
    features, found = classify(classifier, torch.cat(pixels).permute(0, 3, 1, 2))
    real, _ = classify(classifier, data.images)
    results = {
        f"fd_{NAME} N={options.num}": frechet_distance(features, real),
        f"kd_{NAME} N={options.num}": kernel_distance(features, real),
        "classes": int((found.bincount(minlength=len(FASHION_CLASSES)) >= options.num / 100).sum()),
    }
    if asked is not None and classes == FASHION_CLASSES:
        results["accuracy"] = float((found == torch.tensor(asked)).float().mean())
    return results


def main() -> None:
    """The command line; an error is one line on standard error."""
    try:
        for name, value in evaluate(tyro.cli(Options, prog="python -m gan_engine.evaluate")).items():
            print(f"{name:22} {value:.4f}" if isinstance(value, float) else f"{name:22} {value}")
    except (ValueError, OSError, CheckpointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    main()
