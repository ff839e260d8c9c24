"""Which class of the data an image belongs to, judged by features: for the alarm of a missing class."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.data import ImageSet

MOST_IMAGES = 4000  # of the data: half say where classes lie, and half how well that tells them apart
FEWEST_IMAGES = 10  # of a class in each half, and on average in what its share is counted over
# A young G draws blurred images, which lie between classes. Counted for the nearest class, blurred images of dcgan and
# cgan made 6 to 37 % of the bags after 30 kimg, in runs that never saw a bag. An image counts if its distance from the
# mean of its class is one that images of the data have. Strong blur lies further away in features of a classifier; in
# features of pixels only the means themselves lie too near. These are shares of the data's images that are nearer.
NEAREST, FURTHEST = 0.05, 0.9
# Pullovers, which overlap with shirts, come late in healthy runs of cgan and dcgan. Such classes are left out. T-shirts
# and coats, which overlap less, would not have raised an alarm.
KNOWN = 0.93  # of the images of a class are nearest to its own mean, or the class is left out
SHRINKAGE = 0.05  # this share of the mean variance is added to each variance: features may be more than images


class Classes:
    """Linear discriminant analysis: features f of class k are normal around m_k, with one covariance S for all classes.

    An image counts for the class of the least distance sqrt((f - m_k)^T S^-1 (f - m_k)), if the distance is plausible.
    Source: Fisher, "The use of multiple measurements in taxonomic problems", 1936.

    Args:
        data: images with labels.
        features: images [N, ...] as in `data` -> features [N, d].

    Attributes:
        expected: the share of each class among the images of the data that count, float [K].
        known: which classes are told apart from the others, bool [K].

    """

    def __init__(self, data: ImageSet, features: Callable[[Tensor], Tensor]) -> None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:MOST_IMAGES]
        half, num = len(order) // 2, data.num_classes
        order = torch.cat([part.sort().values for part in (order[:half], order[half:])])  # as they lie on a disk
        found = torch.cat([features(data.images[part]).float().cpu() for part in order.split(100)])
        labels = data.labels[order]
        numbers = torch.stack([torch.bincount(part, minlength=num) for part in (labels[:half], labels[half:])])
        means = F.one_hot(labels[:half], num).float().t() @ found[:half] / numbers[0, :, None].clamp(min=1)
        rest = found[:half] - means[labels[:half]]
        variances = rest.t() @ rest / max(1, half)
        added = SHRINKAGE * variances.diagonal().mean() + 1e-12
        self.root = torch.linalg.cholesky(variances + added * torch.eye(len(variances)))
        self.middle, self.empty = found.mean(0), numbers[0] == 0
        self.means = self._white(means)

        found, labels = found[half:], labels[half:]
        distances = self._distances(found)
        own = distances.gather(1, labels[:, None]).flatten()
        own = own[own.isfinite()].sort().values
        limits = [own[int(share * (len(own) - 1))] for share in (NEAREST, FURTHEST)] if len(own) else [0.0, 0.0]
        self.least, self.most = map(float, limits)
        nearest = distances.argmin(1)
        recall = torch.bincount(labels[nearest == labels], minlength=num) / numbers[1].clamp(min=1)
        self.known = (recall >= KNOWN) & (numbers >= FEWEST_IMAGES).all(0)
        self.expected = self.count(found) / len(found)

    def count(self, found: Tensor) -> Tensor:
        """How many of the features [N, d] count for each class: int64 [K], on the CPU"""
        distances, nearest = self._distances(found.float().cpu()).min(1)
        plausible = (distances >= self.least) & (distances <= self.most)
        return torch.bincount(nearest[plausible], minlength=len(self.means))

    def _white(self, found: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.root, (found - self.middle).t(), upper=False).t()

    def _distances(self, found: Tensor) -> Tensor:
        """Distances [N, K] of features [N, d] from the mean of each class: infinite from one without images"""
        distances = torch.cdist(self._white(found), self.means, compute_mode="donot_use_mm_for_euclid_dist")
        return distances.masked_fill(self.empty, torch.inf)
