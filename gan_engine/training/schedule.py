"""The parts of a step: phases, their optimisers, and the learning rates."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations

import torch
from torch import Tensor, nn

from gan_engine.config import Config
from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.losses.step import Step, TermsStep
from gan_engine.training import numbers

Optimizers = dict[str, torch.optim.Optimizer]


@dataclass(frozen=True)
class Phase:
    """One network's share of a step: `optimizer` lowers weight * the sum of the means of `terms`."""

    name: str
    net: nn.Module
    optimizer: torch.optim.Optimizer
    terms: Callable[[Batch], dict[str, Tensor]]
    """The terms that the phase minimises, {name: [N]}."""
    interval: int = 1
    """Steps from one in which the phase takes part to the next."""
    penalised: Callable[[Batch], Step] | None = None
    """Makes the passes of steps with penalties, which are every `penalty_interval`-th step."""
    penalty_interval: int = 1
    weight: float = 1
    weight_clip: float | None = None
    """Limit of the absolute value of weights. None: no limit."""
    pretraining: bool | None = None
    """True: takes part while G is pretrained. False: only afterwards. None: always."""
    no_graph: str | None = None
    """Why no CUDA graph can hold the phase. None: a graph can."""

    @property
    def forms(self) -> dict[str, bool]:
        """The forms that a step of the phase can have, by name: whether penalties are part of it."""
        if self.penalised is None:
            return {self.name: False}
        penalised = {f"{self.name} with penalties": True}
        return penalised if self.penalty_interval == 1 else {self.name: False, **penalised}

    def due(self, step_count: int, pretraining: bool) -> bool:
        return self.pretraining in (None, pretraining) and step_count % self.interval == 0

    def form(self, *, penalised: bool) -> str:
        """The name of a form."""
        return next(name for name, with_penalties in self.forms.items() if with_penalties == penalised)

    def penalties_due(self, step_count: int) -> bool:
        return self.penalised is not None and step_count % self.penalty_interval == 0

    def forward(self, batch: Batch, *, penalised: bool) -> Step:
        """A pass over a batch, which waits for its backward pass."""
        return self.penalised(batch) if penalised else TermsStep(self.terms(batch))


Due = tuple[Phase, bool, bool]  # a phase, whether its penalties are due, and whether it is the last of its step


def due(phases: list[Phase], step_count: int, *, pretraining: bool) -> list[Due]:
    """The phases of a step, in their order."""
    now = [phase for phase in phases if phase.due(step_count, pretraining)]
    return [(phase, phase.penalties_due(step_count), phase is now[-1]) for phase in now]


def ever_due(phases: list[Phase]) -> list[Due]:
    """All that `due` gives in a run, each once.

    What is due depends on which intervals divide the number of steps. A number divisible by some of them is divisible
    by their least common multiple, which tells all other divisors apart as the number does. So these multiples suffice.
    """
    intervals = {n for phase in phases for n in (phase.interval, phase.penalty_interval)}
    some = chain(*(combinations(sorted(intervals), count) for count in range(len(intervals), -1, -1)))
    counts = [math.lcm(*chosen) for chosen in some]
    every = (due(phases, count, pretraining=early) for early in (True, False) for count in counts)
    found = {(phase.name, penalised, last): (phase, penalised, last) for phase, penalised, last in chain(*every)}
    return list(found.values())


def optimizers(config: Config, G: nn.Module, D: nn.Module) -> Optimizers:
    """Adam for each network.

    Path length steps come on top of k = pl_interval / n_critic steps of G. k + 1 steps must act like k. The learning
    rate and the exponent of betas are therefore multiplied by k / (k + 1) (Karras et al. 2020, arXiv:1912.04958,
    appendix B). The penalties of D are part of its ordinary steps and change nothing.
    """
    k = config.pl_interval / config.n_critic
    lazy = k / (k + 1) if config.pl_weight else 1

    def adam(net: nn.Module, share: float) -> torch.optim.Optimizer:
        betas = tuple(beta**share for beta in config.betas)
        adam = torch.optim.Adam(net.parameters(), lr=share * config.lr, betas=betas, fused=True)
        for group in adam.param_groups:
            group["lr"] = numbers.number(group["lr"], group["params"][0].device)
        return adam

    return {"D": adam(D, 1), "G": adam(G, lazy)}


def set_learning_rates(optimizers: Optimizers, *, done: float, lr_decay: float) -> None:
    """Set the learning rates: constant, then linear to 0 over the last `lr_decay` of the run.

    Args:
        done: the part of the run that is over, 0 to 1.
    """
    if lr_decay:
        left = (1 - done) / lr_decay
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = numbers.changed(group["lr"], optimizer.defaults["lr"] * min(1, left))


def schedule(
    config: Config, objective: GanObjective, G: nn.Module, D: nn.Module, optimizers: Optimizers
) -> list[Phase]:
    """The phases of a step, in their order."""
    game = False if config.pretrain_kimg else None
    phases = [
        Phase(
            "D",
            D,
            optimizers["D"],
            objective.discriminator,
            penalised=objective.penalised_discriminator if objective.weights else None,
            penalty_interval=config.penalty_interval,
            weight_clip=config.weight_clip,
            pretraining=game,
            no_graph=objective.no_graph,
        ),
        Phase("G", G, optimizers["G"], objective.generator, interval=config.n_critic, pretraining=game),
    ]
    if config.pretrain_kimg:
        phases.append(Phase("G_content", G, optimizers["G"], objective.content, pretraining=True))
    if config.pl_weight:
        interval = config.pl_interval
        phases.append(Phase("G_pl", G, optimizers["G"], objective.path_length, interval=interval, weight=interval))
    return phases
