"""Named runs: each function returns a complete configuration, and its docstring says what it trains."""

from collections.abc import Callable

from gan_engine import models
from gan_engine.config import Config


def dcgan() -> Config:
    """The deep convolutional GAN, 32x32 grey images; a few minutes on two CPU cores."""
    # The paper has batches of 128 at a rate of 2e-4. On the embedded images small batches at twice the rate show the
    # same shapes after less than half as many images (grids compared by eye at 10 and 20 kimg, 2 cores, 2026-11).
    return Config(preset="dcgan", model=models.dcgan.Config(), batch_size=32, lr=4e-4, kimg=100, grid_kimg=5)


def vanilla() -> Config:
    """The fully connected GAN, 32x32 grey images; a few minutes on two CPU cores."""
    return Config(preset="vanilla", model=models.vanilla.Config(), kimg=300)


def upsample_gan() -> Config:
    """The tutorials' GAN for CIFAR-10, 32x32 colour images: nearest neighbours and convolutions."""
    return Config(preset="upsample_gan", model=models.upsample_gan.Config(), data="cifar10", batch_size=32, kimg=1000)


# The first is what runs where none is named.
PRESETS: dict[str, Callable[[], Config]] = {function.__name__: function for function in (dcgan, vanilla, upsample_gan)}
