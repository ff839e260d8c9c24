"""The state of a run: all that a checkpoint holds, and how a trainer goes on from it."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gan_engine import models
from gan_engine.augment import Ada
from gan_engine.config import Config
from gan_engine.losses.objective import GanObjective
from gan_engine.runs import run_state
from gan_engine.saved_config import require_same, to_dict
from gan_engine.system import checkpoint
from gan_engine.system.random_state import rng_state, seed_all, set_rng_state
from gan_engine.training.batches import Batches
from gan_engine.training.clock import Clock
from gan_engine.training.distributed import Processes
from gan_engine.training.gamma import AutoGamma
from gan_engine.training.means import Means
from gan_engine.training.precision import Precision, resolve
from gan_engine.training.schedule import Optimizers


@dataclass(frozen=True, kw_only=True)
class State:
    """The parts of a trainer that change in training, gathered for checkpoints."""

    config: Config
    class_names: tuple[str, ...]
    networks: dict[str, nn.Module]
    """G, D and G_ema."""
    optimizers: Optimizers
    objective: GanObjective
    precision: Precision
    batches: Batches
    means: Means
    ada: Ada | None
    gamma: AutoGamma | None
    penalty_generator: torch.Generator
    clock: Clock
    processes: Processes

    def state_dict(self) -> dict[str, Any]:
        """Plain types and tensors: what all processes share, and under "processes" what each has for itself."""
        return self._shared() | {"processes": self.processes.gather(self._own())}

    def _shared(self) -> dict[str, Any]:
        return {
            "config": to_dict(self.config),
            "model": models.to_dict(self.config.model),
            "class_names": list(self.class_names),
            "nimg": self.clock.nimg,
            "step_count": self.clock.step_count,
            "seconds": self.clock.seconds,
            "precision": self.precision.name,
            "threads": torch.get_num_threads(),
            **{name: net.state_dict() for name, net in self.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "scaler": self.precision.state_dict(),
            **self.batches.state_dict(),
        }

    def _own(self) -> dict[str, Any]:
        return {
            "rng": rng_state(self.batches.device),
            "penalty_generator": self.penalty_generator.get_state(),
            "objective": self.objective.state_dict(),
            "means": self.means.state(),
            **({} if self.ada is None else {"ada": self.ada.state_dict()}),
            **({} if self.gamma is None else {"gamma": self.gamma.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any], source: str | Path) -> None:
        """Go on from `state`, which messages call `source`, in the precision of its run.

        Raises ValueError and CheckpointError as Trainer.load_state_dict does. Nothing has changed then.
        """
        rank, saved = self.processes.rank, self._checked(state, source)
        own = saved[min(rank, len(saved) - 1)]
        self.batches.load_samplers(state)  # refuses other data, so it comes before all changes
        self._load_shared(state)
        self.objective.load_state_dict(own["objective"])
        if self.ada is not None:
            self.ada.load_state_dict(own["ada"])
        if self.gamma is not None:
            self.gamma.load_state_dict(own["gamma"])
        if len(saved) != self.processes.size and self.processes.first:
            warnings.warn(
                f"the run had {len(saved)} processes, now {self.processes.size}: images and latents go on as they "
                "were, but not the noise that a process draws by itself",
                stacklevel=3,
            )
        if rank < len(saved):
            self._load_numbers(own)
        else:
            seed_all(self.config.seed + rank * 1_000_003 + self.clock.nimg)

    def _checked(self, state: dict[str, Any], source: str | Path) -> list[dict[str, Any]]:
        """The part of `state` of each process. Raises unless all of it fits this trainer."""
        shared, own = self._shared(), self._own()
        checkpoint.require(state, (*shared, "processes"), source)
        saved = run_state.processes(state, source)
        checkpoint.require(saved[min(self.processes.rank, len(saved) - 1)], own, source)
        require_same(state, self.config, source)
        device = self.batches.device
        scaler = Precision(resolve(state["precision"], device), device).state_dict()
        image = self.batches.sampler.images.shape[1:]
        expected = run_state.of_run(shared | {"scaler": scaler}, own, self.optimizers, image)
        run_state.check(state, expected, "", source)
        return saved

    def _load_shared(self, state: dict[str, Any]) -> None:
        if self.batches.device.type == "cpu" and state["threads"] != torch.get_num_threads():
            warnings.warn(
                f"the run had {state['threads']} threads, now {torch.get_num_threads()}: what follows equals an "
                f"uninterrupted run up to rounding only; --threads {state['threads']} takes as many",
                stacklevel=4,
            )
        for name, net in self.networks.items():
            net.load_state_dict(state[name])
        for name, optimizer in self.optimizers.items():
            _load_optimizer(optimizer, state["optimizers"][name])
        self.precision.switch(state["precision"])
        self.precision.load_state_dict(state["scaler"])
        self.batches.z_generator.set_state(state["z_generator"])
        self.clock.nimg, self.clock.step_count = state["nimg"], state["step_count"]
        self.clock.seconds, self.clock.game = state["seconds"], bool(state["optimizers"]["D"]["state"])

    def _load_numbers(self, own: dict[str, Any]) -> None:
        """Load the sums of the means, and where the random numbers of this process go on."""
        device = self.batches.device
        self.means.sums = {name: (total.to(device, copy=True), count) for name, (total, count) in own["means"].items()}
        self.penalty_generator.set_state(own["penalty_generator"])
        set_rng_state(own["rng"], device)


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load the moments. The options follow from the configuration, and stay as they are."""
    options = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["state"], "param_groups": options})
    # Saved moments keep the layout in which they were saved; fused optimisers expect the layout of the weights.
    # The number of steps is copied too, as steps change it in place.
    for p, moments in optimizer.state.items():
        moments |= {k: torch.empty_like(p).copy_(v) if v.shape == p.shape else v.clone() for k, v in moments.items()}
