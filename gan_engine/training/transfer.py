"""Transfer learning: a run begins with the weights of another run, and some layers of D keep their weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gan_engine import models
from gan_engine.runs import run_state
from gan_engine.system import checkpoint, outside
from gan_engine.system.checkpoint import CheckpointError
from gan_engine.system.names import listed

NETWORKS = ("G", "D", "G_ema")

_MOST_NAMED = 2  # tensors in a line of about 200 characters


@dataclass(frozen=True)
class TakenWeights:
    """The weights that a network has taken from another run."""

    taken: int
    """Tensors that fit and were taken."""
    total: int
    """Tensors of the network."""
    not_taken: tuple[str, ...]
    """A line for each tensor that does not fit."""
    of: str = ""
    """The network that they were taken from, if it is another one."""
    left: tuple[str, ...] = ()
    """The names of the tensors of the network that were not taken."""

    def __str__(self) -> str:
        return self._but_not(", ".join(self.not_taken))

    def line(self) -> str:
        """The weights in a line for a terminal. `str` also names the tensors that the line only counts."""
        more = "; run.json lists all" if len(self.not_taken) > _MOST_NAMED else ""
        return self._but_not(listed(self.not_taken, most=_MOST_NAMED) + more)

    def _but_not(self, names: str) -> str:
        if not self.taken:
            return f"none of {self.total} tensors: {names}"
        source = f", those of {self.of}" if self.of else ""
        return f"{self.taken} of {self.total} tensors{source}" + (f", but not {names}" if self.not_taken else "")


def read(path: str | Path, model: models.Config) -> tuple[Path, dict[str, Any]]:
    """The checkpoint at `path`, or the newest of a run, and what it holds.

    Raises CheckpointError where there is none, and ValueError where its family is not the family of `model`.
    """
    path = checkpoint.find(path)
    state = checkpoint.load(path)
    checkpoint.require(state, ("model", "G_ema"), path)
    outside.require(state.get("config"), path)
    try:
        family = models.family(models.from_dict(state["model"]))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its networks do not fit this version of gan_engine: {error}") from error
    if family != models.family(model):
        raise ValueError(f"init_from: want networks of {models.family(model)}, got {path}, which has those of {family}")
    for name in filter(state.__contains__, NETWORKS):
        run_state.check(state[name], run_state.dict_of(_any_tensor), name, path)
    return path, state


def begin(G: nn.Module, D: nn.Module, G_ema: nn.Module, path: Path, state: dict[str, Any]) -> dict[str, TakenWeights]:
    """Give the networks the tensors of `state` whose names and shapes agree with theirs; the others stay as they are.

    A parametrisation, such as a spectral norm, computes a weight from several tensors: they are taken together or not
    at all. `path` and `state` are what `read` returns. A file without G gives G_ema to G, and a file without D leaves D
    as it is. Raises ValueError where no tensor of a network fits.
    """
    taken = {}
    for name, network in zip(NETWORKS, (G, D, G_ema), strict=True):
        ours, source = network.state_dict(), "G_ema" if name == "G" and "G" not in state else name
        if source not in state:
            taken[name] = TakenWeights(0, len(ours), (f"the file has no {name}",), left=tuple(ours))
            continue
        theirs = state[source]
        wrong = {key: _why_not(x, theirs.get(key)) for key, x in ours.items()}
        in_part = {_layer(key) for key, why in wrong.items() if why is not None and _layer(key) != key}
        wrong |= {key: "its layer fits in part" for key, why in wrong.items() if why is None and _layer(key) in in_part}
        fitting = [key for key, why in wrong.items() if why is None]
        if not fitting:
            raise ValueError(f"init_from: want tensors of the names and shapes of {name}, got none in {path}")
        with torch.no_grad():
            for key in fitting:
                ours[key].copy_(theirs[key])
        left = [key for key, why in wrong.items() if why is not None]
        told = [f"{key} ({wrong[key]})" for key in left]
        told += [f"{key} (there {list(x.shape)}, not here)" for key, x in theirs.items() if key not in ours]
        of = "" if source == name else source
        taken[name] = TakenWeights(len(fitting), len(ours), tuple(told), of, tuple(left))
    return taken


def frozen(D: nn.Module, num: int, family: str) -> list[nn.Parameter]:
    """The parameters of the `num` blocks of D nearest to the image (FreezeD, Mo et al. 2020, arXiv:2002.10964).

    D lists its blocks in `blocks_from_image`. Raises ValueError where D has no such list, or fewer blocks.
    """
    if not num:
        return []
    if not hasattr(D, "blocks_from_image"):
        raise ValueError(f"freeze_d: want 0 for {family}, whose D has no blocks one after the other, got {num}")
    blocks = D.blocks_from_image()
    if num > len(blocks):
        raise ValueError(f"freeze_d: want at most the {len(blocks)} blocks of D of {family}, got {num}")
    return [p for block in blocks[:num] for part in block for p in _parameters(part)]


def frozen_at_random(D: nn.Module, held: list[nn.Parameter], taken: TakenWeights) -> list[str]:
    """The names of the parameters `held` of D that `taken` has left at their random values."""
    ids, left = set(map(id, held)), set(taken.left)
    return [name for name, p in D.named_parameters() if id(p) in ids and name in left]


def _parameters(part: nn.Module | nn.Parameter) -> list[nn.Parameter]:
    return [part] if isinstance(part, nn.Parameter) else list(part.parameters())


def _layer(key: str) -> str:
    """The name of the layer whose weight is computed from the tensor `key`, or `key` for an ordinary weight."""
    return key.partition(".parametrizations.")[0]


def _why_not(ours: Tensor, theirs: Tensor | None) -> str | None:
    if theirs is None:
        return f"here {list(ours.shape)}, not there"
    return None if ours.shape == theirs.shape else f"here {list(ours.shape)}, there {list(theirs.shape)}"


def _any_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.empty(0)
