"""Which class of the data an image belongs to, judged by features: for the alarm of a missing class."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.data import ImageSet, to_float

LOOKED_AT = 4000  # images of the data: half say where classes lie, and half how well that tells them apart
# A young G draws blurred images, which lie between classes. Counted for the nearest class, blurred images of dcgan and
# cgan made 6 to 37 % of the bags after 30 kimg, in runs that never saw a bag. Few of them are as plausible as images of
# the data. Classes that overlap, such as pullovers with shirts, come late in healthy runs too: they are left out.
PLAUSIBLE = 0.9  # of the images of the data are as near to the mean of their class as an image must be to count
KNOWN = 0.93  # of the images of a class are nearest to its own mean, or the class is left out
SHRUNK = 0.05  # this share of the mean variance is added to each variance: features may be more than images


class Classes:
    """Linear discriminant analysis: features f of class k are normal around m_k, with one covariance S for all classes.

    An image counts for the class of the least distance sqrt((f - m_k)^T S^-1 (f - m_k)), if the distance is plausible.
    Source: Fisher, "The use of multiple measurements in taxonomic problems", 1936.

    Args:
        data: images with labels.
        features: images [N, ...] -> features [N, d].

    Attributes:
        expected: the share of each class among the images of the data that count, float [K].
        known: which classes are told apart from the others, bool [K].

    """

    def __init__(self, data: ImageSet, features: Callable[[Tensor], Tensor]) -> None:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:LOOKED_AT]
        found = torch.cat([features(to_float(data.images[part])).float().cpu() for part in order.split(100)])
        labels, num = data.labels[order], data.num_classes
        half = len(order) // 2
        chosen = F.one_hot(labels[:half], num).float().t()
        self.empty = chosen.sum(1) == 0
        means = chosen @ found[:half] / chosen.sum(1, keepdim=True).clamp(min=1)
        rest = found[:half] - means[labels[:half]]
        variances = rest.t() @ rest / max(1, half)
        shrunk = SHRUNK * variances.diagonal().mean() + 1e-12
        self.root = torch.linalg.cholesky(variances + shrunk * torch.eye(len(variances)))
        self.means = self._white(means)
        found, labels = found[half:], labels[half:]
        distances = self._distances(found)
        self.limit = distances.gather(1, labels[:, None]).flatten().sort().values[int(PLAUSIBLE * (len(labels) - 1))]
        nearest = distances.argmin(1)
        own = torch.bincount(labels[nearest == labels], minlength=num)
        self.known = own >= KNOWN * torch.bincount(labels, minlength=num).clamp(min=1)
        self.expected = self.count(found) / len(found)

    def count(self, found: Tensor) -> Tensor:
        """How many of the features [N, d] count for each class: int64 [K], on the CPU"""
        distances, nearest = self._distances(found.cpu()).min(1)
        return torch.bincount(nearest[distances <= self.limit], minlength=len(self.means))

    def _white(self, found: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.root, found.t(), upper=False).t()

    def _distances(self, found: Tensor) -> Tensor:
        """Distances [N, K] of features [N, d] from the mean of each class: infinite from one without images"""
        return torch.cdist(self._white(found), self.means).masked_fill(self.empty, torch.inf)
