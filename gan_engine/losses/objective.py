"""What a GAN minimises: named terms {name: [N]} for each network, from one batch.

`observe(name, values)` is told whatever is worth a curve besides the terms; it must not keep the graph alive.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses.adversarial import Adversarial
from gan_engine.losses.penalties import Level, backward_with_penalty, between, path_length


class Batch(NamedTuple):
    """One pass's share of a batch. Real images and noise are of equal number, and share the classes."""

    real_img: Tensor  # [N, C, H, W] in [-1, 1]
    z: Tensor  # [N, z_dim]
    c: Tensor | None  # [N, c_dim], one-hot; None without classes
    source: Tensor | None = None  # [N, C', H', W'] in [-1, 1], what a G starts from that translates images


class GanObjective:
    """The game of G against D under one of the losses in `adversarial.LOSSES`.

    D sees real and generated images in separate passes, so that its batch norms never mix the two (Radford et al.
    2016). Logits are widened to float32 before the loss.

    Args:
        r1_gamma, r2_gamma, gp_weight: weights of the penalties of those names; see gan_engine.losses.penalties.
        penalty_interval: penalties count so many times as much, because they are due so many times less often.
        pl_weight: weight of the path length penalty, for a G with `ws` and `synthesis`.
        pl_batch_shrink: part of a batch that it is taken of; 2 for a half.
        class_weight: weight of the cross-entropy of D's auxiliary classifier (Odena et al. 2017, arXiv:1610.09585), for
            a D with `logits_and_classes`: D lowers it on real images, G on generated ones.
        rng: draws where the WGAN-GP penalty is taken, and the directions of the path lengths.
    """

    host: str | None = None  # what is left to the host in `discriminator`, and no CUDA graph holds

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        loss: Adversarial,
        observe: Callable[[str, Tensor], None],
        *,
        r1_gamma: float = 0,
        r2_gamma: float = 0,
        gp_weight: float = 0,
        penalty_interval: int = 1,
        pl_weight: float = 0,
        pl_batch_shrink: int = 1,
        class_weight: float = 0,
        rng: torch.Generator | None = None,
    ) -> None:
        self.G, self.D, self.loss, self.observe = G, D, loss, observe
        weights = {"r1": r1_gamma, "r2": r2_gamma, "gp": gp_weight}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.penalty_interval, self.class_weight, self.rng = penalty_interval, class_weight, rng
        self.level: Level | None = None  # of the penalties; None: the best that D admits
        self.pl_weight, self.pl_batch_shrink = pl_weight, pl_batch_shrink
        self.pl_mean = torch.zeros((), device=next(G.parameters()).device)

    def discriminator(self, batch: Batch) -> dict[str, Tensor]:
        with torch.no_grad():
            gen_img = self.G(batch.z, batch.c)
        fake = self.D(gen_img, batch.c).float()
        real, classes = self._judged(batch.real_img, batch.c, "D_class")
        self.observe("logits/fake", fake.detach())
        self.observe("logits/real", real.detach())
        return {"D": self.loss.discriminator(fake, real), **classes}

    def _judged(self, img: Tensor, c: Tensor | None, name: str) -> tuple[Tensor, dict[str, Tensor]]:
        """D's logits [N], and the term `name` [N] of its classifier if it has one."""
        if not self.class_weight:
            return self.D(img, c).float(), {}
        logits, classes = self.D.logits_and_classes(img, c)
        return logits.float(), {name: self.class_weight * F.cross_entropy(classes.float(), c, reduction="none")}

    def penalised_discriminator(self, batch: Batch, factor: Tensor) -> dict[str, Tensor]:
        """The terms of `discriminator` and of the penalties, whose gradients, times `factor`, are in .grad already.

        D runs in float32 where it is penalised. R2 takes real and generated images in one batch.
        """
        real_img, c, k = batch.real_img, batch.c, self.penalty_interval
        adversarial, terms = self.loss.discriminator, {}
        r1_gamma, r2_gamma, gp_weight = (self.weights.get(name, 0) for name in ("r1", "r2", "gp"))
        step = partial(self._penalised, factor=factor)
        with torch.no_grad():
            gen_img = self.G(batch.z, c).to(real_img.dtype)
        if gp_weight:
            x = between(real_img, gen_img, generator=self.rng)
            _, gp = step(x, None, gamma=2 * gp_weight * k, c=c, centre=1.0)
            terms["gp"] = gp_weight * gp
        if r2_gamma:
            n = len(real_img)
            gamma = 2 * k * torch.tensor([r2_gamma, r1_gamma], device=real_img.device).repeat_interleave(n)
            logits, penalty = step(
                torch.cat([gen_img, real_img]),
                lambda logits: adversarial(*logits.chunk(2)),
                gamma=gamma,
                c=None if c is None else torch.cat([c, c]),
            )
            fake, real = logits.chunk(2)
            r2, r1 = penalty.chunk(2)
            terms["r2"] = r2_gamma / 2 * r2
        else:
            fake = self.D(gen_img, c).float()
            if r1_gamma:
                real, r1 = step(real_img, lambda real: adversarial(fake.detach(), real), gamma=r1_gamma * k, c=c)
            else:
                real = self.D(real_img, c).float()
            (adversarial(fake, real).mean() * factor).backward()
        if r1_gamma:
            terms["r1"] = r1_gamma / 2 * r1
        if self.class_weight:  # a pass of its own: the one with penalties is of the logits alone
            _, classes = self._judged(real_img, c, "D_class")
            (classes["D_class"].mean() * factor).backward()
            terms["D_class"] = classes["D_class"].detach()
        self.observe("logits/fake", fake.detach())
        self.observe("logits/real", real.detach())
        return {"D": adversarial(fake.detach(), real.detach()), **terms}

    def _penalised(self, img: Tensor, loss: Callable | None, *, factor: Tensor, **options) -> tuple[Tensor, Tensor]:
        with torch.autocast(img.device.type, enabled=False):
            return backward_with_penalty(self.D, img, loss, scale=factor, level=self.level, **options)

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        fake, classes = self._judged(self.G(batch.z, batch.c), batch.c, "G_class")
        real = None
        if self.loss.generator_reads_real:
            real = self.D(batch.real_img, batch.c).float()
        return {"G": self.loss.generator(fake, real), **classes}

    def path_length(self, batch: Batch) -> dict[str, Tensor]:
        """The path length penalty of part of the batch (Karras et al. 2020, arXiv:1912.04958, appendix B)."""
        num = -(-len(batch.z) // self.pl_batch_shrink)
        ws = self.G.ws(batch.z[:num], None if batch.c is None else batch.c[:num])
        level = "autograd" if self.level == "autograd" else None
        penalty = path_length(self.G.synthesis, ws, self.pl_mean, generator=self.rng, level=level)
        self.observe("pl/mean", self.pl_mean)
        return {"pl": self.pl_weight * penalty}

    def state_dict(self) -> dict[str, Any]:
        """What changes in training, besides the networks; plain types and tensors."""
        return {"pl_mean": self.pl_mean}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pl_mean.copy_(state["pl_mean"])
