"""The measure of generators of points: the Gaussians of the data that they cover, and how many points lie on one.

    gaussians_3sd N=2500    Gaussians with at least one point within 3 standard deviations of their centre
    quality_3sd N=2500      share of the points within 3 standard deviations of the nearest centre

The data themselves have a quality of 1 - exp(-4.5) = 0.989. One point is enough to cover a Gaussian, so only numbers
with the same N compare.  # Srivastava et al. 2017, arXiv:1705.07761, section 4.1
"""

import torch

from gan_engine.data import ImageSet
from gan_engine.data.gaussians import MIXTURES
from gan_engine.metrics.count import Count
from gan_engine.metrics.subject import Subject

SDS = 3
TITLE = f"{SDS}sd"
ABOUT = f"gaussians: a point lies on a Gaussian within {SDS} standard deviations of its centre"


def measure(subject: Subject) -> dict[str, float]:
    """The numbers above, by name. Raises ValueError for data that are no mixture of Gaussians."""
    covered, quality = cover(subject)
    return {f"gaussians_{TITLE} N={subject.num}": covered, f"quality_{TITLE} N={subject.num}": quality}


def cover(subject: Subject) -> tuple[Count, float]:
    """The number of Gaussians that are covered, and the share of points that lie on one. Raises as `measure` does."""
    if reason := refusal(subject.data):
        raise ValueError(reason)
    mixture = MIXTURES[subject.data.name]
    points = torch.cat([img.float().cpu() for img in subject.draw()])
    # Without products, whose rounding would be as large as a Gaussian.
    distances = torch.cdist(points, mixture.centres, compute_mode="donot_use_mm_for_euclid_dist")
    distances, nearest = distances.min(1)
    near = distances <= SDS * mixture.sd  # False for NaN
    return Count(len(nearest[near].unique()), len(mixture.centres)), float(near.double().mean())


def refusal(data: ImageSet) -> str | None:
    """A sentence if `data` are no mixture of Gaussians."""
    if data.name in MIXTURES:
        return None
    return f"metrics: gaussians wants the data {' or '.join(MIXTURES)}, got {data.name}"
