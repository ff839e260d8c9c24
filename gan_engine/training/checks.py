"""Reasons to refuse a run before its networks are built."""

import warnings

from gan_engine.config import Config
from gan_engine.ops.minibatch_stddev import group_of
from gan_engine.training.distributed import Processes


def check_batches(config: Config, processes: Processes) -> None:
    """Refuse a batch that cannot be split, and warn of small groups for the minibatch statistic of D.

    Raises ValueError where the processes cannot have equal parts, or where a pass has no groups for the statistic.
    """
    if config.batch_size % processes.size:
        raise ValueError(f"batch_size: want a multiple of the {processes.size} processes, got {config.batch_size}")
    group = getattr(config.model, "mbstd_group", 1)
    share = config.batch_size // processes.size
    size = min(config.batch_gpu or share, share)
    passes = {size, share % size or size}  # the last one may be smaller
    for images in sorted(passes):
        if group_of(images, group) == 1 < min(images, group):
            sizes = f"batch_size {config.batch_size}" + (f" and batch_gpu {size}" if size < share else "")
            sizes += f" in {processes.size} processes" if processes.size > 1 else ""
            raise ValueError(
                f"batch_size: want passes that split into equal groups of 2 to {min(images, group)} images "
                f"(mbstd_group {group}) for the minibatch statistic of D, got a pass of {images} images by {sizes}"
            )
    of_pass = min(group_of(images, group) for images in passes)
    of_batch = group_of(config.batch_size, group)
    if of_pass < of_batch and processes.first:
        warnings.warn(
            f"the minibatch statistic of D is over groups of {of_pass} images, as many as a pass of a process has; "
            f"a batch of {config.batch_size} in one pass makes groups of {of_batch}",
            stacklevel=3,
        )
