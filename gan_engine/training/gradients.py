"""The gradients of a phase on a batch: pass by pass, or by a CUDA graph of all passes."""

from collections.abc import Callable, Iterable
from functools import partial

from torch import Tensor

from gan_engine.augment import Ada
from gan_engine.losses.objective import Batch
from gan_engine.losses.step import total
from gan_engine.training import graphs
from gan_engine.training.batches import Batches
from gan_engine.training.means import Means
from gan_engine.training.networks import Networks
from gan_engine.training.precision import Precision
from gan_engine.training.schedule import Phase

R_T = "ada/r_t"  # the name of the mean of the signs of D's logits of real images


class Gradients:
    """Adds the gradients of phases to .grad, what the phases measure to `means`, and the signs of logits to `ada`.

    Attributes:
        graphs: the recorded phases by name and by penalties; empty for a run without CUDA graphs.
    """

    def __init__(
        self, networks: Networks, batches: Batches, precision: Precision, means: Means, ada: Ada | None = None
    ) -> None:
        self.networks, self.batches, self.precision, self.means, self.ada = networks, batches, precision, means, ada
        self.graphs: dict[tuple[str, bool], graphs.RecordedPhase] = {}
        self._recording = graphs.Recording()

    def record(self, phases: Iterable[Phase], tensors: Callable[[], list[Tensor]]) -> None:
        """Record CUDA graphs of those phases that graphs can hold, in place of earlier graphs.

        `tensors` gives what the phases change besides the buffers of networks.
        """
        self._recording.end()  # before there are new ones: the phases and their graphs refer to each other
        self.graphs.clear()
        self._recording = recording = graphs.Recording(tensors)
        networks = [self.networks.G, self.networks.D]
        for phase in phases:
            for name, penalised in phase.forms.items() if phase.no_graph is None else ():
                compute = partial(self.compute, phase, penalised=penalised)
                recorded = graphs.RecordedPhase(compute, name, phase.net, networks, recording)
                self.graphs[phase.name, penalised] = recorded

    def add(self, phase: Phase, batch: Batch, *, penalised: bool) -> Tensor:
        """Add the gradients of a phase to .grad, times the loss scale of fp16, and return the loss []."""
        recorded = self.graphs.get((phase.name, penalised))
        loss, measured = self.compute(phase, batch, penalised=penalised) if recorded is None else recorded(batch)
        self.means.merge(measured)
        if self.ada is not None and R_T in measured.sums:  # not where they are measured, which a graph replays
            self.ada.count(*measured.sums[R_T])
        return loss

    def compute(self, phase: Phase, batch: Batch, *, penalised: bool = False) -> tuple[Tensor, Means]:
        """The loss [] of a phase and what it measured; gradients are added to .grad."""
        losses = []
        with self.means.apart() as measured:
            for part in self.batches.parts(batch):
                share = len(part.real_img) / len(batch.real_img) * phase.weight
                losses.append(self._pass(phase, part, share, penalised))
        return total(losses).float(), measured

    def _pass(self, phase: Phase, part: Batch, share: float, penalised: bool) -> Tensor:
        with self.precision.autocast():
            step = phase.forward(part, penalised=penalised)
        terms = step.backward(self.precision.scale(share))
        for name, values in terms.items():
            self.means.add(f"loss/{name}", values)
        return total(values.mean() for values in terms.values()) * share
