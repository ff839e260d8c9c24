"""What may stand in a checkpoint: the state of a run is held against that of a trainer that has just been built."""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_engine.system.checkpoint import CheckpointError

SAMPLER = {"seed": 0, "position": 0, "num_images": 0, "sha256": ""}  # as data.Sampler.state_dict


def check(value: Any, like: Any, where: str, source: str | Path) -> None:
    """Raises CheckpointError, which names `source` and the place, unless `value` is such as `like` is.

    Tensors are of one shape and dtype, dicts have the same keys, lists the same length, and everything the same type.
    Whole numbers are from 0 to below 2^63, and floats are finite. A function in `like` says itself what `value` is
    held against.
    """
    like = like(value) if callable(like) else like
    if isinstance(like, Tensor) and isinstance(value, Tensor):
        if value.shape != like.shape or value.dtype != like.dtype:
            want, got = (f"{x.dtype} {list(x.shape)}" for x in (like, value))
            raise CheckpointError(f"{source}: {where}: want {want}, got {got}")
        return
    if _kind(value) is not _kind(like):
        got = _kind(value).__name__
        got += textwrap.shorten(f" {value!r}", 60) if isinstance(value, str | int | float) else ""
        raise CheckpointError(f"{source}: {where}: want {_kind(like).__name__}, got {got}")
    if isinstance(like, dict):
        for name in like.keys() ^ value.keys():
            wrong = "want no such entry" if name in value else "want an entry, got none"
            raise CheckpointError(f"{source}: {where}[{name!r}]: {wrong}")
        for name, each in like.items():
            check(value[name], each, f"{where}[{name!r}]" if where else str(name), source)
    elif isinstance(like, list | tuple):
        if len(value) != len(like):
            raise CheckpointError(f"{source}: {where}: want {len(like)} entries, got {len(value)}")
        for i, (item, each) in enumerate(zip(value, like, strict=True)):
            check(item, each, f"{where}[{i}]", source)
    elif type(like) is int and not 0 <= value < 2**63:
        raise CheckpointError(f"{source}: {where}: want 0 to 2^63 - 1, got {value:.6g}")
    elif isinstance(like, float) and not math.isfinite(value):
        raise CheckpointError(f"{source}: {where}: want a finite number, got {value}")


def check_finite(weights: dict[str, Tensor], where: str, source: str | Path) -> None:
    """Raises CheckpointError, as `check` does, if a weight is NaN or infinite: pictures drawn with it show nothing."""
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise CheckpointError(f"{source}: {where}[{name!r}]: want finite numbers, got NaN or infinite ones")


def _kind(value: Any) -> type:
    return next((kind for kind in (dict, Tensor) if isinstance(value, kind)), type(value))


def list_of(like: Any) -> Callable[[Any], Any]:
    """A list of such as `like`, however long."""
    return lambda value: [like] * len(value) if isinstance(value, list) else []


def dict_of(like: Any) -> Callable[[Any], Any]:
    """A dict of such as `like`, whose names are any text."""
    return lambda value: {name: like for name in value if isinstance(name, str)} if isinstance(value, dict) else {}


def or_none(like: Any) -> Callable[[Any], Any]:
    """None, or such as `like`."""
    return lambda value: None if value is None else like


def of_run(
    common: dict[str, Any], own: dict[str, Any], optimizers: dict[str, torch.optim.Optimizer], image: torch.Size
) -> dict[str, Any]:
    """What the state of a run may be, from that of a trainer before its first step: `common`, and `own` of a process.

    The configuration is checked when it is read. The options of an optimiser follow from it, and are not read.
    """
    anything = _same
    objective = own["objective"]
    if "pools" in objective:
        objective = objective | {"pools": dict.fromkeys(objective["pools"], _images(image))}
    rng = own["rng"]
    rng = rng | {"python": rng["python"] | {"gauss": or_none(0.0)}, "cuda": list_of(_bytes)}
    process = own | {"rng": rng, "objective": objective, "means": dict_of((torch.zeros(()), 0))}
    return common | {
        "config": anything,
        "class_names": list_of(""),
        "optimizers": {
            name: {"state": _moments(optimizer), "param_groups": anything} for name, optimizer in optimizers.items()
        },
        "processes": list_of(process),
    }


def processes(state: dict[str, Any], source: str | Path) -> list[dict[str, Any]]:
    """What is of each process alone, at least one. Raises CheckpointError where there is no such list."""
    saved = state["processes"]
    if not isinstance(saved, list) or not saved or not all(isinstance(own, dict) for own in saved):
        raise CheckpointError(
            f"{source}: processes: want a list with a dict for each process, got {_kind(saved).__name__}"
        )
    return saved


def _same(value: Any) -> Any:
    return value


def _bytes(value: Any) -> Tensor:
    return torch.empty(value.shape if isinstance(value, Tensor) else 0, dtype=torch.uint8, device="meta")


def _images(shape: torch.Size) -> Callable[[Any], Any]:
    """Any number of images of that shape, of any floating-point dtype."""

    def like(value: Any) -> Tensor:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return torch.empty(shape, dtype=value.dtype if floating else torch.float32, device="meta")

    return list_of(like)


def _moments(optimizer: torch.optim.Optimizer) -> Callable[[Any], Any]:
    """The state of a fused Adam: of each parameter all of its moments, or nothing."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    step = torch.zeros((), dtype=torch.float32)

    def of(value: Any) -> Any:
        numbers = [i for i in value if type(i) is int and 0 <= i < len(parameters)] if isinstance(value, dict) else []
        return {i: {"step": step, "exp_avg": parameters[i], "exp_avg_sq": parameters[i]} for i in numbers}

    return of


def class_names(state: dict[str, Any], source: str | Path) -> list[str]:
    """Those of the classes that a generator was trained on; [] without classes."""
    names = state.get("class_names", [])
    check(names, list_of(""), "class_names", source)
    return names
