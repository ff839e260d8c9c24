"""What `evaluate` can measure, by name. A measure is a module beside this one, and a row of this table."""

from collections.abc import Callable
from typing import Any, NamedTuple

from gan_engine.metrics import garments, translations, volumes
from gan_engine.metrics.subject import Subject


class Measure(NamedTuple):
    """One way to measure a generator."""

    measure: Callable[[Subject], dict[str, float]]
    """Returns numbers by name, in the order in which they are printed."""
    refusal: Callable[[Any], str | None] = lambda config: None
    """Says why generators of a configuration cannot be measured so, or returns None."""
    wants_unseen: bool = False
    """Whether the numbers mean little on data that the run has seen."""


MEASURES: dict[str, Measure] = {
    "garments": Measure(garments.measure, garments.refusal),
    "translations": Measure(translations.measure, wants_unseen=True),
    "volumes": Measure(volumes.measure),
}

# What a family that declares no measure is measured by: the sides of its images decide.
BY_AXES = {2: "garments", 3: "volumes"}


def measure_of(declared: str | None, axes: int) -> Measure:
    """The measure that a family declares, else that of images with so many axes."""
    return MEASURES[declared or BY_AXES[axes]]
