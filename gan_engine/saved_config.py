"""The configuration of a run as run.json and checkpoints hold it, and what a resumed run may change of it."""

import dataclasses
from pathlib import Path
from typing import Any

from gan_engine import models
from gan_engine.config import Config
from gan_engine.system import outside
from gan_engine.system.checkpoint import CheckpointError
from gan_engine.system.resolution import written

# Fields that may change when a run is resumed: they do not change what is learnt, up to rounding. `data` may name
# another place, and the sampler checks that the images are the same. LENGTHS may not change where the learning rate
# falls towards the end of the run.
LENGTHS = ("kimg", "minutes")
ANOTHER_RUN = "--init-from begins a new run with its weights"  # where a run cannot be longer
FREE_ON_RESUME = {
    *(*LENGTHS, "batch_gpu", "device", "out", "resume", "data", "data_root", "keep", "tensorboard", "tune_malloc"),
    "loggers",
    *("threads", "metrics_kimg", "grid_kimg", "checkpoint_kimg", "channels_last", "cuda_graphs", "plugin"),
    *("eval_kimg", "eval_metrics", "eval_num", "eval_extractor", "eval_weights", "eval_data", "patience"),
    *("health_kimg", "on_collapse", "rollbacks", "rollback_lr"),
}


def to_dict(config: Config) -> dict[str, Any]:
    """`config` in dicts, lists, numbers and text, as run.json and checkpoints hold it."""
    return _as_json({**dataclasses.asdict(config), "model": models.to_dict(config.model)})


def from_dict(values: dict[str, Any], source: str | Path) -> Config:
    """The inverse of `to_dict`. `out` and `resume` belong to one start of a run, and become None.

    Raises CheckpointError, which names `source`, for unknown fields and values, and for plug-ins that were not named.
    """
    outside.require(values, source)
    try:
        if not isinstance(values, dict):
            raise TypeError(f"want a dict, got {type(values).__name__}")
        rest = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return Config(**rest | {"model": models.from_dict(values["model"]), "out": None, "resume": None})
    except KeyError as error:
        raise CheckpointError(f"{source}: its configuration does not fit this version: no {error.args[0]}") from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source}: its configuration does not fit this version of gan_engine: {error}"
        ) from error


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def differences(before: dict[str, Any], now: dict[str, Any], *, prefix: str = "") -> list[str]:
    """One line for each field that differs between two results of `to_dict`, and that a resumed run must keep."""
    lines = []
    for name in sorted(before.keys() | now.keys()):
        if not prefix and name in FREE_ON_RESUME and not (name in LENGTHS and before.get("lr_decay")):
            continue
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, prefix=f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: the run has {_shown(name, a)}, now {_shown(name, b)}")
    return lines


def _shown(name: str, value: Any) -> str:
    """The value of a field in a message; 24x40 for the sides of a rectangle."""
    return written(tuple(value)) if name == "resolution" and isinstance(value, list) else repr(value)


def require_same(state: dict[str, Any], config: Config, source: str | Path) -> None:
    """Raise ValueError if a run with `config` cannot go on from the `state` of a checkpoint, by `differences`."""
    before, now = to_dict(from_dict(state["config"], source)), to_dict(config)
    changed = differences(before, now)
    if before["lr_decay"] and any(before[name] != now[name] for name in LENGTHS):
        changed.append(f"(its learning rate falls towards its end, by --lr-decay; {ANOTHER_RUN})")
    if changed:
        raise ValueError("\n  ".join(["a resumed run keeps its configuration, but these differ:", *changed]))
