"""The moving average of G's weights, from which samples are drawn."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gan_engine.config import Config
from gan_engine.training import numbers


class Average:
    """G_ema, which begins as a copy of G.

    Args:
        G: the generator that learns.
        config: has the half-life `ema_kimg`, its limit `ema_rampup` and the batch size.
    """

    def __init__(self, G: nn.Module, config: Config) -> None:
        self.G, self.config = G, config
        self.G_ema = copy.deepcopy(G).eval().requires_grad_(False)
        self._pairs = tuple(self.G_ema.parameters()), tuple(G.parameters())
        self._chosen = 1.0
        self._share = numbers.number(1.0, next(G.parameters()).device)  # 1 - beta

    def prepare(self, nimg: int) -> None:
        """Choose beta = 0.5^(batch / half-life) for the next update.

        The half-life is ema_kimg, but at most ema_rampup * nimg, where `nimg` images were shown before this step.
        """
        config = self.config
        half_life = 1000 * config.ema_kimg
        if config.ema_rampup is not None:
            half_life = min(half_life, config.ema_rampup * nimg)
        beta = 0.5 ** (config.batch_size / half_life) if half_life else 0.0
        if 1 - beta != self._chosen:  # on a GPU a change is a launch
            self._chosen = 1 - beta
            self._share = numbers.changed(self._share, self._chosen)

    @torch.no_grad()
    def update(self) -> None:
        """G_ema <- beta G_ema + (1 - beta) G; buffers are copied."""
        if not self.config.ema_kimg:  # the average is G itself, and a sum would round
            torch._foreach_copy_(*self._pairs)
        elif isinstance(self._share, Tensor):
            _lerp_(*self._pairs, self._share)
        else:
            torch._foreach_lerp_(*self._pairs, self._share)
        self.copy_buffers()

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Give G_ema the buffers of G."""
        buffers = list(self.G.buffers())
        if buffers:
            torch._foreach_copy_(list(self.G_ema.buffers()), buffers)


def _lerp_(averages: Sequence[Tensor], values: Sequence[Tensor], share: Tensor) -> None:
    """averages <- averages + share * (values - averages), in one pass

    PyTorch's lerp for lists takes no `share` of a device. SGD does, as its learning rate: with a weight decay of 1, it
    adds share * (gradient - weight) to a weight that it maximises.
    """
    options = {"momentum": 0.0, "dampening": 0.0, "nesterov": False, "is_first_step": False}
    torch._fused_sgd_(averages, values, [], weight_decay=1.0, lr=share, maximize=True, **options)
