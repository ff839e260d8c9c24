"""Advice at the start of a run: one sentence for each thing that a person may not know."""

from torch import nn

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import ImageSet
from gan_engine.system.names import counted

FEW_IMAGES = 10_000  # D learns fewer images by heart (figure 1 of arXiv:2006.06676)
SMALL_BATCH = 4  # the statistics of fewer images are of no use to a batch norm


def advice(config: Config, data: ImageSet, nets: list[nn.Module]) -> list[str]:
    """Sentences for the start of a run of `nets` on `data`. Toy data, which are for trials, need no advice."""
    return [
        sentence
        for rule in (_few_images, _unused_classes, _frozen_chance, _small_batches)
        if (sentence := rule(config, data, nets))
    ]


def _few_images(config: Config, data: ImageSet, nets: list[nn.Module]) -> str | None:
    if config.data == "toy" or config.augment != "none" or len(data) >= FEW_IMAGES or not config.augmentations:
        return None
    learnt = f"a set of {counted(len(data), 'image')} is small, and D may learn it by heart"
    return f"{learnt}: {' or '.join(f'--augment {name}' for name in config.augmentations)} helps"


def _unused_classes(config: Config, data: ImageSet, nets: list[nn.Module]) -> str | None:
    unused = not config.conditional and models.reads_classes(config.model)
    if config.data == "toy" or not unused or data.num_classes < 2:
        return None
    return f"the data have {data.num_classes:,} classes, and the networks do not see them: --conditional shows them"


def _frozen_chance(config: Config, data: ImageSet, nets: list[nn.Module]) -> str | None:
    if not config.freeze_d or config.init_from or config.resume:
        return None
    return f"--freeze-d {config.freeze_d} keeps random weights: --init-from RUN gives D trained weights"


def _small_batches(config: Config, data: ImageSet, nets: list[nn.Module]) -> str | None:
    images = min(config.batch_gpu or config.batch_size, config.batch_size)
    if images >= SMALL_BATCH:
        return None
    if not any("BatchNorm" in type(module).__name__ for net in nets for module in net.modules()):
        return None
    flag = "--batch-size" if config.batch_gpu is None else "--batch-gpu"
    return f"batch norms over {counted(images, 'image')} are mostly noise: want {flag} {SMALL_BATCH} or more"
