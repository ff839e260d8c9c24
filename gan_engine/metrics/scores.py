"""The metrics that --metrics names, and the measurement of a generator by several of them in one pass.

    fid    fd_EXTRACTOR    Frechet distance to the real images; with the extractor inception fid_inception
    kid    kd_EXTRACTOR    unbiased kernel distance; with the extractor inception kid_inception
    is     is_EXTRACTOR    Inception score: sure about each image, varied over all. It never sees the real images.
    pr     precision_..., recall_...    shares within the balls of the other set, k = 3
    dc     density_..., coverage_...    the same for the balls of the real set alone, k = 5
    ppl    ppl_imagenet    perceptual path length in w, for families that have w
    eqt    eqt_dB    equivariance to translation, for families whose input can move
    modes  modes_fashion32, modes_kl_fashion32    the modes of stacked garments that are covered, and how evenly
    gaussians    gaussians_3sd, quality_3sd    the Gaussians that points cover, and the share of points on one

fid, is, ppl, eqt, modes and gaussians read all images. kid, pr and dc compare images one by one: they read at most KEPT
images of each set. Every name of a number ends in the number N of generated images behind it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gan_engine.data.kinds import MADE
from gan_engine.metrics import extractors, gaussians, modes, neighbours
from gan_engine.metrics.count import Count
from gan_engine.metrics.distances import frechet_of_moments, kernel_distance
from gan_engine.metrics.equivariance import translation_equivariance
from gan_engine.metrics.extractors import Extractor
from gan_engine.metrics.path_length import path_length
from gan_engine.metrics.perceptual import PerceptualDistance
from gan_engine.metrics.real_set import real_sample
from gan_engine.metrics.sample import KEPT, Sample
from gan_engine.metrics.subject import Subject
from gan_engine.system.names import nearest
from gan_engine.system.pixels import COLOURS


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The features of generated images, in the order of drawing, and their modes. Empty where no metric reads them."""

    generated: Sample
    modes: modes.Modes | None


@dataclass(frozen=True, kw_only=True)
class Evidence(Drawn):
    """What was drawn, the features of real images, and the generator."""

    real: Sample
    subject: Subject

    @property
    def kept(self) -> tuple[Tensor, Tensor]:
        """The features that were kept, of generated and of real images."""
        return self.generated.kept, self.real.kept

    @cached_property
    def near(self) -> tuple[float, float, float, float]:
        """Precision, recall, density and coverage."""
        return neighbours.all_four(*self.kept)


class Metric(NamedTuple):
    """A word of --metrics."""

    numbers: dict[str, bool]
    """The numbers by name, and whether more is better."""
    compute: Callable[[Evidence], tuple[float, ...]]
    """Returns these numbers."""
    most: int | None = None
    """The most images that it reads. None: all."""
    reads: str = "features"
    """What it reads: features, modes, or the generator itself."""
    axes: int = 2
    """The number of sides of what the generator makes, as `Kind.axes`."""


def _frechet(found: Evidence) -> tuple[float]:
    x, y = found.generated.moments, found.real.moments
    return (frechet_of_moments(x.mean, x.covariance, y.mean, y.covariance),)


def _path_length(found: Evidence) -> tuple[float]:
    subject = found.subject
    options = {"seed": subject.seed, "classes": subject.classes, "batch": subject.batch}
    distance = PerceptualDistance().to(subject.device)
    return (path_length(subject.G, distance, subject.num, **options),)


def _equivariance(found: Evidence) -> tuple[float]:
    subject = found.subject
    options = {"seed": subject.seed, "classes": subject.classes, "batch": subject.batch}
    return (translation_equivariance(subject.G, subject.num, **options),)


METRICS: dict[str, Metric] = {
    "fid": Metric({"fd": False}, _frechet),
    "kid": Metric({"kd": False}, lambda found: (kernel_distance(*found.kept),), KEPT),
    "is": Metric({"is": True}, lambda found: (found.generated.certainty.score,)),
    "pr": Metric({"precision": True, "recall": True}, lambda found: found.near[:2], KEPT),
    "dc": Metric({"density": True, "coverage": True}, lambda found: found.near[2:], KEPT),
    "ppl": Metric({"ppl": False}, _path_length, reads="generator"),
    "eqt": Metric({"eqt": True}, _equivariance, reads="generator"),
    "modes": Metric(
        {"modes": True, "modes_kl": False}, lambda found: (found.modes.covered, found.modes.kl), reads="modes"
    ),
    "gaussians": Metric(
        {"gaussians": True, "quality": True},
        lambda found: gaussians.cover(found.subject),
        reads="generator",
        axes=0,
    ),
}
# The numbers whose network is not the extractor's.
_TITLES = {"ppl": "ppl_imagenet", "eqt": "eqt_dB", "modes": f"modes_{modes.NAME}", "modes_kl": f"modes_kl_{modes.NAME}"}
_TITLES |= {name: f"{name}_{gaussians.TITLE}" for name in ("gaussians", "quality")}
_OF_INCEPTION = {"fd": "fid", "kd": "kid"}  # the names that are for the network of FID alone
_NEIGHBOURS = 6  # the fewest images for k = 5


def parse(words: str) -> tuple[str, ...]:
    """The metrics in a text such as "fid,kid". Raises ValueError for an unknown one."""
    names = tuple(dict.fromkeys(word.strip().lower() for word in words.split(",")))
    for name in names:
        if name not in METRICS:
            raise ValueError(f"metrics: want some of {', '.join(METRICS)}, got {name!r}{nearest(name, METRICS)}")
    return names


def more_is_better(name: str) -> bool:
    """True if more is better for a number of that name, such as "fd_fashion32 N=5000". A number of no metric: False."""
    number = name.rpartition("_")[0]
    return any(metric.numbers.get(number, False) for metric in METRICS.values())


def refusal(
    metrics: Sequence[str], *, from_noise: bool, axes: int, styles: bool, translates: bool, channels: int
) -> str | None:
    """A sentence if a generator cannot be measured so: it reads pictures, makes volumes, or lacks an ability."""
    if not from_noise:
        return "metrics: want a generator that draws from noise, got one that translates"
    for name in metrics:
        if METRICS[name].axes != axes:
            wanted, got = MADE[METRICS[name].axes], MADE[axes]
            fits = [other for other, metric in METRICS.items() if metric.axes == axes]
            instead = f"; want {','.join(fits)} for {got}" if fits else ""
            return f"metrics: {name} wants a generator of {wanted}, got one of {got}{instead}"
    seen = [name for name in metrics if METRICS[name].reads != "generator" or name == "ppl"]
    if seen and channels not in COLOURS:
        return f"metrics: {seen[0]} wants grey or colour, of 1, 3 or 4 channels, got a generator of {channels} channels"
    if "ppl" in metrics and not styles:
        return "metrics: ppl wants a generator with latents w, and this one has none"
    if "eqt" in metrics and not translates:
        return "metrics: eqt wants a generator whose input can move, and this one has none"
    return None


class Scores:
    """Measures generators against one set of real images.

    Args:
        metrics: words of METRICS.
        extractor: None only if no metric reads features.
    """

    def __init__(self, metrics: Sequence[str], extractor: Extractor | None) -> None:
        self.metrics, self.extractor = tuple(metrics), extractor
        self._real: Sample | None = None

    @torch.no_grad()
    def measure(self, subject: Subject) -> dict[str, float]:
        """Numbers by name, "fd_fashion32 N=5000". Images are rounded to 8 bits first, as the real ones are.

        Raises ValueError as `check` does.
        """
        self.check(subject)
        return self.numbers(subject, self.draw(subject))

    @torch.no_grad()
    def draw(self, subject: Subject, *, keep: bool = True) -> Drawn:
        """Draw the images once, for the extractor and for the modes. Each of several processes must call it.

        keep: False in a process that only draws its share, and computes no numbers.
        """
        generated, counted = Sample(certainty=True), modes.Modes(subject.device) if self._read("modes") else None

        def look(pixels: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            seen = () if self.extractor is None else tuple(x.cpu() for x in self.extractor(pixels))
            return seen, None if counted is None else counted.found(pixels)

        for seen, found in subject.read(look) if self.extractor is not None or counted is not None else ():
            if seen and keep:
                generated.add(*seen)
            if found is not None:
                counted.counts += found
        return Drawn(generated=generated, modes=counted)

    @torch.no_grad()
    def numbers(self, subject: Subject, drawn: Drawn) -> dict[str, float]:
        """The numbers of `measure`, of what was drawn. One of several processes can call it alone."""
        real = Sample() if self.extractor is None else self._real_of(subject)
        found = Evidence(generated=drawn.generated, modes=drawn.modes, real=real, subject=subject)
        computed = [value for name in self.metrics for value in METRICS[name].compute(found)]
        values = [value if isinstance(value, Count) else float(value) for value in computed]
        return dict(zip(self.names(subject), values, strict=True))

    def check(self, subject: Subject) -> None:
        """Raise ValueError for too few images, and for modes or Gaussians of data that have none."""
        if self._read("modes") and (reason := modes.refusal(subject.data)):
            raise ValueError(reason)
        if "gaussians" in self.metrics and (reason := gaussians.refusal(subject.data)):
            raise ValueError(reason)
        need = _NEIGHBOURS if {"pr", "dc"} & set(self.metrics) else 2
        if min(subject.num, len(subject.data)) < need:
            raise ValueError(
                f"num: want at least {need} generated and real images for {','.join(self.metrics)}, "
                f"got {subject.num} and {len(subject.data)}"
            )

    def names(self, subject: Subject) -> list[str]:
        """The names of the numbers of `measure`, in their order."""
        return [
            f"{self.title(number)} N={min(subject.num, METRICS[name].most or subject.num)}"
            for name in self.metrics
            for number in METRICS[name].numbers
        ]

    @property
    def more_is_better(self) -> bool:
        """True if more is better for the first number."""
        return next(iter(METRICS[self.metrics[0]].numbers.values()))

    def title(self, number: str) -> str:
        """The name of a number with its extractor: fd_fashion32, fid_inception."""
        if number in _TITLES:
            return _TITLES[number]
        own = self.extractor.name
        return f"{_OF_INCEPTION.get(number, number) if own == 'inception' else number}_{own}"

    def about(self, subject: Subject) -> str:
        """One line: the extractor, and how many images of each set the numbers are from."""
        data, capped = subject.data, [name for name in self.metrics if METRICS[name].most]
        networks = [] if self.extractor is None else [f"{self.extractor.name}: {self.extractor.about}"]
        networks += [modes.ABOUT] if self._read("modes") else []
        networks += [gaussians.ABOUT] if "gaussians" in self.metrics else []
        made = MADE[data.images.ndim - 2]
        line = "; ".join([*networks, f"{subject.num:,} generated, {len(data):,} real {made}"])
        if capped and max(subject.num, len(data)) > KEPT:
            line += f", and at most {KEPT:,} of each for {', '.join(capped)}"
        return line

    def _read(self, what: str) -> bool:
        return any(METRICS[name].reads == what for name in self.metrics)

    def _real_of(self, subject: Subject) -> Sample:
        if self._real is None:
            self._real = real_sample(subject.data, self.extractor, batch=subject.batch, device=subject.device)
        return self._real


def build(
    metrics: Sequence[str], extractor: str, shape: extractors.Shape, *, weights: Path | None, device: torch.device
) -> Scores:
    """Scores of images of that shape [C, H, W]. The network `extractor` is built if a metric reads features.

    Raises ValueError as extractors.build does, and for an extractor that no metric reads.
    """
    if any(METRICS[name].reads == "features" for name in metrics):
        return Scores(metrics, extractors.build(extractor, shape, weights=weights, device=device))
    if extractor != extractors.AUTO:
        reads = ", ".join(name for name, metric in METRICS.items() if metric.reads == "features")
        raise ValueError(f"extractor: want a metric that reads its features ({reads}), got {','.join(metrics)}")
    return Scores(metrics, None)
