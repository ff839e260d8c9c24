"""The gradients of a phase on a batch, pass by pass."""

from torch import Tensor

from gan_engine.losses.objective import Batch
from gan_engine.losses.step import total
from gan_engine.training.batches import Batches
from gan_engine.training.means import Means
from gan_engine.training.precision import Precision
from gan_engine.training.schedule import Phase


class Gradients:
    """Adds the gradients of phases to .grad."""

    def __init__(self, batches: Batches, precision: Precision, means: Means) -> None:
        self.batches, self.precision, self.means = batches, precision, means

    def compute(self, phase: Phase, batch: Batch, *, penalised: bool = False) -> tuple[Tensor, Means]:
        """The loss [] of a phase and what it measured; gradients are added to .grad, times the loss scale of
        fp16."""
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
