"""A refusal is remembered while D stays the same."""

import functools
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_engine.losses import penalties
from gan_engine.losses.level2 import refusals, trial
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.level2.steps import Net, assert_equal, images_fixture, step
from tests.losses.networks import softplus

img = images_fixture(8)


@pytest.fixture
def passes(monkeypatch) -> list[str]:
    """The passes that are tried, noted as they begin."""
    made = []

    class Noted(trial.RecordedForward):
        def __init__(self, *args: Any, **asked: Any) -> None:
            made.append("pass")
            super().__init__(*args, **asked)

    monkeypatch.setattr(trial, "RecordedForward", Noted)
    return made


def test_a_level_2_step_is_one_pass_for_modules_and_fresh_functions(img, passes):
    D, calls = Net(), []
    D.register_forward_pre_hook(lambda m, args: calls.append(1))
    for _ in range(3):
        backward_with_penalty(D, img, softplus, gamma=1.0)
        backward_with_penalty(lambda x: D(x, None), img, softplus, gamma=1.0)
    assert len(calls) == len(passes) == 6


@pytest.mark.parametrize(
    "fresh",
    [lambda D: lambda x: D(x), lambda D: D.forward, lambda D: functools.partial(D, c=None)],
    ids=["lambda", "method", "partial"],
)
def test_a_refused_function_is_tried_once_however_often_it_is_made(img, passes, fresh):
    D = Net()
    D.curved = True
    for _ in range(3):
        c = torch.randn(1).double()
        backward_with_penalty(fresh(D), img, softplus, gamma=1.0)
        backward_with_penalty(lambda x, c=c: D(x) + c, img, softplus, gamma=1.0)
    assert len(passes) == 2


def exchange(D: nn.Sequential) -> None:
    D[1] = nn.ReLU()


CHANGES = {
    "a submodule is exchanged": exchange,
    "a mode": lambda D: D.eval(),
    "an attribute": lambda D: setattr(D[1], "curved", False),
    "a hook is removed": lambda D: D[1].handle.remove(),
}


class Curved(nn.Module):
    curved = True

    def __init__(self) -> None:
        super().__init__()
        self.handle = None

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh() if self.training and self.curved and self.handle is None else x.relu()


@pytest.mark.parametrize("name", CHANGES)
def test_a_refusal_is_forgotten_when_D_changes(img, passes, name):
    D = nn.Sequential(nn.Conv2d(3, 4, 3), Curved(), nn.Flatten(), nn.Linear(144, 1)).double()
    if name == "a hook is removed":
        D[1].handle = D[1].register_full_backward_hook(lambda *_: None)
    for _ in range(2):
        step(D, D, img, None)
    assert len(passes) == 1
    CHANGES[name](D)
    assert penalties.refusal(D, img) is None
    step(D, D, img, None)
    assert len(passes) == 3


def test_what_was_taken_and_is_then_curved_or_hooked_is_right(img):
    D = Net()
    step(D, D, img, None)
    D.curved = True
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))
    D.curved = False
    D.conv.register_full_backward_hook(lambda m, gi, go: tuple(None if g is None else g * 2 for g in gi))
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))
    D.conv.weight.requires_grad_(False)
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


def test_memory_does_not_hold_on_to_D(img):
    def refused() -> None:
        D = Net()
        D.curved = True
        backward_with_penalty(D, img, softplus, gamma=1.0)

    gc.collect()
    before = len(refusals._refused)
    refused()
    gc.collect()
    assert len(refusals._refused) <= before
