"""Does a generator copy? Nearest training images of samples, beside how near training images lie to one another.

    d(s) = min over training images y of |f(s) - f(y)|         of a sample s
    e(y) = min over training images y' != y of |f(y) - f(y')|  of a training image y

f are the features of an extractor. A run with `mirror` has learnt y and its mirror image: |f(s) - f(y)| is then the
smaller one of the distances of f(s) from both, and |f(y) - f(y')| likewise. Fresh images of the data would lie as near
as training images lie to one another. Copies lie much nearer: d is 0 for an exact one. The verdict counts samples with
d < NEAR times the median of e, and those with d < SAME times it, which few fresh images are.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.data import ImageSet
from gan_engine.data.image_set import to_eight_bits
from gan_engine.metrics import extractors
from gan_engine.metrics.extractors import Extractor
from gan_engine.system.bars import bar

NEAREST = 3  # training images beside each sample
REAL = 500  # training images, at most, whose nearest other one is sought
NEAR = 0.5
# Of 300 fresh garments at most one lay nearer (2026-11); exact copies lie at 0. A few copies show among many samples.
SAME = 0.1
PIXELS = 64  # a side, at most, of images that are compared by their pixels


class Pixels:
    """images uint8 [N, C, H, W] -> their pixels in [0, 1] as features [N, C h w], and no logits [N, 0]

    Images are resized to h x w by area: h = min(H, PIXELS), w = min(W, PIXELS). `shape` is [C, H, W].
    """

    name = "pixels"

    def __init__(self, shape: extractors.Shape) -> None:
        _, height, width = shape
        self.size = h, w = min(height, PIXELS), min(width, PIXELS)
        resized = "not resized" if self.size == (height, width) else f"resized to {h}x{w} by area"
        self.about = f"pixels of 8 bits, {resized}"

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # One by one: as floats, a batch of large images would fill the memory.
        small = [F.adaptive_avg_pool2d(image.float(), self.size) for image in images]
        features = torch.stack(small).flatten(1) / 255
        return features, features[:, :0]

    def state_dict(self) -> dict[str, Tensor]:
        return {}


@dataclass(frozen=True)
class Nearest:
    """The nearest training images of samples.

    Attributes:
        distances: of each sample from its NEAREST nearest training images, [N, NEAREST], the nearest first.
        indices: of these images in the data, [N, NEAREST].
        among_real: the distances e of at most REAL training images, [M].
        about: what was compared.
        num_real: number of images in the data.
        mirror: the images of the data counted flipped too.
    """

    distances: Tensor
    indices: Tensor
    among_real: Tensor
    about: str
    num_real: int
    mirror: bool

    @property
    def ratios(self) -> Tensor:
        """d / median of e, [N]; huge numbers where most training images have an exact twin, and the median is 0."""
        return self.distances[:, 0] / self.among_real.median().clamp(min=torch.finfo(torch.float64).tiny)

    def _shares(self, limit: float) -> tuple[float, float]:
        """The shares of samples and of training images that lie nearer than `limit` times the median of e."""
        of_real = self.among_real < limit * self.among_real.median()
        return float((self.ratios < limit).double().mean()), float(of_real.double().mean())

    def sentences(self) -> list[str]:
        """What was compared, what was seen, and whether that looks like copies."""
        share, usual = self._shares(NEAR)
        same, same_usually = self._shares(SAME)
        typical = float(self.ratios.median())
        seen = (
            f"A sample lies {typical:.2f} times as far from its nearest training image as a training image lies from "
            f"its nearest other one (medians). {share:.0%} of the samples lie nearer than {NEAR:g} times, and "
            f"{usual:.0%} of the training images do. Nearer than {SAME:g} times lie {same:.0%} and {same_usually:.0%}."
        )
        if share > 2 * usual + 0.1 or same > 2 * same_usually + 0.02:
            verdict = "These samples may be copies: compare the first pairs."
        else:
            verdict = "No copies were found. Copies that are shifted or noisy may stay unseen."
        images = f"{self.num_real:,} training images{' and their mirror images' if self.mirror else ''}"
        return [f"{len(self.distances)} samples and {images}, by {self.about}.", seen, verdict]


def extractor_for(shape: tuple[int, int, int], device: torch.device) -> tuple[Extractor, str]:
    """The extractor that `evaluate` takes without a flag, and what it is; pixels, and why, where it cannot be had."""
    try:
        extractor = extractors.build(extractors.AUTO, shape, weights=None, device=device)
    except ValueError as error:
        pixels = Pixels(shape)
        return pixels, f"{pixels.about} ({error})"
    return extractor, extractor.about


def search(samples: Tensor, data: ImageSet, *, device: torch.device, mirror: bool, batch: int = 100) -> Nearest:
    """The nearest images of `data` of each of `samples` uint8 [N, C, H, W]. One pass; memory does not grow with data.

    Data of 16 bits are rounded to 8.

    Args:
        samples: of G.
        data: that G has learnt from.
        device: of the extractor.
        mirror: G has learnt from the flipped images too, so the nearer one of an image and its mirror image counts.
        batch: images per pass.

    Raises ValueError for data with too few images.
    """
    if len(data) <= NEAREST:
        raise ValueError(f"copies: want more than {NEAREST} training images, got {len(data)}")
    extractor, about = extractor_for(tuple(data.images.shape[1:]), device)
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:REAL]

    def features(images: Tensor) -> Tensor:
        return torch.cat([extractor(to_eight_bits(part).to(device))[0].double().cpu() for part in images.split(batch)])

    def distances_from(images: Tensor) -> Tensor:
        # Without products: an exact copy has the distance 0, and not what rounding leaves of it.
        return torch.cdist(asked, features(images), compute_mode="donot_use_mm_for_euclid_dist")

    asked = torch.cat([features(samples), features(data.images[chosen])])
    own = torch.cat([torch.full((len(samples),), -1), chosen])
    distances = torch.full((len(asked), NEAREST), torch.inf, dtype=torch.float64)
    indices = torch.zeros(len(asked), NEAREST, dtype=torch.int64)
    parts = data.images.split(batch)
    for i, images in enumerate(bar(parts, "training images", total=len(parts), unit=" batches", delay=1)):
        here = torch.arange(i * batch, i * batch + len(images))
        found = distances_from(images)
        if mirror:
            found = torch.minimum(found, distances_from(to_eight_bits(images).flip(-1)))
        found[own[:, None] == here] = torch.inf
        distances, best = torch.cat([distances, found], 1).topk(NEAREST, largest=False)
        indices = torch.cat([indices, here.expand(len(asked), -1)], 1).gather(1, best)
    n = len(samples)
    return Nearest(distances[:n], indices[:n], distances[n:, 0], about, len(data), mirror)
