"""A loss may depend on anything: the step is one backward pass of its whole graph.

What is wanted is always the step as its formula is written, by autograd in float64.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.level2.steps import assert_equal, images_fixture, small, taken
from tests.losses.networks import softplus, written_out

img = images_fixture(4)
BEST = [None, 2]


@pytest.mark.parametrize("level", [None, 2, 1])
def test_a_loss_may_read_D_again(img, level):
    D, fake = small(), img.flip(0) * 0.5
    loss = lambda real: F.softplus(D(fake) - real)  # noqa: E731
    written_out(D, img, loss, gamma=3.0)
    want = taken(list(D.parameters()))
    backward_with_penalty(D, img, loss, gamma=3.0, level=level)
    assert_equal(taken(list(D.parameters())), want)


LOSSES = {
    "a learnt temperature": lambda D, t, s, logits: F.softplus(-t * logits),
    "a computed tensor": lambda D, t, s, logits: F.softplus(-logits * s),
    "weight decay": lambda D, t, s, logits: F.softplus(-logits) + 0.1 * D[0].weight.square().sum() + D[3].bias.sum(),
    "several passes": lambda D, t, s, logits: F.softplus(-logits) + D(torch.ones(4, 3, 8, 8).double()).square(),
    "no logits": lambda D, t, s, logits: t.exp() + D[0].bias.sum(),
    "detached logits": lambda D, t, s, logits: F.softplus(-t * logits.detach()),
    "a new leaf": lambda D, t, s, logits: torch.ones(3, requires_grad=True),
    "written in place": lambda D, t, s, logits: F.softplus(-logits.mul_(2).sub_(t)),
    "in place and unused": lambda D, t, s, logits: [F.softplus(-logits), logits.detach().add(1)][0],
    "float64 of float32": lambda D, t, s, logits: F.softplus(-logits.double()),
}


@pytest.mark.parametrize("level", BEST)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_may_depend_on_anything(img, level, name):
    D, t = small(), torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    leaves = [*D.parameters(), t]
    loss = lambda logits: LOSSES[name](D, t, t.sigmoid() * 2, logits)  # noqa: E731
    written_out(D, img, loss)
    want = taken(leaves)
    backward_with_penalty(D, img, loss, gamma=1.0, level=level)
    assert_equal(taken(leaves), want)


def test_logits_come_back_as_D_gave_them(img):
    D = small()
    want = D(img).detach()
    logits, _ = backward_with_penalty(D, img, lambda logits: logits.mul_(0), gamma=1.0, level=2)
    assert torch.equal(logits, want)
    assert not logits.requires_grad


@pytest.mark.parametrize("level", BEST)
def test_a_graph_that_lies_behind_the_loss_the_classes_and_the_weights_of_the_penalty(img, level):
    """Leaves behind `c`, `gamma`, `scale` and what the loss holds, all in one backward pass."""
    D = small()
    embed, t = nn.Embedding(3, 1).double(), torch.linspace(0.5, 1, 4, dtype=torch.float64, requires_grad=True)
    conditioned = lambda x, c: D(x) + D[2](D[:2](x)).sum(1) * c  # noqa: E731
    leaves = [*D.parameters(), embed.weight, t]

    def given() -> dict:
        e = embed(torch.tensor([0, 2, 2, 1])).squeeze(1)
        return {"c": e, "loss": lambda logits: softplus(logits * e), "gamma": t.exp(), "scale": t.sum()}

    written_out(conditioned, img, **given())
    want = taken(leaves)
    backward_with_penalty(conditioned, img, **given(), level=level)
    assert_equal(taken(leaves), want)


@pytest.mark.parametrize("level", [None, 2, 1, "autograd"])
def test_a_scale_that_is_learned_has_its_gradient_in_each_step(img, level):
    D = small()
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    written_out(D, img, softplus, scale=scale)
    want = taken([*D.parameters(), scale])
    for _ in range(2):
        backward_with_penalty(D, img, softplus, gamma=1.0, scale=scale, level=level)
        assert_equal(taken([*D.parameters(), scale]), want)


def test_a_loss_takes_no_gradient_of_its_own_through_D(img):
    D = small()

    def loss(logits: Tensor) -> Tensor:
        (g,) = torch.autograd.grad(softplus(logits).sum(), D[0].weight, create_graph=True)
        return g.square().sum()

    with pytest.raises(RuntimeError, match="gradients of logits by parameters are not for its loss to take"):
        backward_with_penalty(D, img, loss, gamma=1.0, level=2)


def test_images_keep_their_own_gradient(img):
    D = small()
    img.requires_grad_()
    backward_with_penalty(D, img * 2, softplus, gamma=1.0)
    assert img.grad is None
    with torch.inference_mode():
        made = img.detach().clone()
        with pytest.raises(RuntimeError, match="inference_mode"):
            backward_with_penalty(D, made, softplus, gamma=1.0)
    want = taken(list(D.parameters()))
    for level in (2, 1):
        written_out(D, img, softplus)
        want = taken(list(D.parameters()))
        backward_with_penalty(D, made, softplus, gamma=1.0, level=level)
        assert_equal(taken(list(D.parameters())), want)


def test_saved_tensors_hooks_around_a_step_are_no_matter(img):
    D = parametrizations.spectral_norm(small()[0].double()), nn.LeakyReLU(0.2), *small()[2:]
    D = nn.Sequential(*D).eval()
    loss = lambda real: F.softplus(D(img * 0.5) - real)  # noqa: E731
    written_out(D, img, loss)
    want = taken(list(D.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.numpy(force=True), torch.from_numpy):
        backward_with_penalty(D, img, loss, gamma=1.0, level=2)
    assert_equal(taken(list(D.parameters())), want)
