"""The plan of a run: after the first steps, in plain words, what it trains and how long that takes."""

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data.kinds import MADE, kind_of
from gan_engine.training.clock import Clock

STEPS, SECONDS = 4, 1.0  # the least to be timed, after a first step, which also builds what later steps have


class Timing:
    """The speed of the steps after the first one."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self._first = clock, (clock.step_count, clock.nimg, clock.seconds)

    @property
    def rate(self) -> float | None:
        """Images a second. None: too few steps are timed."""
        clock, (steps, images, seconds) = self.clock, self._first
        if clock.step_count - steps < STEPS or clock.seconds - seconds < SECONDS:
            return None
        return (clock.nimg - images) / (clock.seconds - seconds)


def line(config: Config, clock: Clock, rate: float) -> str:
    """The plan of the rest of a run that trains on `rate` images a second."""
    model, kind = config.model, kind_of(models.data_kind(config.model))
    sides = "x".join(map(str, kind.sides(model.resolution)))
    wide = "" if isinstance(model.resolution, int) else f", {model.resolution[1]} wide"
    what = {0: "points", 2: f"{sides} pixels{wide}", 3: f"{sides} voxels"}[kind.axes]
    if isinstance(getattr(model, "width", None), int):  # a method in some families
        what += f", width {model.width}"
    left, made = clock.total - clock.nimg, MADE[kind.axes]
    seconds = max(min(left / rate, clock.limit - clock.seconds), clock.batch_size / rate)  # a step is to come
    images = min(left, round(_rounded(rate * seconds)))
    length = f"{images:,} {made} to go, about {duration(seconds)} at {_rounded(rate):,g} {made} a second"
    if clock.pretraining:
        waits = f"{config.pretrain_kimg:g} kimg" + (" or half of the time" if config.minutes is not None else "")
        length += f", while D waits for {waits} of pretraining; later steps take longer"
    return f"plan       {config.preset} ({what}): {length}"


def _rounded(value: float) -> float:
    """`value` with two digits: what follows from a short timing is no more exact."""
    return float(f"{value:.2g}")


def duration(seconds: float) -> str:
    """Seconds in the unit in which people say them: "40 seconds", "3 minutes", "2.5 hours"."""
    for unit, size in (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86400)):
        count = seconds / size
        count = round(count) if unit in ("second", "minute") else round(2 * count) / 2
        if count < 90 or unit == "day":
            break
    count = max(1, count)
    return f"{count:g} {unit}{'s' * (count != 1)}"
