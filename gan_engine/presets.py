"""Named runs: each function returns a complete configuration, and its docstring says what it trains."""

from collections.abc import Callable

from gan_engine import models
from gan_engine.config import Config


def dcgan() -> Config:
    """The deep convolutional GAN, 32x32 grey images; a few minutes on two CPU cores."""
    return Config(preset="dcgan", model=models.dcgan.Config(width=32), kimg=100)


def vanilla() -> Config:
    """The fully connected GAN, 32x32 grey images; a few minutes on two CPU cores."""
    return Config(preset="vanilla", model=models.vanilla.Config(), kimg=300)


# The first is what runs where none is named.
PRESETS: dict[str, Callable[[], Config]] = {function.__name__: function for function in (dcgan, vanilla)}
