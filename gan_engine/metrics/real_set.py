"""The features of the real images. They are computed once for a set and an extractor, and kept on the disk.

The name of a file is a hash of the images, of what the extractor says about itself and of its weights.

Folder: `features` in the folder of gan_engine.data.cache, which GAN_ENGINE_CACHE names. GAN_ENGINE_CACHE=0 keeps none.
"""

import contextlib
import hashlib
from pathlib import Path

import torch

from gan_engine.data import ImageSet, cache
from gan_engine.data.image_set import to_eight_bits
from gan_engine.metrics.extractors import Extractor
from gan_engine.metrics.sample import KEPT, Sample
from gan_engine.system import checkpoint
from gan_engine.system.bars import bar

_FILES = 20  # sets that are kept, each of at most 115 MB; the oldest go first
_VERSION = 1  # changes with the code that makes features


def real_sample(data: ImageSet, extractor: Extractor, *, batch: int, device: torch.device) -> Sample:
    """The moments of the features of all images of `data`, and the features of at most KEPT of them.

    Which images are kept is drawn from a fixed seed. A folder that cannot be written costs time, and no more.
    """
    path = _path(data, extractor)
    if path is not None and path.is_file():
        with contextlib.suppress(checkpoint.CheckpointError, KeyError, TypeError):
            return Sample.from_state(checkpoint.load(path))
    sample = _computed(data, extractor, batch, device)
    if path is not None:
        with contextlib.suppress(checkpoint.CheckpointError, OSError):
            checkpoint.save(path, sample.state_dict())
            for old in sorted(path.parent.glob("*.pt"), key=lambda file: file.stat().st_mtime_ns)[:-_FILES]:
                old.unlink(missing_ok=True)
    return sample


def _computed(data: ImageSet, extractor: Extractor, batch: int, device: torch.device) -> Sample:
    sample, keep = Sample(), torch.zeros(len(data), dtype=torch.bool)
    keep[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:KEPT]] = True
    batches = zip(data.images.split(batch), keep.split(batch), strict=True)
    total = -(-len(data) // batch)
    for images, chosen in bar(batches, "real images", total=total, unit=" batches"):
        sample.add(*extractor(to_eight_bits(images).to(device)), chosen)
    return sample


def _path(data: ImageSet, extractor: Extractor) -> Path | None:
    home = cache.folder()
    if home is None:
        return None
    key = f"{_VERSION} {KEPT} {data.sha256} {extractor.about} {_weights(extractor)}"
    return home / "features" / f"{hashlib.sha256(key.encode()).hexdigest()}.pt"


def _weights(extractor: Extractor) -> str:
    """The SHA-256 of the names and values of all weights: other weights give other features."""
    digest = hashlib.sha256()
    for name, values in sorted(extractor.state_dict().items()):
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
