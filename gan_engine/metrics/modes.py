"""The modes that a generator of stacked garments covers, and how evenly: what `data.stacked` is for.

A mode is a triple of classes. fashion32, the classifier of garments, reads each channel of an image as a grey image. It
is right about 90 % of garments that it has not learnt from, so about 73 % of triples.
"""

import math

import torch
from torch import Tensor

from gan_engine.data import ImageSet, stacked, to_float
from gan_engine.metrics.classifier import NAME, load_classifier
from gan_engine.metrics.count import Count

ABOUT = f"modes: {NAME} reads each channel of 32x32 images of 8 bits; {len(stacked.MODES):,} modes"


class Modes:
    """How often each mode was found so far, int64 [1000]   # Srivastava et al. 2017, arXiv:1705.07761, section 4.1"""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.classifier = load_classifier(device)
        self.counts = torch.zeros(len(stacked.MODES), dtype=torch.int64)

    @torch.no_grad()
    def found(self, images: Tensor) -> Tensor:
        """How often each mode is in images uint8 [N, 3, 32, 32], on the device of the classifier: int64 [1000]"""
        _, logits = self.classifier(to_float(images.flatten(0, 1)[:, None]))
        red, green, blue = logits.argmax(1).view(-1, 3).cpu().unbind(1)
        return (100 * red + 10 * green + blue).bincount(minlength=len(self.counts))

    def add(self, images: Tensor) -> None:
        """Take such images in."""
        self.counts += self.found(images)

    @property
    def covered(self) -> Count:
        """The number of modes that were found at least once."""
        return Count(int((self.counts > 0).sum()), len(self.counts))

    @property
    def kl(self) -> float:
        """sum of p log(p / q) in nats, p the shares of the modes that were found and q = 1 / 1000, those of the data

        From 0 for all modes alike to log 1000 = 6.9 for one mode. A perfect generator has about 999 / 2N with N images.
        """
        p = self.counts.double() / self.counts.sum()
        return float(torch.special.xlogy(p, p).sum()) + math.log(len(p))


def refusal(data: ImageSet) -> str | None:
    """A sentence if generators of `data` have no such modes."""
    shape = list(data.images.shape[1:])
    if data.class_names == stacked.MODES and shape == [3, 32, 32]:
        return None
    return f"metrics: modes wants the data {stacked.NAME} at 32x32, got {data.name} of {'x'.join(map(str, shape))}"
