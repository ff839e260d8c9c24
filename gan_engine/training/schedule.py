"""What a step is made of: phases, their optimisers, and the means of what they measure."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_engine.config import Config
from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.losses.step import Step, TermsStep
from gan_engine.training.distributed import ALONE, Processes

Terms = Callable[[Batch], dict[str, Tensor]]


@dataclass(frozen=True)
class Phase:
    """One network's share of a step: every `interval`-th step `optimizer` lowers weight * the means of `terms`."""

    name: str
    net: nn.Module
    optimizer: torch.optim.Optimizer
    terms: Terms
    interval: int = 1
    penalised: Callable[[Batch], Step] | None = None
    """Makes the steps with penalties, which are every `penalty_interval`-th step."""
    penalty_interval: int = 1
    weight: float = 1
    weight_clip: float | None = None
    begin: float = 0
    """Images shown before the phase takes part."""
    end: float = math.inf
    """Images shown when it no longer does."""
    no_graph: str | None = None
    """Why no CUDA graph can hold the phase."""

    def due(self, nimg: int, step_count: int) -> bool:
        return self.begin <= nimg < self.end and step_count % self.interval == 0

    def penalties_due(self, step_count: int) -> bool:
        return self.penalised is not None and step_count % self.penalty_interval == 0

    def step(self, batch: Batch, *, penalised: bool = False) -> Step:
        return self.penalised(batch) if penalised else TermsStep(self.terms(batch))


def optimizers(config: Config, G: nn.Module, D: nn.Module) -> dict[str, torch.optim.Optimizer]:
    """Adam for each network.

    A penalty with steps of its own adds one to k = pl_interval / n_critic steps of G's, which in all of them is to do
    what it did in those (Karras et al. 2020, arXiv:1912.04958, appendix B). The penalties of D are in its ordinary
    steps, and add none.
    """
    k = config.pl_interval / config.n_critic
    lazy = k / (k + 1) if config.pl_weight else 1

    def adam(net: nn.Module, share: float) -> torch.optim.Optimizer:
        betas = tuple(beta**share for beta in config.betas)
        return torch.optim.Adam(net.parameters(), lr=share * config.lr, betas=betas, fused=True)

    return {"D": adam(D, 1), "G": adam(G, lazy)}


def schedule(
    config: Config, objective: GanObjective, G: nn.Module, D: nn.Module, optimizers: dict[str, torch.optim.Optimizer]
) -> list[Phase]:
    """The phases of a step, in their order."""
    game = 1000 * config.pretrain_kimg
    phases = [
        Phase(
            "D",
            D,
            optimizers["D"],
            objective.discriminator,
            penalised=objective.penalised_discriminator if objective.weights else None,
            penalty_interval=config.penalty_interval,
            weight_clip=config.weight_clip,
            begin=game,
            no_graph="penalties in every step"
            if objective.weights and config.penalty_interval == 1
            else objective.no_graph,
        ),
        Phase("G", G, optimizers["G"], objective.generator, interval=config.n_critic, begin=game),
    ]
    if game:
        phases.append(Phase("G_content", G, optimizers["G"], objective.content, end=game))
    if config.pl_weight:
        options = {
            "interval": config.pl_interval,
            "weight": config.pl_interval,
            "no_graph": "the directions of path lengths",
        }
        phases.append(Phase("G_pl", G, optimizers["G"], objective.path_length, **options))
    return phases


class Means:
    """Running means by name. They stay on the device until they are read, so that no step waits for them."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, name: str, values: Tensor) -> None:
        total, count = self.sums.get(name, (0, 0))
        self.sums[name] = (total + values.detach().float().sum(), count + values.numel())

    def merge(self, others: "Means") -> None:
        """Add what others have seen."""
        for name, (total, count) in others.sums.items():
            kept, kept_count = self.sums.get(name, (0, 0))
            self.sums[name] = (kept + total, kept_count + count)

    def read(self, processes: Processes = ALONE) -> dict[str, float]:
        """The mean of each name since the last call, over all processes."""
        # A process that has joined a resumed run may not know a name that the others keep from before.
        names = sorted(set().union(*processes.all(list(self.sums))))
        if not names:
            return {}
        device = next(iter(self.sums.values()))[0].device if self.sums else None
        pairs = torch.tensor([[0.0, 0.0]] * len(names), dtype=torch.float64, device=device)
        for pair, name in zip(pairs, names):
            if name in self.sums:
                pair[0], pair[1] = self.sums[name]
        self.sums.clear()
        totals, counts = processes.sum(pairs).t().cpu()
        return dict(zip(names, (totals / counts).tolist(), strict=True))
