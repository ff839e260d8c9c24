"""D's game against generated images: the adversarial loss and the penalties, of images that are there.

The objectives of the trainer and `gan_engine.adversarial` both play it, so that there is one way to compute a step.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_engine.losses.adversarial import Adversarial, mean_of_each, of_each_image
from gan_engine.losses.by_autograd import backward, in_autocast, without_autocast
from gan_engine.losses.choice import settle
from gan_engine.losses.known import asked, known
from gan_engine.losses.network import Network
from gan_engine.losses.outputs import Logits, Outputs, Picked, read_outputs, without_graph
from gan_engine.losses.penalties import Level, backward_with_penalty, between
from gan_engine.losses.small import step_at_once
from gan_engine.losses.step import total


class Game(NamedTuple):
    """D, its loss, and the weights of its penalties: "r1" and "r2" are gamma, "gp" is lambda of WGAN-GP.

    Penalties count `penalty_interval` times, as they are due in every step of that number only. `factor` multiplies
    gamma of R1 and R2; as a tensor [], it can change where a CUDA graph reads it. R2 takes real and generated images in
    one batch. `c` is handed on to D: a mapping as keyword arguments, all else after the images. `judge` sees what D
    returns for generated images, and may raise; with R2 it is not asked.
    """

    D: Network
    loss: Adversarial
    weights: Mapping[str, float]
    penalty_interval: int = 1
    level: Level | None = None
    rng: torch.Generator | None = None
    picked: Picked = None
    factor: float | Tensor = 1.0
    judge: Callable[[Outputs], None] | None = None

    def outputs(self, img: Tensor, c: Any) -> Outputs:
        D, c = _bound(self.D, c)
        return read_outputs(D(img) if c is None else D(img, c), len(img), self.picked)

    def backward(
        self, real_img: Tensor, gen_img: Tensor, c: Any, scale: float | Tensor, *, means: bool = False
    ) -> tuple[Logits, Logits, dict[str, Tensor]]:
        """Add the gradients of a step of D, times `scale`, to .grad.

        The parts run one after the other, so that one graph is alive at a time. A small D has all parts in one backward
        pass. D runs in float32 where it is penalised, and elsewhere under the autocast that is in force.

        Returns:
            The logits of generated and of real images, and the terms {name: [N]}, or their `means` {name: []}; all
            without a graph.
        """
        weights, level = self.weights, self.level
        if "r2" not in weights and ("r1" in weights or "gp" in weights) and (level is None or level == "autograd"):
            D, given = (self.D, c) if c is None else _bound(self.D, c)
            seen = known(D) if self.picked is None and not in_autocast(real_img) else None
            if seen is not None and seen.refused is None:
                with_loss = "r1" in weights
                step = asked(real_img, with_loss=with_loss, picked=None, autocast=False)
                if (step, level is None) not in seen.settled:
                    settle(D, real_img, given, step, seen=seen, automatic=level is None, with_loss=with_loss)
                if seen.without_attention and (level is not None or step in seen.small):
                    return self._at_once(D, given, real_img, gen_img, scale, means)
        terms = self._between(real_img, gen_img, c, scale)
        fake, real, others = (self._together if "r2" in weights else self._apart)(real_img, gen_img, c, scale)
        terms = {"D": others.pop("D"), **terms, **others}
        return fake, real, {name: term.mean() for name, term in terms.items()} if means else terms

    def _at_once(
        self, D: Network, c: Any, real_img: Tensor, gen_img: Tensor, scale: float | Tensor, means: bool
    ) -> tuple[Logits, Logits, dict[str, Tensor]]:
        x, weights = None, {}
        if "gp" in self.weights:
            x, weights["gp"] = between(real_img, gen_img, generator=self.rng), self.weights["gp"]
        if "r1" in self.weights:
            weights["r1"] = self.weights["r1"] / 2 * self.factor
        return step_at_once(
            *(D, c, self.loss.discriminator, real_img, gen_img, x, weights, scale),
            interval=self.penalty_interval,
            means=means,
        )

    def _between(self, real_img: Tensor, gen_img: Tensor, c: Any, scale: float | Tensor) -> dict[str, Tensor]:
        """The WGAN-GP penalty, between real and generated images."""
        weight = self.weights.get("gp", 0)
        if not weight:
            return {}
        x = between(real_img, gen_img, generator=self.rng)
        _, gp = self._penalised(x, c, None, gamma=2 * weight * self.penalty_interval, centre=1.0, scale=scale)
        return {"gp": weight * gp}

    def _together(
        self, real_img: Tensor, gen_img: Tensor, c: Any, scale: float | Tensor
    ) -> tuple[Logits, Logits, dict[str, Tensor]]:
        """The adversarial loss with R2 and R1, on generated and real images in one batch."""
        r1_gamma, r2_gamma = self.weights.get("r1", 0), self.weights["r2"]
        both = (gen_img, r2_gamma), (real_img, r1_gamma)
        of_each = torch.cat([torch.full((len(img),), g, device=img.device) for img, g in both])
        logits, penalty = self._penalised(
            torch.cat([gen_img, real_img]),
            _twice(c, len(real_img)),
            lambda logits: of_each_image(self.loss.discriminator, *_halves(logits)),
            gamma=2 * self.penalty_interval * self.factor * of_each,
            scale=scale,
        )
        r2, r1 = penalty.chunk(2)
        r2, r1 = (weight / 2 * self.factor * each for weight, each in ((r2_gamma, r2), (r1_gamma, r1)))
        fake, real = _halves(logits)
        terms = {"D": of_each_image(self.loss.discriminator, fake, real), "r2": r2}
        return fake, real, terms | ({"r1": r1} if r1_gamma else {})

    def _apart(
        self, real_img: Tensor, gen_img: Tensor, c: Any, scale: float | Tensor
    ) -> tuple[Logits, Logits, dict[str, Tensor]]:
        """The adversarial loss, with R1 if it has a weight."""
        adversarial = partial(of_each_image, self.loss.discriminator)
        wide = torch.promote_types(real_img.dtype, torch.float32)
        r1_gamma, terms = self.weights.get("r1", 0), {}
        outputs = self.outputs(gen_img, c)
        if self.judge is not None:
            self.judge(outputs)
        fake = outputs.for_loss(wide)
        if r1_gamma:
            gamma, constant = r1_gamma * self.penalty_interval * self.factor, without_graph(fake)
            real, r1 = self._penalised(real_img, c, lambda real: adversarial(constant, real), gamma=gamma, scale=scale)
            terms["r1"] = r1_gamma / 2 * self.factor * r1
        else:
            real = self.outputs(real_img, c).for_loss(wide)
        terms["D"] = adversarial(fake, real)
        backward(terms["D"].mean(), scale)
        terms["D"] = terms["D"].detach()
        return without_graph(fake), without_graph(real), terms

    def _penalised(
        self, img: Tensor, c: Any, loss: Callable[[Any], Tensor] | None, **options: Any
    ) -> tuple[Any, Tensor]:
        D, c = _bound(self.D, c)
        side = None if loss is None else partial(_with_gradient, loss)
        with without_autocast(img):
            return backward_with_penalty(D, img, side, c=c, level=self.level, logits=self.picked, **options)


def _with_gradient(loss: Callable[[Any], Tensor], logits: Any) -> Tensor:
    """loss(logits). A side of an adversarial loss may be a constant, and backward_with_penalty takes none."""
    values = loss(logits)
    return values if values.requires_grad else values.detach().requires_grad_()


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """FM[n] = sum over layers l of mean over elements |F(l, fake[n]) - F(l, real[n])|

    The layers are those of all discriminators or scales (Wang et al. 2018, arXiv:1711.11585). Features of real images
    are constants. The differences are taken in float32 (float64 for float64).
    """
    if [f.shape for f in fake] != [r.shape for r in real]:
        got = [[list(x.shape) for x in each] for each in (fake, real)]
        raise ValueError(f"feature matching: want features of the same shapes, got {got[0]} and {got[1]}")
    wide = ((f.to(torch.promote_types(f.dtype, torch.float32)), r.detach()) for f, r in zip(fake, real, strict=True))
    return total(mean_of_each((f - r).abs()) for f, r in wide)


def _halves(logits: Logits) -> tuple[Logits, Logits]:
    if isinstance(logits, Tensor):
        first, second = logits.chunk(2)
        return first, second
    pairs = [each.chunk(2) for each in logits]
    return [first for first, _ in pairs], [second for _, second in pairs]


def _bound(D: Network, c: Any) -> tuple[Network, Any]:
    """D with the keyword arguments of a mapping c, and no c; else both as they are"""
    return (partial(D, **c), None) if isinstance(c, Mapping) else (D, c)


def _twice(c: Any, n: int) -> Any:
    """c for two batches of n images, one behind the other"""
    if isinstance(c, Mapping):
        return {name: _twice(value, n) for name, value in c.items()}
    return torch.cat([c, c]) if isinstance(c, Tensor) and c.shape[:1] == (n,) else c
