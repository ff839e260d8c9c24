"""The measure of translations: their distance from the targets of all pairs of the data, in each direction of G.

L1                     mean absolute difference from the target; black and white are 1 apart
PSNR, SSIM             of the luma, as of enlarged pictures; more is better, and PSNR is infinite for equal pictures
perceptual             distance from the target in the features of a classifier of photographs, if it is installed
... of the source      the same of the source itself, as if G had changed nothing
"""

import warnings

import torch
from torch import Tensor

from gan_engine.data import to_float
from gan_engine.metrics import perceptual
from gan_engine.metrics.similarity import l1, psnr, ssim
from gan_engine.metrics.subject import Subject
from gan_engine.system.bars import bar


@torch.no_grad()
def measure(subject: Subject) -> dict[str, float]:
    """The numbers above: means over the pairs of `subject.data`. G makes sources of targets if the data have none."""
    G, data, device = subject.G, subject.data, subject.device
    distances = {"L1": lambda x, y: l1(x, y) / 2, "PSNR": psnr, "SSIM": ssim}
    if perceptual.installed():
        distances["perceptual"] = perceptual.PerceptualDistance().to(device)
    else:
        warnings.warn(f"no perceptual distances: pip install {perceptual.PIP} brings them", stacklevel=2)
    sums: dict[str, float] = {}

    def add(source: Tensor, target: Tensor, *direction: str) -> None:
        compared = {"": G(source, *direction), " of the source": source.expand_as(target)}
        for name, distance in distances.items():
            for whose, img in compared.items():
                key = " ".join([*direction, name + whose])
                sums[key] = sums.get(key, 0) + float(distance(img, target).sum())

    batches = zip(*(images.split(subject.batch) for images in (data.images, (data.source or data).images)), strict=True)
    total = -(-len(data) // subject.batch)
    for target, source in bar(batches, total=total, unit=" batches"):
        target, source = (to_float(x.to(device)) for x in (target, source))
        if subject.directions:
            there, back = subject.directions
            add(source, target, there)
            add(target, source, back)
        else:
            add(G.source_of(target) if data.source is None else source, target)
    return {name: total / len(data) for name, total in sums.items()}
