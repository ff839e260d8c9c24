"""Level None leaves a small D to plain autograd. What is remembered of a D for it ends where D changes."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses import penalties
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.game import Game
from gan_engine.losses.known import _known, known
from gan_engine.losses.penalties import backward_with_penalty, is_small
from gan_engine.ops.thresholds import TABLE
from tests.losses.conftest import FEW
from tests.losses.networks import softplus


class Counted(nn.Module):
    """A linear layer that counts its calls, and a running sum that each of them changes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        self.register_buffer("sum", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.sum += 1
        calls.append(len(x))
        return self.layers(x).squeeze(1)


calls: list[int] = []


@pytest.fixture
def small(monkeypatch):
    """Every D is small."""
    monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=float("inf")))
    calls.clear()


def step(D: nn.Module, x: Tensor, level: penalties.Level | None, **options) -> list[Tensor]:
    """The logits, the penalty and the gradients of a step."""
    D.zero_grad()
    found = backward_with_penalty(D, x, softplus, gamma=2.0, level=level, **options)
    return [*found, *(p.grad.clone() for p in D.parameters())]


def test_a_small_D_is_tried_once_put_back_and_left_to_autograd(small):
    D, x = Counted(), torch.randn(5, 6)
    got = step(D, x, None)
    assert (calls, float(D.sum)) == ([5, 5], 1)  # the trial, which is put back, and the step
    step(D, x, None)
    assert calls == [5, 5, 5]
    assert all(map(torch.equal, got, step(D, x, "autograd")))
    assert is_small(D, x)


def test_fewer_images_of_a_small_function_are_no_new_trial(small):
    layers = Counted()
    for n, runs in ((5, 2), (4, 1), (5, 1), (6, 2)):
        calls.clear()
        step_of = backward_with_penalty(lambda x: layers(x), torch.randn(n, 6), softplus, gamma=2.0)
        assert calls == [n] * runs
        assert step_of[0].shape == (n,)


def test_a_D_with_much_to_do_takes_level_2():
    D, x = Counted(), torch.randn(5, 6)
    assert not is_small(D, x)
    calls.clear()
    assert all(map(torch.equal, step(D, x, None), step(D, x, 2)))
    assert calls == [5, 5]


def test_what_is_known_of_a_D_is_forgotten_with_it(small):
    D = Counted()
    step(D, torch.randn(5, 6), None)
    name = id(D)
    assert _known[name][0]() is D
    del D
    gc.collect()
    assert name not in _known


@pytest.mark.parametrize("level", [None, "autograd"])
def test_a_D_that_is_compiled_after_a_step_is_refused(small, level):
    D, x = Counted(), torch.randn(5, 6)
    step(D, x, level)
    D.layers.compile(backend="eager")
    with pytest.raises(RuntimeError, match=r"is compiled by torch\.compile"):
        step(D, x, level)


@pytest.mark.parametrize("level", [None, "autograd"])
def test_a_layer_of_attention_that_comes_later_has_its_second_gradient(small, level):
    def attention(module: nn.Module, args: tuple, y: Tensor) -> Tensor:
        q = y.reshape(len(y), 1, 2, 4)
        return F.scaled_dot_product_attention(q, q, q).reshape(y.shape)

    D, x = Counted().double(), torch.randn(5, 6, dtype=torch.float64)
    step(D, x, level)
    seen = known(D)
    assert seen is not None and seen.without_attention
    D.layers[0].register_forward_hook(attention)
    got = step(D, x, level)
    assert not known(D).without_attention
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        D.zero_grad()
        img = x.clone().requires_grad_()
        logits = D(img)
        (g,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
        (softplus(logits).mean() + g.square().sum(1).mean()).backward()
    for found, p in zip(got[2:], D.parameters(), strict=True):
        torch.testing.assert_close(found, p.grad, rtol=1e-9, atol=1e-12)


class Sometimes(nn.Module):
    """Attention in some of its runs."""

    attends = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def attended(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*(x.reshape(len(x), 1, 2, 3),) * 3).reshape(x.shape)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer(x)
        return (self.attended(x) if self.attends else x).sum(1)


def test_a_D_whose_code_names_attention_is_always_watched():
    D, x = Sometimes(), torch.randn(5, 6)
    step(D, x, "autograd")
    D.attends = True
    step(D, x, "autograd")


WEIGHTS = [{"r1": 3.0}, {"gp": 2.0}, {"r1": 3.0, "gp": 2.0}]


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: "+".join(weights))
@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic", "hinge"])
@pytest.mark.parametrize("level", [None, "autograd"])
def test_one_backward_pass_has_the_gradients_of_several(small, weights, loss, level):
    D = Counted().double()
    real, fake = torch.randn(2, 5, 6, dtype=torch.float64)
    found = []
    for of in (level, 1):
        D.zero_grad()
        game = Game(D, LOSSES[loss], weights, 4, of, rng=torch.Generator().manual_seed(0))
        fakes, reals, terms = game.backward(real, fake, None, 0.5)
        assert list(terms) == list({"D": 0} | ({"gp": 0} if "gp" in weights else {}) | weights)
        assert not any(t.requires_grad for t in (fakes, reals, *terms.values()))
        found.append([fakes, reals, *terms.values(), *(p.grad for p in D.parameters())])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)
