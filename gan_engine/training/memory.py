"""The check that a run can fit into the memory of its device."""

import math
import os

import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data.kinds import kind_of

# Bytes for a weight in training: the weight, its gradient, two moments and, for G, its average.
_OF_D, _OF_G = 16, 20


def require(config: Config, device: torch.device) -> None:
    """Raises ValueError where the weights and the images of one pass are larger than the whole memory of `device`.

    The intermediate results of the networks are not counted, so a run that passes here may still run out of memory.
    """
    total = _total(device)
    with torch.device("meta"):  # where tensors have sizes and no memory
        G, D = models.build(config.model)
    weights = sum(size * p.numel() for net, size in ((G, _OF_G), (D, _OF_D)) for p in net.parameters())
    model = config.model
    values = model.channels * math.prod(kind_of(models.data_kind(model)).sides(model.resolution))
    images = 2 * 4 * (config.batch_gpu or config.batch_size) * values
    needed = weights + images
    if total is not None and needed > total:
        raise ValueError(
            f"memory: {weights / 1e9:,.1f} GB for weights, gradients and moments and {images / 1e9:,.1f} GB for the "
            f"images of a pass are more than the {total / 1e9:,.1f} GB of {device}; want smaller networks, a smaller "
            "--resolution or a smaller --batch-gpu"
        )


def _total(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return None
