"""The stop at a value that is not finite, without waiting for the GPU in every phase."""

from functools import partial
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from gan_engine.losses.objective import Batch
from gan_engine.training import nonfinite
from gan_engine.training.batches import Batches
from gan_engine.training.clock import Clock
from gan_engine.training.distributed import Processes
from gan_engine.training.networks import Networks
from gan_engine.training.precision import Precision
from gan_engine.training.schedule import Phase


class _Noted(NamedTuple):
    """A phase whose stop was not read yet."""

    stop: Tensor
    copied: Any  # the CUDA event after which `stop` is on the CPU, None on a CPU
    phase: Phase
    batch: Batch
    nimg: int
    step_count: int


class Stops:
    """Notes the first value that is not finite, and ends the run.

    Attributes:
        stop: [], float32 on the device; becomes 1 at the first loss or gradient that is not finite. Optimisers read it
            on the device and then leave the weights as they are.
    """

    def __init__(
        self, networks: Networks, batches: Batches, precision: Precision, clock: Clock, processes: Processes
    ) -> None:
        self.networks, self.batches, self.precision = networks, batches, precision
        self.clock, self.processes = clock, processes
        self.stop = torch.zeros((), device=batches.device)
        self._unread: list[_Noted] = []

    def add(self, finite: Tensor) -> None:
        """Stop unless `finite`, a bool [] on the device."""
        torch.maximum(self.stop, (~finite).float(), out=self.stop)  # graphs read its address

    def forget(self) -> None:
        """Forget all phases so far: their weights are replaced by others."""
        self.stop.zero_()
        self._unread.clear()

    def note(self, phase: Phase, batch: Batch) -> None:
        """Remember `stop` after this phase, and heed it: on a CPU at once, on a GPU one phase later.

        One phase later is early enough, because `stop` keeps the weights unchanged. Reading it at once would leave a
        GPU idle until the host has the answer and has launched the next phase.
        """
        event = None
        stop = self.stop.to("cpu", non_blocking=True)
        if self.stop.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
        self._unread.append(_Noted(stop, event, phase, batch, self.clock.nimg, self.clock.step_count))
        self.heed(leave=0 if event is None else 1)

    def heed(self, *, leave: int = 0) -> None:
        """Raise NonFiniteError if a phase met a value that is not finite; the last `leave` phases are not asked yet."""
        while len(self._unread) > leave:
            noted = self._unread.pop(0)
            if noted.copied is not None:
                noted.copied.synchronize()
            if noted.stop.item():
                self._report(noted)

    def _report(self, noted: _Noted) -> NoReturn:
        """Compute the phase once more to find the first value that is not finite, and raise NonFiniteError."""
        networks, phase = self.networks, noted.phase
        networks.learn_only(phase.net)
        found = None
        for part in self.batches.parts(noted.batch):
            with self.precision.autocast():
                found = found or nonfinite.trace({"G": networks.G, "D": networks.D}, partial(phase.terms, part))
        found = next(filter(None, self.processes.gather(found)), None)
        raise nonfinite.NonFiniteError(
            f"phase {phase.name} met a value that is not finite at {noted.nimg / 1000:g} kimg, "
            f"step {noted.step_count};\n"
            f"{found or 'the step was computed once more, without its penalties, and then all values were finite'}"
        )
