"""The objective of a GAN: named terms {name: [N]} for each network, from one batch.

`observe(name, values)` receives values that are worth a curve besides the terms. It must not keep the graph alive.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses.adversarial import Adversarial
from gan_engine.losses.game import Game
from gan_engine.losses.penalties import Level, path_length
from gan_engine.losses.step import TermsStep


class Batch(NamedTuple):
    """The part of a batch that one pass takes. Real images and noise have equal numbers, and share the classes."""

    real_img: Tensor  # [N, C, H, W] in [-1, 1]
    z: Tensor  # [N, z_dim]
    c: Tensor | None  # [N, c_dim], one-hot; None without classes
    source: Tensor | None = None  # [N, C', H', W'] in [-1, 1], the input of a G that translates


class Judged(NamedTuple):
    """What one G draws from a batch, and the logits of the D that judges it. The monitors of a run read it."""

    name: str  # "" for the only pair of networks, else a suffix such as "/A"
    gen_img: Tensor  # [N, C, H, W]
    real_img: Tensor  # [N, C, H, W]
    fake: Tensor  # [N] or [N, P]
    real: Tensor  # [N] or [N, P]


class GanObjective:
    """The game of G against D with one of the losses in `adversarial.LOSSES`.

    D sees real and generated images in separate passes, so that its batch norms never mix the two (Radford et al.
    2016). Logits are widened to float32 before the loss.

    Args:
        r1_gamma, r2_gamma, gp_weight: weights of the penalties R1, R2 and WGAN-GP; see gan_engine.losses.penalties.
        penalty_interval: factor of the penalties, which are computed in every Nth step only.
        gamma_factor: a factor of r1_gamma and r2_gamma. A tensor [] may change from step to step.
        pl_weight: weight of the path length penalty, for a G with `ws` and `synthesis`.
        pl_batch_shrink: the path length penalty is computed on 1/N of a batch.
        class_weight: weight of the cross-entropy of D's auxiliary classifier (Odena et al. 2017, arXiv:1610.09585), for
            a D with `logits_and_classes`. D lowers it on real images, G on generated ones.
        rng: draws the points of the WGAN-GP penalty, and the directions of the path lengths. A rng of another device
            than G would copy them there in every step, so PyTorch's default generator of G's device draws them then.
    """

    no_graph: str | None = None  # why no CUDA graph can hold `discriminator`, or None

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
        gamma_factor: float | Tensor = 1.0,
        pl_weight: float = 0,
        pl_batch_shrink: int = 1,
        class_weight: float = 0,
        rng: torch.Generator | None = None,
    ) -> None:
        self.G, self.D, self.loss, self.observe = G, D, loss, observe
        weights = {"r1": r1_gamma, "r2": r2_gamma, "gp": gp_weight}
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.penalty_interval, self.gamma_factor = penalty_interval, gamma_factor
        self.class_weight, self.rng = class_weight, rng
        self.level: Level | None = None  # of the penalties; None: the best that D admits
        self.pl_weight, self.pl_batch_shrink = pl_weight, pl_batch_shrink
        device = next(G.parameters()).device
        self.rng_of_device = rng if rng is not None and rng.device == device else None
        self.pl_mean = torch.zeros((), device=device)

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

    def penalised_discriminator(self, batch: Batch) -> "PenalisedStep":
        """The step of D with the terms of `discriminator` and the terms of the penalties."""
        return PenalisedStep(self, batch)

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        fake, classes = self._judged(self.G(batch.z, batch.c), batch.c, "G_class")
        real = None
        if self.loss.generator_reads_real:
            real = self.D(batch.real_img, batch.c).float()
        return {"G": self.loss.generator(fake, real), **classes}

    def judged(self, batch: Batch) -> list[Judged]:
        """What every pair of G and D makes of a batch, for the monitors of a run. Nothing is learnt or kept of it."""
        gen_img = self.G(batch.z, batch.c)
        fake, real = (self.D(img, batch.c).float() for img in (gen_img, batch.real_img))
        return [Judged("", gen_img, batch.real_img, fake, real)]

    def path_length(self, batch: Batch) -> dict[str, Tensor]:
        """The path length penalty of part of the batch (Karras et al. 2020, arXiv:1912.04958, appendix B)."""
        num = -(-len(batch.z) // self.pl_batch_shrink)
        ws = self.G.ws(batch.z[:num], None if batch.c is None else batch.c[:num])
        level = "autograd" if self.level == "autograd" else None
        penalty = path_length(self.G.synthesis, ws, self.pl_mean, generator=self.rng_of_device, level=level)
        self.observe("pl/mean", self.pl_mean)
        return {"pl": self.pl_weight * penalty}

    def state_dict(self) -> dict[str, Any]:
        """The values that change in training, except the networks: numbers, text and tensors."""
        return {"pl_mean": self.pl_mean}

    def tensors(self) -> list[Tensor]:
        """The tensors that the terms change in place, besides the buffers of networks."""
        return [self.pl_mean]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.pl_mean.copy_(state["pl_mean"])


class PenalisedStep:
    """A step of D with gradient penalties, which have a backward pass within the forward pass.

    `backward` runs D as well as autograd, in float32 where D is penalised, and elsewhere under the autocast in which
    the step was made.
    """

    def __init__(self, objective: GanObjective, batch: Batch) -> None:
        device = batch.real_img.device.type
        self.autocast = torch.autocast(
            device, dtype=torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device)
        )
        self.objective, self.batch = objective, batch

    def backward(self, scale: float | Tensor) -> dict[str, Tensor]:
        objective, batch = self.objective, self.batch
        options = objective.penalty_interval, objective.level, objective.rng_of_device
        with self.autocast:
            with torch.no_grad():
                gen_img = objective.G(batch.z, batch.c).to(batch.real_img.dtype)
            game = Game(objective.D, objective.loss, objective.weights, *options, factor=objective.gamma_factor)
            fake, real, terms = game.backward(batch.real_img, gen_img, batch.c, scale)
            if objective.class_weight:  # one more pass: the pass with penalties gives logits only
                _, classes = objective._judged(batch.real_img, batch.c, "D_class")
                terms |= TermsStep(classes).backward(scale)
            objective.observe("logits/fake", fake)
            objective.observe("logits/real", real)
            return terms
