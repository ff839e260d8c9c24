"""The measure of generators of volumes: the share of occupied voxels.

occupied               mean share of occupied voxels
occupied sd            standard deviation of that share between volumes
... of the data        the same numbers of the data
"""

import torch
from torch import Tensor

from gan_engine.metrics.subject import Subject


def measure(subject: Subject) -> dict[str, float]:
    """The numbers above."""
    shares = {
        "": torch.cat([occupied(img > 0) for img in subject.draw()]).cpu(),
        " of the data": torch.cat([occupied(x > 0) for x in subject.data.images.split(subject.batch)]),
    }
    return {
        f"occupied{sd}{whose}": float(value)
        for whose, x in shares.items()
        for sd, value in (("", x.mean()), (" sd", x.std()))
    }


def occupied(volumes: Tensor) -> Tensor:
    """bool [N, ...] -> the share of True in each [N], float64"""
    return volumes.flatten(1).double().mean(1)
