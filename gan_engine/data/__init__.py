"""Training images: `load` reads a source, `ImageSet` holds the images, `Sampler` deals them out in batches."""

from gan_engine.data.image_set import DataError, ImageSet, describe, to_float
from gan_engine.data.sampler import Sampler
from gan_engine.data.sources import DataConfig, load

__all__ = ["DataConfig", "DataError", "ImageSet", "Sampler", "describe", "load", "to_float"]
