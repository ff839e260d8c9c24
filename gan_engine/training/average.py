"""The moving average of G's weights, from which samples are drawn."""

import copy

import torch
from torch import nn

from gan_engine.config import Config


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

    @torch.no_grad()
    def update(self, nimg: int) -> None:
        """G_ema <- beta G_ema + (1 - beta) G with beta = 0.5^(batch / half-life); buffers are copied.

        The half-life is ema_kimg, but at most ema_rampup * nimg, where `nimg` images were shown before this step.
        """
        config = self.config
        half_life = 1000 * config.ema_kimg
        if config.ema_rampup is not None:
            half_life = min(half_life, config.ema_rampup * nimg)
        beta = 0.5 ** (config.batch_size / half_life) if half_life else 0.0
        torch._foreach_lerp_(*self._pairs, 1 - beta)
        self.copy_buffers()

    @torch.no_grad()
    def copy_buffers(self) -> None:
        """Give G_ema the buffers of G."""
        buffers = list(self.G.buffers())
        if buffers:
            torch._foreach_copy_(list(self.G_ema.buffers()), buffers)
