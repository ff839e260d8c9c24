"""Every loss equals its closed form, and both sides pull the logits in their direction of the game."""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import pytest
import torch

from gan_engine.losses.adversarial import LOSSES

log_sigmoid = lambda x: -torch.log1p(torch.exp(-x))  # noqa: E731


class Game(NamedTuple):
    """The functions (fake, real) -> [N] as the paper writes them, in terms of exp and log, and where they are least.

    `fake` and `real` are the logits that D wants for generated and for real images. `drawn` is the logit that G wants
    for its images. An infinite one is never reached.
    """

    generator: Callable
    discriminator: Callable
    fake: float = -inf
    real: float = inf
    drawn: float = inf


CLOSED_FORMS = {
    "nonsaturating": Game(lambda f, r: -log_sigmoid(f), lambda f, r: -log_sigmoid(r) - torch.log(1 - torch.sigmoid(f))),
    "least_squares": Game(
        lambda f, r: 0.5 * (f - 1) ** 2, lambda f, r: 0.5 * (r - 1) ** 2 + 0.5 * f**2, fake=0, real=1, drawn=1
    ),
    "hinge": Game(
        lambda f, r: -f,
        lambda f, r: -torch.minimum(torch.zeros_like(r), r - 1) - torch.minimum(torch.zeros_like(f), -f - 1),
        fake=-1,
        real=1,
    ),
    "wasserstein": Game(lambda f, r: -f, lambda f, r: f - r),
    "relativistic": Game(lambda f, r: -log_sigmoid(f - r), lambda f, r: -log_sigmoid(r - f)),
}


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(64, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]


def read_by_generator(name, real):
    return real if LOSSES[name].generator_reads_real else None


def test_every_loss_is_tested():
    assert CLOSED_FORMS.keys() == LOSSES.keys()


@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_closed_form(name, logits):
    fake, real = logits
    loss, paper = LOSSES[name], CLOSED_FORMS[name]
    torch.testing.assert_close(loss.generator(fake, read_by_generator(name, real)), paper.generator(fake, real))
    torch.testing.assert_close(loss.discriminator(fake, real), paper.discriminator(fake, real))


@pytest.mark.parametrize("name", LOSSES)
def test_each_side_is_per_sample_and_pulls_its_way(name, logits):
    fake, real = logits
    wanted = CLOSED_FORMS[name]
    assert wanted.fake < min(wanted.real, wanted.drawn)
    d_fake = torch.autograd.grad(LOSSES[name].generator(fake, read_by_generator(name, real)).sum(), fake)[0]
    assert (d_fake * (fake < wanted.drawn) <= 0).all() and (d_fake < 0).any()  # G raises the logits of its images
    d_fake, d_real = torch.autograd.grad(LOSSES[name].discriminator(fake, real).sum(), [fake, real])
    assert (d_fake * (fake > wanted.fake) >= 0).all() and (d_fake > 0).any()  # D lowers them
    assert (d_real * (real < wanted.real) <= 0).all() and (d_real < 0).any()  # and raises those of real images
    assert LOSSES[name].discriminator(fake, real).shape == fake.shape


@pytest.mark.parametrize("name", LOSSES)
def test_large_logits_stay_finite(name):
    far = torch.tensor([-1e4, 1e4])
    assert LOSSES[name].generator(far, read_by_generator(name, -far)).isfinite().all()
    assert LOSSES[name].discriminator(far, -far).isfinite().all()
