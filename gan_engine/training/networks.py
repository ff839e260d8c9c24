"""The networks of a run: their memory layout, and which of their weights learn."""

import torch
from torch import nn

from gan_engine import models
from gan_engine.config import Config
from gan_engine.system.random_state import seed_all
from gan_engine.training import transfer
from gan_engine.training.distributed import Processes

# The layout with the channels of a pixel next to each other, by the dimensions of a batch: images 4, volumes 5.
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Networks:
    """G and D on `device`, drawn from config.seed.

    Args:
        config: the run.
        device: where they train.
        dimensions: of a batch of images [N, C, H, W], volumes [N, C, D, H, W] or points [N, 2].

    Attributes:
        layout: the memory layout of weights and images.
    """

    def __init__(self, config: Config, device: torch.device, *, dimensions: int) -> None:
        seed_all(config.seed)
        G, D = models.build(config.model)
        last = CHANNELS_LAST.get(dimensions, torch.contiguous_format)  # points have no pixels
        self.layout = last if config.channels_last else torch.contiguous_format
        self.G = G.to(device, memory_format=self.layout)
        self.D = D.to(device, memory_format=self.layout)
        # A network keeps its parameters for the whole run. Listing them in every step took 4 % of a step of `vanilla`.
        self.parameters = {net: tuple(net.parameters()) for net in (self.G, self.D)}
        self.frozen: list[nn.Parameter] = []

    def freeze(self, config: Config) -> None:
        """Exclude the first `freeze_d` blocks of D from learning. Raises ValueError where D has fewer."""
        self.frozen = transfer.frozen(self.D, config.freeze_d, models.family(config.model))

    def learn_only(self, net: nn.Module) -> None:
        """Let only the weights of `net` have gradients, except frozen ones."""
        for other, parameters in self.parameters.items():
            for p in parameters:
                p.requires_grad = other is net
        for p in self.frozen:
            p.requires_grad_(False)

    def average_buffers(self, processes: Processes) -> None:
        """Replace running statistics, which each process takes of its own images, by their means."""
        buffers = [buffer for net in (self.G, self.D) for buffer in net.buffers() if buffer.is_floating_point()]
        processes.average_(buffers)
