"""The time of a run, counted in images, so that a run means the same at any batch size."""

import math

from gan_engine.config import Config


class Clock:
    """How far a run is.

    Attributes:
        nimg: real images shown so far.
        step_count: steps taken so far.
        seconds: time spent in steps.
        total: images of the whole run, config.kimg in whole batches.
    """

    def __init__(self, config: Config) -> None:
        self.batch_size = config.batch_size
        self.total = math.ceil(1000 * config.kimg / config.batch_size) * config.batch_size
        self.nimg = self.step_count = 0
        self.seconds = 0.0

    @property
    def over(self) -> bool:
        return self.nimg >= self.total

    def advance(self) -> None:
        """Count one step."""
        self.step_count += 1
        self.nimg += self.batch_size

    def passed(self, kimg: float) -> bool:
        """True if the last step passed a multiple of `kimg`."""
        interval = 1000 * kimg
        return self.nimg // interval > (self.nimg - self.batch_size) // interval
