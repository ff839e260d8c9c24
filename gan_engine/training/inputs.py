"""The data of a run, and the parts of its configuration that the data decide."""

import dataclasses

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import ImageSet, describe, load
from gan_engine.data.kinds import kind_of
from gan_engine.data.labels import NO_LABELS
from gan_engine.data.modes import TRANSPARENT
from gan_engine.data.sources import where_classes


def read(config: Config) -> ImageSet:
    """The data of a run. Their own channels are kept where the configuration leaves the channels to the data.

    Toy data have no channels of their own, and get those of the configuration. Errors are those of data.load.
    """
    model, source = config.model, config.data_config
    channels = None if config.channels_of_data and source.source != "toy" else model.channels
    kind = models.data_kind(model)
    data = load(source, resolution=model.resolution, channels=channels, kind=kind, seed=config.seed)
    if not kind_of(kind).has_colours:
        return data
    found = data.images.shape[1]
    notes = [f"{colour(found)} images"] if channels is None else []
    if any(TRANSPARENT in note for note in data.notes) and models.capabilities(model).from_noise:
        notes.append("--channels 4 keeps transparency")
    return dataclasses.replace(data, notes=(*data.notes, *notes, f"trained in {colour(found)} (channels {found})"))


def fitted(config: Config, data: ImageSet) -> Config:
    """`config` with the channels and the number of classes of `data`, where it leaves them to the data.

    Raises ValueError as `with_channels` and `with_classes` do.
    """
    return with_classes(with_channels(config, data), data)


def with_classes(config: Config, data: ImageSet) -> Config:
    """`config` with the number of classes of `data`, if it asks for classes. Raises ValueError for data without."""
    if not config.conditional:
        return config
    if not data.num_classes:
        told = any(note.startswith(NO_LABELS) for note in data.notes)
        where = "" if told else where_classes(config.data_config.source)
        want = "data with classes" + (f" ({where})" if where else "")
        needed = models.capabilities(config.model).needs_classes
        without = "the preset dcgan needs no classes" if needed else "--no-conditional trains without classes"
        raise ValueError(f"conditional: want {want}, got {describe(data)}; {without}")
    return dataclasses.replace(config, model=dataclasses.replace(config.model, c_dim=data.num_classes))


def with_channels(config: Config, data: ImageSet) -> Config:
    """`config` with the channels of `data`, if it leaves them to the data. Raises ValueError where the model has no
    such channels."""
    if not config.channels_of_data:
        return config
    channels = data.images.shape[1]
    try:
        model = dataclasses.replace(config.model, channels=channels)
    except ValueError as error:
        raise ValueError(f"{error}, as {data.name} has {colour(channels)} images") from None
    return dataclasses.replace(config, model=model, channels_of_data=False)


def colour(channels: int) -> str:
    """The words for images with so many channels."""
    return {1: "grey", 3: "colour", 4: "colour with transparency"}.get(channels, f"{channels} bands")
