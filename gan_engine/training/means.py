"""Means of what a run measures, between two reports."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from gan_engine.training.distributed import ALONE, Processes


class Means:
    """Running means by name. The sums stay on the device until they are read, so that no step waits for them.

    A sum keeps its address, to which CUDA graphs add.
    """

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, name: str, values: Tensor) -> None:
        new = values.detach().float().sum()
        total, count = self.sums.get(name, (None, 0))
        self.sums[name] = (new if total is None else total.add_(new), count + values.numel())

    def add_sums(self, others: "Means") -> None:
        """Add the sums of `others`, which is the part on the device; their numbers are missing still."""
        for name, (total, _) in others.sums.items():
            if name not in self.sums:
                self.sums[name] = torch.zeros_like(total), 0
        if others.sums:
            new = [total for total, _ in others.sums.values()]
            torch._foreach_add_([self.sums[name][0] for name in others.sums], new)

    def add_numbers(self, others: "Means") -> None:
        """Count the values of `others`, whose sums were added."""
        for name, (_, count) in others.sums.items():
            total, kept = self.sums[name]
            self.sums[name] = total, kept + count

    def state(self) -> dict[str, tuple[Tensor, int]]:
        """What was added since the last `read`, as sums and numbers of values."""
        return {name: (total.clone(), count) for name, (total, count) in self.sums.items() if count}

    @contextlib.contextmanager
    def apart(self) -> Iterator["Means"]:
        """Yields new Means. Inside the block, `add` adds to the new ones instead of these."""
        kept, new = self.sums, Means()
        self.sums = new.sums
        try:
            yield new
        finally:
            self.sums = kept

    def read(self, processes: Processes = ALONE, *, keep: bool = False) -> dict[str, float]:
        """The mean of each name since the last call, over all processes. `keep` lets the next call see them again."""
        # A process that joined a resumed run may lack a name that the others keep from before.
        added = [name for name, (_, count) in self.sums.items() if count]
        names = sorted(set().union(*processes.gather(added)))
        if not names:
            return {}
        device = next(iter(self.sums.values()))[0].device if self.sums else None
        pairs = torch.tensor([[0.0, 0.0]] * len(names), dtype=torch.float64, device=device)
        for pair, name in zip(pairs, names):
            if name in self.sums:
                pair[0], pair[1] = self.sums[name]
        if not keep:
            for name, (total, _) in self.sums.items():
                self.sums[name] = total.zero_(), 0
        totals, counts = processes.sum(pairs).t().cpu()
        return dict(zip(names, (totals / counts).tolist(), strict=True))
