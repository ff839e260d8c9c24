"""Means of what a run measures, between two reports."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from gan_engine.training.distributed import ALONE, Processes


class Means:
    """Running means by name. The sums stay on the device until they are read, so that no step waits for them."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, name: str, values: Tensor) -> None:
        new = values.detach().float().sum()
        total, count = self.sums.get(name, (None, 0))
        self.sums[name] = (new if total is None else total + new, count + values.numel())

    def merge(self, others: "Means") -> None:
        """Add the sums of `others`."""
        for name, (total, count) in others.sums.items():
            kept, kept_count = self.sums.get(name, (0, 0))
            self.sums[name] = (kept + total, kept_count + count)

    @contextlib.contextmanager
    def apart(self) -> Iterator["Means"]:
        """Yields new Means. Inside the block, `add` adds to the new ones instead of these."""
        kept, new = self.sums, Means()
        self.sums = new.sums
        try:
            yield new
        finally:
            self.sums = kept

    def read(self, processes: Processes = ALONE) -> dict[str, float]:
        """The mean of each name since the last call, over all processes."""
        # A process that joined a resumed run may lack a name that the others keep from before.
        names = sorted(set().union(*processes.gather(list(self.sums))))
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
