"""Images that a run does not train on (`--held-out N`), so that D can be asked about images that it has never seen."""

import dataclasses

import torch

from gan_engine.data import ImageSet
from gan_engine.data.image_set import empty_images


def split(data: ImageSet, num: int, *, seed: int) -> tuple[ImageSet, ImageSet | None]:
    """The images to train on, and `num` others, drawn by `seed`; None for num = 0, and `data` is then as it was.

    Pairs stay together. Sets without pairs keep `num` images of each kind apart.

    Raises ValueError if no image would be left to train on.
    """
    if not num:
        return data, None
    least = min(len(data), len(data) if data.source is None else len(data.source))
    if num >= least:
        raise ValueError(f"held_out: want fewer than the {least:,} images of {data.name}, got {num:,}")
    learnt, held_out = _split(data, num, seed)
    if data.source is None:
        return learnt, held_out
    sources = _split(data.source, num, seed)
    parts = zip((learnt, held_out), sources, strict=True)
    return tuple(dataclasses.replace(part, source=source, paired=data.paired) for part, source in parts)


def _split(data: ImageSet, num: int, seed: int) -> tuple[ImageSet, ImageSet]:
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    note = f"{num:,} of {len(data):,} held out"
    learnt, held_out = (_part(data, order[part].sort().values) for part in (slice(num, None), slice(num)))
    return dataclasses.replace(learnt, notes=(*data.notes, note)), held_out


def _part(data: ImageSet, index: torch.Tensor) -> ImageSet:
    """The images `index` of `data`, in memory or on the disk like all sets."""
    if data.images.ndim == 2:  # points take no room
        images = data.images[index]
    else:
        shape = data.images.shape
        images = empty_images(
            data.name, len(index), shape[1], tuple(shape[-2:]), dims=data.images.ndim - 2, bits=data.bits
        )
        for to, part in zip(images.split(1024), index.split(1024), strict=True):
            to.copy_(data.images[part])
    labels = None if data.labels is None else data.labels[index]
    return dataclasses.replace(data, images=images, labels=labels, source=None, paired=False)
