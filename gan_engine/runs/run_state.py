"""The check of a checkpoint: its state must look like the state of a trainer that has just been built."""

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gan_engine.system.checkpoint import CheckpointError

SAMPLER = {"seed": 0, "position": 0, "num_images": 0, "sha256": ""}  # the entries of data.Sampler.state_dict


def check(value: Any, expected: Any, where: str, source: str | Path) -> None:
    """Raises CheckpointError, which names `source` and the place `where`, unless `value` looks like `expected`.

    Both must be of one type at every place. Tensors agree in shape and dtype, dicts in their keys, lists in their
    length. Whole numbers are from 0 to below 2^63, and floats are finite. A function in `expected` is called with the
    value at its place, and returns what is expected there.
    """
    expected = expected(value) if callable(expected) else expected
    if isinstance(expected, Tensor) and isinstance(value, Tensor):
        if value.shape != expected.shape or value.dtype != expected.dtype:
            want, got = (f"{x.dtype} {list(x.shape)}" for x in (expected, value))
            raise CheckpointError(f"{source}: {where}: want {want}, got {got}")
        return
    if _kind(value) is not _kind(expected):
        got = _kind(value).__name__
        got += textwrap.shorten(f" {value!r}", 60) if isinstance(value, str | int | float) else ""
        raise CheckpointError(f"{source}: {where}: want {_kind(expected).__name__}, got {got}")
    if isinstance(expected, dict):
        for name in expected.keys() ^ value.keys():
            wrong = "want no such entry" if name in value else "want an entry, got none"
            raise CheckpointError(f"{source}: {where}[{name!r}]: {wrong}")
        for name, entry in expected.items():
            check(value[name], entry, f"{where}[{name!r}]" if where else str(name), source)
    elif isinstance(expected, list | tuple):
        if len(value) != len(expected):
            raise CheckpointError(f"{source}: {where}: want {len(expected)} entries, got {len(value)}")
        for i, (item, entry) in enumerate(zip(value, expected, strict=True)):
            check(item, entry, f"{where}[{i}]", source)
    elif type(expected) is int and not 0 <= value < 2**63:
        raise CheckpointError(f"{source}: {where}: want 0 to 2^63 - 1, got {value:.6g}")
    elif isinstance(expected, float) and not math.isfinite(value):
        raise CheckpointError(f"{source}: {where}: want a finite number, got {value}")


def check_finite(weights: dict[str, Tensor], where: str, source: str | Path) -> None:
    """Raises CheckpointError, as `check` does, if a weight is NaN or infinite: its pictures would show nothing."""
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise CheckpointError(f"{source}: {where}[{name!r}]: want finite numbers, got NaN or infinite ones")


def _kind(value: Any) -> type:
    return next((kind for kind in (dict, Tensor) if isinstance(value, kind)), type(value))


def list_of(entry: Any) -> Callable[[Any], Any]:
    """Expects a list of any length, each entry like `entry`."""
    return lambda value: [entry] * len(value) if isinstance(value, list) else []


def dict_of(entry: Any) -> Callable[[Any], Any]:
    """Expects a dict with any text as names, each entry like `entry`."""
    return lambda value: {name: entry for name in value if isinstance(name, str)} if isinstance(value, dict) else {}


def or_none(expected: Any) -> Callable[[Any], Any]:
    """Expects None, or a value like `expected`."""
    return lambda value: None if value is None else expected


def of_run(
    shared: dict[str, Any], own: dict[str, Any], optimizers: dict[str, torch.optim.Optimizer], image: torch.Size
) -> dict[str, Any]:
    """The types and shapes that `check` expects in the state of a run.

    Args:
        shared: what all processes share in a trainer that has just been built, and `own`, the part of one process.
        optimizers: of that trainer. Their options follow from the configuration and are not read.
        image: the shape of an image, for pools of generated images.

    The configuration is checked when it is read, not here.
    """
    anything = _same
    objective = own["objective"]
    if "pools" in objective:
        objective = objective | {"pools": dict.fromkeys(objective["pools"], _images(image))}
    rng = own["rng"]
    rng = rng | {"python": rng["python"] | {"gauss": or_none(0.0)}, "cuda": _of_one_gpu}
    process = own | {"rng": rng, "objective": objective, "means": dict_of((torch.zeros(()), 0))}
    return shared | {
        "config": anything,
        "class_names": list_of(""),
        "optimizers": {
            name: {"state": _moments(optimizer), "param_groups": anything} for name, optimizer in optimizers.items()
        },
        "processes": list_of(process),
    }


def processes(state: dict[str, Any], source: str | Path) -> list[dict[str, Any]]:
    """The part of each process, at least one. Raises CheckpointError where there is no such list."""
    saved = state["processes"]
    if not isinstance(saved, list) or not saved or not all(isinstance(own, dict) for own in saved):
        raise CheckpointError(
            f"{source}: processes: want a list with a dict for each process, got {_kind(saved).__name__}"
        )
    return saved


def _of_one_gpu(value: Any) -> Any:
    """Expects the state of the generator of the GPU that trained, or nothing from a CPU."""
    return [_bytes] if value else []


def _same(value: Any) -> Any:
    return value


def _bytes(value: Any) -> Tensor:
    return torch.empty(value.shape if isinstance(value, Tensor) else 0, dtype=torch.uint8, device="meta")


def _images(shape: torch.Size) -> Callable[[Any], Any]:
    """Expects any number of images of that shape, of any floating-point dtype."""

    def expected(value: Any) -> Tensor:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return torch.empty(shape, dtype=value.dtype if floating else torch.float32, device="meta")

    return list_of(expected)


def _moments(optimizer: torch.optim.Optimizer) -> Callable[[Any], Any]:
    """Expects the state of a fused Adam: all moments of a parameter, or none of it."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    step = torch.zeros((), dtype=torch.float32)

    def expected(value: Any) -> Any:
        numbers = [i for i in value if type(i) is int and 0 <= i < len(parameters)] if isinstance(value, dict) else []
        return {i: {"step": step, "exp_avg": parameters[i], "exp_avg_sq": parameters[i]} for i in numbers}

    return expected


def class_names(state: dict[str, Any], source: str | Path) -> list[str]:
    """The names of the classes on which a generator was trained; [] without classes."""
    names = state.get("class_names", [])
    check(names, list_of(""), "class_names", source)
    return names


def bits(state: dict[str, Any]) -> int:
    """The bits of the images on which a generator was trained: 16, or 8 where `state` says nothing."""
    config = state.get("config")
    found = state.get("bits", config.get("bits") if isinstance(config, dict) else None)
    return 16 if isinstance(found, int) and found == 16 else 8
