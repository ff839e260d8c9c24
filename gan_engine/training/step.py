"""One phase's share of a training step, from the batch to the new weights: launch by launch, or as one CUDA graph."""

from collections.abc import Iterable, Sequence
from functools import partial

import torch
from torch import Tensor

from gan_engine.augment import Ada
from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.training import graphs
from gan_engine.training.average import Average
from gan_engine.training.clock import Clock
from gan_engine.training.distributed import Processes
from gan_engine.training.game import R_T
from gan_engine.training.gamma import AutoGamma
from gan_engine.training.gradients import Gradients
from gan_engine.training.means import Means
from gan_engine.training.networks import Networks
from gan_engine.training.precision import Precision, finite
from gan_engine.training.schedule import Phase, ever_due
from gan_engine.training.stops import Stops


class PhaseSteps:
    """Takes the steps of phases: gradients, their mean over the processes, and one step of the optimiser.

    The last phase of a training step ends with the moving average. All that runs on the device is in `compute`, which
    reads numbers of the host that change from tensors. A CUDA graph can therefore hold it.

    Attributes:
        graphs: the recorded phases by name, by penalties and by whether they are the last; empty for a run without CUDA
            graphs.
    """

    def __init__(
        self,
        *,
        networks: Networks,
        average: Average,
        objective: GanObjective,
        gradients: Gradients,
        precision: Precision,
        stops: Stops,
        means: Means,
        ada: Ada | None,
        gamma: AutoGamma | None,
        clock: Clock,
        processes: Processes,
    ) -> None:
        self.networks, self.average, self.objective = networks, average, objective
        self.gradients, self.precision, self.stops, self.means = gradients, precision, stops, means
        self.ada, self.gamma, self.clock, self.processes = ada, gamma, clock, processes
        self.graphs: dict[tuple[str, bool, bool], graphs.RecordedPhase] = {}
        self._recording = graphs.Recording()

    def record(self, phases: Sequence[Phase]) -> None:
        """Record CUDA graphs of those phases that graphs can hold, in place of earlier graphs."""
        self._recording.end()  # before there are new ones: the phases and their graphs refer to each other
        self.graphs.clear()
        self._recording = graphs.Recording()
        for phase, penalised, last in ever_due(phases):
            if phase.no_graph is None:
                self.graphs[phase.name, penalised, last] = graphs.RecordedPhase(
                    partial(self.compute, phase, penalised=penalised, last=last),
                    phase.form(penalised=penalised),
                    phase.net,
                    phase.optimizer,
                    partial(self._changing, phase),
                    self._recording,
                )

    def take(self, phase: Phase, batch: Batch, *, penalised: bool, last: bool) -> None:
        """Change the weights of the network of `phase`, and those of G_ema in the last phase of a step.

        Raises NonFiniteError where the loss or a gradient is not finite, on a GPU in the following phase. The weights
        are then as they were before.
        """
        self.networks.learn_only(phase.net)
        recorded = self.graphs.get((phase.name, penalised, last))
        _, measured = recorded(batch) if recorded else self.compute(phase, batch, penalised=penalised, last=False)
        self.means.add_numbers(measured)
        if self.ada is not None and R_T in measured.sums:  # not where they are measured, which a graph replays
            self.ada.count(*measured.sums[R_T])
        if self.gamma is not None and phase.name == "D":
            self.gamma.count(measured.sums)
        self.stops.note(phase, batch)
        if last and recorded is None:
            self.average.update()

    def compute(self, phase: Phase, batch: Batch, *, penalised: bool, last: bool) -> tuple[Tensor, Means]:
        """The loss [] of a phase and what it measured, after the step of its optimiser; gradients are in .grad."""
        phase.optimizer.zero_grad(set_to_none=True)
        loss, measured = self.gradients.compute(phase, batch, penalised=penalised)
        parameters = self.networks.parameters[phase.net]
        grads = [p.grad for p in parameters if p.grad is not None]
        # Each process has path lengths of its own, so their running mean is averaged too.
        self.processes.average_([*grads, loss, self.objective.pl_mean])
        self.precision.unscale(phase.optimizer)
        norm = torch.nn.utils.get_total_norm(grads)
        measured.add(f"grad_norm/{phase.name}", norm)
        self.means.add_sums(measured)
        self.stops.add(finite(loss) & self.precision.bears(norm))
        self.precision.step(phase.optimizer, self.stops.stop)
        if phase.weight_clip is not None:
            _clip_weights(parameters, phase.weight_clip)
        if last:
            self.average.update()
        return loss, measured

    def _changing(self, phase: Phase) -> graphs.Changing:
        """What `compute` changes in place."""
        networks, optimizer = self.networks, phase.optimizer
        weights = [p for p in networks.parameters[phase.net] if p in optimizer.state]
        states = [optimizer.state[p] for p in weights]
        moments = [x for state in states for name, x in state.items() if name != "step"]
        G_ema = self.average.G_ema
        return graphs.Changing(
            buffers=[*networks.G.buffers(), *networks.D.buffers(), *self.objective.tensors()],
            steps={
                "weights": weights,
                "moments": moments,
                "numbers of steps": [state["step"] for state in states],
                "average": list(G_ema.parameters()),
            },
            others=[
                *(total for total, _ in self.means.sums.values()),
                *(self.stops.stop, *self.precision.tensors(), *G_ema.buffers()),
            ],
        )


@torch.no_grad()
def _clip_weights(parameters: Iterable[Tensor], limit: float) -> None:
    learnt = [p for p in parameters if p.requires_grad]
    torch._foreach_clamp_min_(learnt, -limit)
    torch._foreach_clamp_max_(learnt, limit)
