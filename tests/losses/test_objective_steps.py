"""The contract of a step: backward(scale) adds scale times the gradients and returns terms without a graph."""

import pytest
import torch
from torch import nn

from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.objective import Batch, GanObjective
from gan_engine.losses.step import TermsStep


class Generator(nn.Linear):
    def forward(self, z, c=None):
        return super().forward(z).unflatten(1, (1, 4, 4))


class Discriminator(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(16, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1), nn.Flatten(0))

    def forward(self, img, c=None):
        return super().forward(img)


PENALTIES = {
    "none": {},
    "r1": {"r1_gamma": 2.0},
    "r2 and r1": {"r1_gamma": 2.0, "r2_gamma": 3.0},
    "r2": {"r2_gamma": 3.0},
    "gp": {"gp_weight": 5.0},
    "all": {"r1_gamma": 2.0, "r2_gamma": 3.0, "gp_weight": 5.0},
}


def gradients(options, scale, *, before=None):
    """The gradients of D after one step, added to `before`, and the terms."""
    torch.manual_seed(0)
    G, D = Generator(4, 16), Discriminator()
    rng = torch.Generator().manual_seed(0)
    objective = GanObjective(G, D, LOSSES["hinge"], lambda name, values: None, rng=rng, **options)
    batch = Batch(torch.randn(6, 1, 4, 4), torch.randn(6, 4), None)
    for p in D.parameters():
        p.grad = None if before is None else torch.full_like(p, before)
    step = objective.penalised_discriminator(batch) if options else TermsStep(objective.discriminator(batch))
    terms = step.backward(scale)
    return [p.grad for p in D.parameters()], terms


@pytest.mark.parametrize("scale", [0.25, torch.tensor(0.25)], ids=["float", "tensor"])
@pytest.mark.parametrize("options", PENALTIES.values(), ids=PENALTIES)
def test_backward_adds_scaled_gradients_and_returns_terms_as_they_are(options, scale):
    want, unscaled = gradients(options, 1.0)
    got, terms = gradients(options, scale, before=1.0)
    for ours, one in zip(got, want, strict=True):
        torch.testing.assert_close(ours, 1 + 0.25 * one)
    assert terms.keys() == unscaled.keys() >= {"D"}
    for name, values in terms.items():
        assert values.shape == (6,) and not values.requires_grad
        assert torch.equal(values, unscaled[name])


@pytest.mark.parametrize("options", [options for options in PENALTIES.values() if options], ids=list(PENALTIES)[1:])
def test_the_terms_of_a_step_with_penalties_are_named_by_their_penalties(options):
    _, terms = gradients(options, 1.0)
    names = {"r1_gamma": "r1", "r2_gamma": "r2", "gp_weight": "gp"}
    assert set(terms) == {"D", *(names[option] for option in options)}
