"""The images that a run was trained on, found by what its checkpoint says."""

from pathlib import Path
from typing import Any

from gan_engine import models
from gan_engine.data import DataError, ImageSet, held_out, load
from gan_engine.data.sampler import hint_of_older_runs
from gan_engine.runs import run_state
from gan_engine.saved_config import from_dict
from gan_engine.system import checkpoint


def of_run(state: dict[str, Any], source: Path) -> ImageSet:
    """The images that the run of `state`, read from the checkpoint `source`, has learnt from; without held-out ones.

    Raises:
        CheckpointError: `source` is no whole checkpoint of a training.
        DataError: the data cannot be read, or are others than the run had.
    """
    checkpoint.require(state, ("config", "sampler", "model"), source)
    run, model = from_dict(state["config"], source), models.from_dict(state["model"])
    run_state.check(state["sampler"], run_state.SAMPLER, "sampler", source)
    sizes = {"resolution": model.resolution, "channels": model.channels, "kind": models.data_kind(model)}
    data, _ = held_out.split(load(run.data_config, seed=run.seed, **sizes), run.held_out, seed=run.seed)
    if data.sha256 != state["sampler"]["sha256"]:
        hint = hint_of_older_runs(data)
        raise DataError(f"data: {run.data} has other images than the run was trained on{hint}")
    return data
