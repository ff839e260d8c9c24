"""New data for old networks: weights of another run to begin with, and layers of D that keep theirs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_engine import models
from gan_engine.runs import run_state
from gan_engine.system import checkpoint, outside
from gan_engine.system.checkpoint import CheckpointError

NETWORKS = ("G", "D", "G_ema")


@dataclass(frozen=True)
class Taken:
    """What a network has of another run's: the number of its tensors, and a line for each that does not fit."""

    fitting: int
    of: int
    not_fitting: tuple[str, ...]

    def __str__(self) -> str:
        rest = f", but not {', '.join(self.not_fitting)}" if self.not_fitting else ""
        return f"{self.fitting} of {self.of} tensors{rest}"


def read(path: str | Path, model: models.Config) -> tuple[Path, dict[str, Any]]:
    """The checkpoint at `path` (or the newest of a run) and what it holds, for networks of the sizes in `model`.

    Raises CheckpointError where there is none, and ValueError for one of another family.
    """
    path = checkpoint.find(path)
    state = checkpoint.load(path)
    checkpoint.require(state, ("model", *NETWORKS), path)
    outside.require(state.get("config"), path)
    try:
        family = models.family(models.from_dict(state["model"]))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its networks do not fit this version of gan_engine: {error}") from error
    if family != models.family(model):
        raise ValueError(f"init_from: want networks of {models.family(model)}, got {path}, which has those of {family}")
    for name in NETWORKS:
        run_state.check(state[name], run_state.dict_of(_any_tensor), name, path)
    return path, state


def begin(G: nn.Module, D: nn.Module, G_ema: nn.Module, path: Path, state: dict[str, Any]) -> dict[str, Taken]:
    """Give the networks those tensors of `state`, as `read` returns it, whose names and shapes agree with theirs.

    The others stay as they are. What a parametrisation (a spectral norm) computes a weight from is taken whole or not
    at all. Raises ValueError where no tensor of a network fits.
    """
    taken = {}
    for name, network in zip(NETWORKS, (G, D, G_ema), strict=True):
        ours, theirs = network.state_dict(), state[name]
        wrong = {key: _why_not(x, theirs.get(key)) for key, x in ours.items()}
        torn = {_layer(key) for key, why in wrong.items() if why is not None and _layer(key) != key}
        wrong |= {key: "its layer fits in part" for key, why in wrong.items() if why is None and _layer(key) in torn}
        fitting = [key for key, why in wrong.items() if why is None]
        if not fitting:
            raise ValueError(f"init_from: want tensors of the names and shapes of {name}, got none in {path}")
        with torch.no_grad():
            for key in fitting:
                ours[key].copy_(theirs[key])
        left = [f"{key} ({why})" for key, why in wrong.items() if why is not None]
        left += [f"{key} (there {list(x.shape)}, not here)" for key, x in theirs.items() if key not in ours]
        taken[name] = Taken(len(fitting), len(ours), tuple(left))
    return taken


def frozen(D: nn.Module, num: int, family: str) -> list[nn.Parameter]:
    """The parameters of the `num` blocks of D nearest to the image (FreezeD, Mo et al. 2020, arXiv:2002.10964).

    What a block is, D says in `blocks_from_image`. Raises ValueError where it has none, or fewer.
    """
    if not num:
        return []
    if not hasattr(D, "blocks_from_image"):
        raise ValueError(f"freeze_d: want 0 for {family}, whose D has no blocks one after the other, got {num}")
    blocks = D.blocks_from_image()
    if num > len(blocks):
        raise ValueError(f"freeze_d: want at most the {len(blocks)} blocks of D of {family}, got {num}")
    return [p for block in blocks[:num] for part in block for p in _parameters(part)]


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def _layer(key: str) -> str:
    """The name of the layer whose weight is computed from this tensor, else the name of the tensor."""
    return key.partition(".parametrizations.")[0]


def _why_not(ours: Tensor, theirs: Tensor | None) -> str | None:
    if theirs is None:
        return f"here {list(ours.shape)}, not there"
    return None if ours.shape == theirs.shape else f"here {list(ours.shape)}, there {list(theirs.shape)}"


def _any_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.empty(0)
