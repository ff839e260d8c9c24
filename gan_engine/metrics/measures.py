"""The measures of `evaluate` by name. A measure is a module in this folder, and a row of this table."""

from collections.abc import Callable
from typing import Any, NamedTuple

from gan_engine.metrics import garments, gaussians, translations, volumes
from gan_engine.metrics.subject import Subject
from gan_engine.system.pixels import COLOURS


class Measure(NamedTuple):
    """One way to measure a generator."""

    measure: Callable[[Subject], dict[str, float]]
    """Returns numbers by name, in the order of printing."""
    refusal: Callable[[Any], str | None] = lambda config: None
    """Says why it cannot measure generators of a configuration, or returns None."""
    wants_unseen: bool = False
    """True if the numbers mean little on data that the run has seen."""
    together: bool = False
    """True if several processes call `measure`, and draw the images together. Else the first one measures alone."""


MEASURES: dict[str, Measure] = {
    "garments": Measure(garments.measure, garments.refusal, together=True),
    "translations": Measure(translations.measure, wants_unseen=True),
    "volumes": Measure(volumes.measure),
    "gaussians": Measure(gaussians.measure),
}

# The measure of a family that declares none, by the number of sides of its images.
BY_AXES = {0: "gaussians", 2: "garments", 3: "volumes"}


def measure_of(declared: str | None, axes: int) -> Measure:
    """The measure that a family declares, or else the measure of images with so many axes."""
    return MEASURES[declared or BY_AXES[axes]]


def metrics_of(declared: str | None, axes: int, config: Any) -> str | None:
    """The --metrics for pictures that no measure here reads, of a family that declares none. None: others."""
    reads = declared is not None or axes != 2 or garments.refusal(config) is None
    return None if reads or config.channels not in COLOURS else "fid,kid,pr"
