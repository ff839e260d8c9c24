"""What a GAN minimises: named terms {name: [N]} for each network, from one batch.

`observe(name, values)` is told whatever is worth a curve besides the terms; it must not keep the graph alive.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan_engine.losses.adversarial import Adversarial


class Batch(NamedTuple):
    """One pass's share of a batch. Real images and noise are of equal number, and share the classes."""

    real_img: Tensor  # [N, C, H, W] in [-1, 1]
    z: Tensor  # [N, z_dim]
    c: Tensor | None  # [N, c_dim], one-hot; None without classes


class GanObjective:
    """The game of G against D under one of the losses in `adversarial.LOSSES`.

    D sees real and generated images in separate passes, so that its batch norms never mix the two (Radford et al.
    2016). Logits are widened to float32 before the loss.
    """

    def __init__(self, G: nn.Module, D: nn.Module, loss: Adversarial, observe: Callable[[str, Tensor], None]) -> None:
        self.G, self.D, self.loss, self.observe = G, D, loss, observe

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            gen_img = self.G(batch.z, batch.c)
        fake = self.D(gen_img, batch.c).float()
        real = self.D(batch.real_img, batch.c).float()
        self.observe("logits/fake", fake.detach())
        self.observe("logits/real", real.detach())
        return {"D": self.loss.discriminator(fake, real)}

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        fake = self.D(self.G(batch.z, batch.c), batch.c).float()
        real = None
        if self.loss.generator_reads_real:
            real = self.D(batch.real_img, batch.c).float()
        return {"G": self.loss.generator(fake, real)}
