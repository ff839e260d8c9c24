"""One phase's share of a training step, from the gradients to the new weights."""

from collections.abc import Iterable

import torch
from torch import Tensor

from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.training.clock import Clock
from gan_engine.training.distributed import Processes
from gan_engine.training.gradients import Gradients
from gan_engine.training.means import Means
from gan_engine.training.networks import Networks
from gan_engine.training.precision import Precision, finite
from gan_engine.training.schedule import Phase
from gan_engine.training.stops import Stops


class PhaseSteps:
    """Takes the steps of phases: gradients, their mean over the processes, and one step of the optimiser."""

    def __init__(
        self,
        *,
        networks: Networks,
        objective: GanObjective,
        gradients: Gradients,
        precision: Precision,
        stops: Stops,
        means: Means,
        clock: Clock,
        processes: Processes,
    ) -> None:
        self.networks, self.objective, self.gradients, self.precision = networks, objective, gradients, precision
        self.stops, self.means, self.clock, self.processes = stops, means, clock, processes

    def take(self, phase: Phase, batch: Batch) -> None:
        """Change the weights of the network of `phase`.

        Raises NonFiniteError where the loss or a gradient is not finite, on a GPU in the following phase. The weights
        are then as they were before.
        """
        self.networks.learn_only(phase.net)
        phase.optimizer.zero_grad(set_to_none=True)
        loss = self.gradients.add(phase, batch, penalised=phase.penalties_due(self.clock.step_count))
        grads = [p.grad for p in self.networks.parameters[phase.net] if p.grad is not None]
        # Each process has path lengths of its own, so their running mean is averaged too.
        self.processes.average_([*grads, loss, self.objective.pl_mean])
        self.precision.unscale(phase.optimizer)
        norm = torch.nn.utils.get_total_norm(grads)
        self.means.add(f"grad_norm/{phase.name}", norm)
        self.stops.add(finite(loss) & self.precision.bears(norm))
        self.precision.step(phase.optimizer, self.stops.stop)
        if phase.weight_clip is not None:
            _clip_weights(self.networks.parameters[phase.net], phase.weight_clip)
        self.stops.note(phase, batch)


@torch.no_grad()
def _clip_weights(parameters: Iterable[Tensor], limit: float) -> None:
    learnt = [p for p in parameters if p.requires_grad]
    torch._foreach_clamp_min_(learnt, -limit)
    torch._foreach_clamp_max_(learnt, limit)
