"""The measure of generators of 32x32 grey images, in the features of fashion32, a classifier of garments.

    fd_fashion32 N=5000    Frechet distance to the data in the features of the classifier
    kd_fashion32 N=5000    kernel distance in the same features, of at most 10,000 images of each set; its expectation
                           does not depend on N
    classes                number of classes that the classifier finds in at least 1 % of the images
    accuracy               share of the images in which the classifier finds the class that was asked for

fashion32 knows garments as the embedded images show them. Its distances compare generators of garments with the same N.
They are no FIDs, which are distances in another network. The classifier has learnt from 8,000 of the embedded images.
It is right about 94 % of these and 90 % of the others. 1,000 embedded images are at a distance (fd) of 0.6 from all
10,000. A generator that only repeats its data is not told from a generator that draws new images.
"""

from typing import Any

import torch

from gan_engine.data.arrays import FASHION_CLASSES
from gan_engine.metrics import extractors
from gan_engine.metrics.classifier import NAME
from gan_engine.metrics.count import Count
from gan_engine.metrics.distances import frechet_of_moments, kernel_distance
from gan_engine.metrics.real_set import real_sample
from gan_engine.metrics.sample import KEPT, Sample
from gan_engine.metrics.subject import Subject
from gan_engine.system.pixels import COLOURS
from gan_engine.system.resolution import named


def refusal(config: Any) -> str | None:
    """A sentence if generators of `config` cannot be measured: the classifier reads 32x32 grey images only."""
    if (config.resolution, config.channels) == (32, 1):
        return None
    if config.channels not in COLOURS:
        want = "want a generator of grey or colour, of 1, 3 or 4 channels, as measures read pictures"
        return f"{want}, got {config.channels} channels; generate --out images.npz writes them for other measures"
    size = f"{named(config.resolution)} with {config.channels} channels"
    return f"{NAME}: want a generator of 32x32 grey images, got {size}"


@torch.no_grad()
def measure(subject: Subject) -> dict[str, float]:
    """The numbers above. `accuracy` is there if the run has the classes of the classifier."""
    network = extractors.build(NAME, (1, 32, 32), weights=None, device=subject.device)
    real = real_sample(subject.data, network, batch=subject.batch, device=subject.device)
    generated, counts, right = Sample(), torch.zeros(len(FASHION_CLASSES), dtype=torch.int64), 0
    asked = torch.tensor(subject.classes) if subject.classes and subject.class_names == FASHION_CLASSES else None
    for features, logits in subject.read(network):
        found = logits.argmax(1).cpu()
        if asked is not None:
            right += int((found == asked[len(generated) :][: len(found)]).sum())
        counts += found.bincount(minlength=len(counts))
        generated.add(features, logits)
    x, y = generated.moments, real.moments
    results = {
        f"fd_{NAME} N={subject.num}": frechet_of_moments(x.mean, x.covariance, y.mean, y.covariance),
        f"kd_{NAME} N={min(subject.num, KEPT)}": kernel_distance(generated.kept, real.kept),
        "classes": Count(int((counts >= subject.num / 100).sum()), len(counts)),
    }
    return results if asked is None else {**results, "accuracy": right / subject.num}
