"""The objective of a Laplacian pyramid of GANs: every level is a game of its own networks.

Real and generated images of a level add details to the same coarse image. It is made of a real image (Denton et al.
2015, arXiv:1506.05751, section 3).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses.objective import Batch, GanObjective, Judged


class PyramidObjective(GanObjective):
    """GanObjective for the networks of gan_engine.models.lapgan, with terms for each level, such as "D/32" and "G/32".

    All levels are trained, or the only level that the configuration names. There are no gradient penalties.
    """

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for size, G, D, z, real_img, low in self._levels(batch):
            with torch.no_grad():
                gen_img = G(z, low, batch.c)
            fake, real = (D(img, low, batch.c).float() for img in (gen_img, real_img))
            self.observe(f"logits/fake/{size}", fake.detach())
            self.observe(f"logits/real/{size}", real.detach())
            terms[f"D/{size}"] = self.loss.discriminator(fake, real)
        return terms

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        terms = {}
        for size, G, D, z, real_img, low in self._levels(batch):
            fake, real = D(G(z, low, batch.c), low, batch.c).float(), None
            if self.loss.generator_reads_real:
                real = D(real_img, low, batch.c).float()
            terms[f"G/{size}"] = self.loss.generator(fake, real)
        return terms

    def judged(self, batch: Batch) -> list[Judged]:
        found = []
        for size, G, D, z, real_img, low in self._levels(batch):
            gen_img = G(z, low, batch.c)
            fake, real = (D(img, low, batch.c).float() for img in (gen_img, real_img))
            found.append(Judged(f"/{size}", gen_img, real_img, fake, real))
        return found

    def _levels(self, batch: Batch) -> Iterator[tuple[Any, ...]]:
        """(size, G, D, z, real_img, low) of each level that is trained"""
        config, pairs = self.G.config, self.D.pyramid(batch.real_img)
        noise = batch.z.split(config.z_dims, dim=1)
        for size, G, D, z, (real_img, low) in zip(
            config.sizes, self.G.levels, self.D.levels, noise, pairs, strict=True
        ):
            if config.level in (None, size):
                yield size, G, D, z, real_img, low
