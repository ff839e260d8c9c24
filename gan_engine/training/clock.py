"""The time of a run, counted in images, so that a run means the same at any batch size; and its limit in minutes."""

import math

from gan_engine.config import Config


class Clock:
    """How far a run is.

    Attributes:
        nimg: real images shown so far.
        step_count: steps taken so far.
        seconds: time spent in steps.
        total: images of the whole run, config.kimg in whole batches; infinite without it.
        limit: seconds of the whole run, config.minutes; infinite without it.
        game: D has taken part.
    """

    def __init__(self, config: Config) -> None:
        self.batch_size = config.batch_size
        batches = math.inf if config.kimg is None else math.ceil(1000 * config.kimg / config.batch_size)
        self.total = batches * config.batch_size
        self.pretraining_images = 1000 * config.pretrain_kimg
        self.limit = math.inf if config.minutes is None else 60 * config.minutes
        self.nimg = self.step_count = 0
        self.seconds = 0.0
        self.game = False

    @property
    def pretraining(self) -> bool:
        """Whether G is pretrained and D waits: for config.pretrain_kimg, but for no more than half of the time.

        Half of the images is what presets take. D waits only once, also where a resumed run has more time.
        """
        return not self.game and self.nimg < self.pretraining_images and self.seconds < self.limit / 2

    @property
    def out_of_time(self) -> bool:
        return self.seconds >= self.limit

    @property
    def over(self) -> bool:
        return self.nimg >= self.total or self.out_of_time

    @property
    def done(self) -> float:
        """The part of the run that is over, 0 to 1, in images or in time, whichever is more."""
        return min(1, max(self.nimg / self.total, self.seconds / self.limit))

    def advance(self) -> None:
        """Count one step."""
        self.game = not self.pretraining
        self.step_count += 1
        self.nimg += self.batch_size

    def passed(self, kimg: float) -> bool:
        """True if the last step passed a multiple of `kimg`."""
        interval = 1000 * kimg
        return self.nimg // interval > (self.nimg - self.batch_size) // interval
