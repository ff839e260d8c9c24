"""Adversarial losses as pairs (generator, discriminator), each (fake, real) -> [N] of logits [N], higher is more real.

Both sides may read both logits, so a relativistic loss is an ordinary row. A generator that does not need the logits of
real images gets None for them, and nobody computes them.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.outputs import Logits, check_numbers, described
from gan_engine.losses.step import total

Loss = Callable[[Tensor, Tensor | None], Tensor]


class Adversarial(NamedTuple):
    """The two sides of a game and the paper it is from.

    Each side is a function (fake, real) -> [N], of the logits [N] of generated and of real images, and its mean is
    minimised. `generator` gets None in place of `real` unless `generator_reads_real`.
    """

    generator: Loss
    discriminator: Loss
    paper: str = ""
    generator_reads_real: bool = False


LOSSES: dict[str, Adversarial] = {
    # -log sigmoid(x) = softplus(-x)
    "nonsaturating": Adversarial(
        generator=lambda fake, real: F.softplus(-fake),
        discriminator=lambda fake, real: F.softplus(fake) + F.softplus(-real),
        paper="Goodfellow et al. 2014, arXiv:1406.2661, section 3",
    ),
    # a = -1, b = 1, c = 0 would give Pearson's chi^2; the usual a = 0, b = c = 1 is equation 9
    "least_squares": Adversarial(
        generator=lambda fake, real: (fake - 1).square() / 2,
        discriminator=lambda fake, real: (fake.square() + (real - 1).square()) / 2,
        paper="Mao et al. 2017, arXiv:1611.04076, equation 9",
    ),
    "hinge": Adversarial(
        generator=lambda fake, real: -fake,
        discriminator=lambda fake, real: F.relu(1 + fake) + F.relu(1 - real),
        paper="Lim and Ye 2017, arXiv:1705.02894; Miyato et al. 2018, arXiv:1802.05957, equations 16 and 17",
    ),
    # Means something only while D is held to a Lipschitz constant, by a penalty or by its weights.
    "wasserstein": Adversarial(
        generator=lambda fake, real: -fake,
        discriminator=lambda fake, real: fake - real,
        paper="Arjovsky et al. 2017, arXiv:1701.07875, equations 2 and 3",
    ),
    # Each generated image against one real image: only the difference of their logits counts.
    "relativistic": Adversarial(
        generator=lambda fake, real: F.softplus(real - fake),
        discriminator=lambda fake, real: F.softplus(fake - real),
        paper="Jolicoeur-Martineau 2018, arXiv:1807.00734, section 4; Huang et al. 2024, arXiv:2501.05441, equation 2",
        generator_reads_real=True,
    ),
}


def of_each_image(side: Loss, fake: Logits, real: Logits | None) -> Tensor:
    """[N], a side of an adversarial loss: the mean over the patches of an image, and the sum over scales"""
    if real is not None and _shapes(fake) != _shapes(real):
        raise ValueError(
            "D must return logits of the same shapes for generated and for real images, as a loss takes both together, "
            f"got {described(fake)} and {described(real)}"
        )
    if isinstance(fake, Tensor):
        return _of_each(side, fake, real)
    pairs: Iterable[tuple[Any, Any]] = zip(fake, [None] * len(fake) if real is None else real, strict=True)
    return total(_of_each(side, *each) for each in pairs)


def _of_each(side: Loss, fake: Tensor, real: Any) -> Tensor:
    values = side(fake, real)
    check_numbers(values)
    return mean_of_each(values)


def _shapes(logits: Logits) -> torch.Size | list[torch.Size]:
    return logits.shape if isinstance(logits, Tensor) else [each.shape for each in logits]


def mean_of_each(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def guessing(loss: Adversarial) -> float:
    """The least loss of a D that gives all images one logit in [-1, 1]: 2 log 2 for nonsaturating."""
    logits = torch.linspace(-1, 1, 201, dtype=torch.float64)
    return loss.discriminator(logits, logits).min().item()
