"""The gradients of a phase on a batch: pass by pass, or by a CUDA graph of all passes."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from gan_engine.losses.objective import Batch
from gan_engine.training import graphs
from gan_engine.training.batches import Batches
from gan_engine.training.means import Means
from gan_engine.training.networks import Networks
from gan_engine.training.precision import Precision
from gan_engine.training.schedule import Phase


class Gradients:
    """Adds the gradients of phases to .grad, and what the phases measure to `means`.

    Attributes:
        graphs: the recorded phases by name; empty for a run without CUDA graphs.
    """

    def __init__(self, networks: Networks, batches: Batches, precision: Precision, means: Means) -> None:
        self.networks, self.batches, self.precision, self.means = networks, batches, precision, means
        self.graphs: dict[str, graphs.RecordedPhase] = {}

    def record(self, phases: Iterable[Phase]) -> None:
        """Record CUDA graphs of those phases that graphs can hold, in place of earlier graphs."""
        together: list[graphs.RecordedPhase] = []
        networks = [self.networks.G, self.networks.D]
        for phase in phases:
            if phase.no_graph is None:
                compute = partial(self.compute, phase)
                self.graphs[phase.name] = graphs.RecordedPhase(compute, phase, networks, together)

    def add(self, phase: Phase, batch: Batch, *, penalised: bool) -> Tensor:
        """Add the gradients of a phase to .grad, times the loss scale of fp16, and return the loss []."""
        if penalised or phase.name not in self.graphs:
            loss, measured = self.compute(phase, batch, penalised=penalised)
        else:
            loss, measured = self.graphs[phase.name](batch)
        self.means.merge(measured)
        return loss

    def compute(self, phase: Phase, batch: Batch, *, penalised: bool = False) -> tuple[Tensor, Means]:
        """The loss [] of a phase and what it measured; gradients are added to .grad."""
        loss = torch.zeros((), device=self.batches.device)
        with self.means.apart() as measured:
            for part in self.batches.parts(batch):
                share = len(part.real_img) / len(batch.real_img) * phase.weight
                loss += self._pass(phase, part, share, penalised)
        return loss, measured

    def _pass(self, phase: Phase, part: Batch, share: float, penalised: bool) -> Tensor:
        with self.precision.autocast():
            step = phase.forward(part, penalised=penalised)
        terms = step.backward(self.precision.scale(share))
        for name, values in terms.items():
            self.means.add(f"loss/{name}", values)
        return sum(values.mean() for values in terms.values()) * share
