"""--gamma auto: the weights of R1 and R2 follow how far D is ahead of G.

The weights are r1_gamma * factor and r2_gamma * factor. The rule reads what every step yields anyway:

    lead  = 1 - mean of D's loss / D's loss if it guesses                          1: D has won; 0: D guesses
    share = mean of R1 and R2, with their weights / |D's loss if it guesses - mean of D's loss|

    log10(factor) += (lead - LEAD) * kimg   after every few steps of D, in which so many thousands of images were shown

The factor falls only while the share is above SHARE: a weaker penalty that holds nothing back changes nothing.
docs/training.md explains the rule.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses.adversarial import Adversarial, guessing

# Found with dcgan at width 16 on 32x32 garments, 16 kimg each (2026-11). With fixed weights of 10, D led by 0.3 to 0.45
# by the nonsaturating loss with R1, and by 0.4 to 0.5 by the relativistic loss with R1 and R2.
LEAD = 0.35  # to aim at
SHARE = 0.05  # of penalties that hold D back
RANGE = 1e4  # limit of the factor and of its inverse
LEAST_STEPS = 4  # of D, from one change to the next
SPEED = 1.0  # powers of ten for each kimg, at a difference of 1 from LEAD
READ = ("loss/D", "loss/r1", "loss/r2")


class AutoGamma:
    """The factor of the weights of R1 and R2, and the rule that changes it.

    Args:
        loss: the game. `guessing` of it must be above 0.
        r1, r2: the weights while the factor is 1. 0: no such penalty.
        penalty_interval: steps of D from one with penalties to the next. The factor changes after whole intervals.
        device: of the networks. The factor and all sums lie there, so that nothing waits for a GPU.
        total: sums a tensor over all processes that train together, so that they have one factor.

    Attributes:
        factor: [], float32. It keeps its address, so a CUDA graph reads its present value.

    """

    def __init__(
        self,
        loss: Adversarial,
        r1: float,
        r2: float,
        *,
        penalty_interval: int,
        device: torch.device,
        total: Callable[[Tensor], Tensor] = lambda values: values,
    ) -> None:
        self.guessing, self.first, self._total = guessing(loss), {"r1": r1, "r2": r2}, total
        self.interval = penalty_interval * math.ceil(LEAST_STEPS / penalty_interval)
        self.factor = torch.ones((), device=device)
        self._reset()

    @property
    def weights(self) -> dict[str, float]:
        """The present weights, as "gamma/r1" and "gamma/r2". Reading them waits for the device."""
        factor = self.factor.item()
        return {f"gamma/{name}": weight * factor for name, weight in self.first.items() if weight}

    def count(self, sums: Mapping[str, tuple[Tensor, int]]) -> None:
        """Count what a step of D has measured: sums [] and numbers of values, by name. Nothing waits for the device."""
        if READ[0] not in sums:
            raise ValueError("gamma: want fixed for an objective without the term D, got auto")
        for i, name in enumerate(READ):
            if name in sums:
                values, num = sums[name]
                self._sums[i] += values
                self._counts[i] += num

    def update(self, num_images: int) -> None:
        """Call this after each step of D on `num_images` real images of all processes."""
        self._steps += 1
        self._images += num_images
        if self._steps < self.interval:
            return
        counts = torch.stack([torch.full_like(self.factor, count, dtype=torch.float64) for count in self._counts])
        sums, counts = self._total(torch.stack([self._sums, counts]))
        loss, r1, r2 = sums / counts.clamp(min=1)
        won = self.guessing - loss
        off = won / self.guessing - LEAD
        holds = r1 + r2 > SHARE * won.abs()
        step = torch.where((off > 0) | holds, off, 0) * (SPEED * self._images / 1000)
        self.factor.mul_(10**step).clamp_(1 / RANGE, RANGE)
        self._reset()

    def _reset(self) -> None:
        self._sums = torch.zeros(len(READ), dtype=torch.float64, device=self.factor.device)
        self._counts, self._steps, self._images = [0] * len(READ), 0, 0

    def state_dict(self) -> dict[str, Any]:
        """The factor, and what was counted since it changed."""
        return {
            "factor": self.factor.item(),
            "sums": self._sums,
            "counts": self._counts,
            "steps": self._steps,
            "images": self._images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if not 0 < state["factor"] < math.inf:
            raise ValueError(f"gamma: want a factor above 0, got {state['factor']}")
        self.factor.fill_(state["factor"])
        self._sums, self._counts = state["sums"].to(self.factor.device, copy=True), list(state["counts"])
        self._steps, self._images = state["steps"], state["images"]
