"""Level 2 tried on a D of any kind: nothing that D does harms the process or the gradients of the step."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses import penalties
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.level2.steps import Net, assert_equal, images_fixture, step
from tests.losses.networks import softplus

img = images_fixture(8)


class Raising(nn.Module):
    def __init__(self, error: Exception, *, on: Callable[[Tensor], bool]) -> None:
        super().__init__()
        self.net, self.error, self.on = Net(), error, on

    def forward(self, x: Tensor) -> Tensor:
        if self.on(x):
            raise self.error
        return self.net(x)


@pytest.mark.parametrize("error", [KeyError("k"), ValueError("v"), AssertionError(), RuntimeError("r\nmore")], ids=repr)
def test_any_exception_of_a_trial_is_a_refusal(img, error):
    D = Raising(error, on=lambda x: type(x) is not Tensor)
    assert penalties.refusal(D, img).startswith(f"D (Raising): it raised {type(error).__name__}: ")
    assert "\n" not in penalties.refusal(D, img)
    with pytest.raises(NotPiecewiseLinear, match="it raised"):
        step(D, D, img, 2)
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


def test_an_error_of_D_itself_comes_from_level_1(img):
    D = Raising(KeyError("of its own"), on=lambda x: True)
    with pytest.raises(KeyError, match="of its own"):
        step(D, D, img, None)


def test_an_interrupt_is_none(img):
    D = Raising(KeyboardInterrupt(), on=lambda x: True)
    for call in (lambda: penalties.refusal(D, img), lambda: step(D, D, img, None)):
        with pytest.raises(KeyboardInterrupt):
            call()


@pytest.mark.parametrize("level", [None, 2])
@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda y, x: (y, x), "a tuple"),
        (lambda y, x: [y, x], r"a list of \[8, 1\], \[8, 3, 8, 8\]"),
        (lambda y, x: {"scores": y}, "a dict with 'scores'"),
        (lambda y, x: None, "a NoneType"),
        (lambda y, x: x, r"\[8, 3, 8, 8\]"),
        (lambda y, x: torch.zeros(3), r"\[3\]"),
    ],
)
def test_what_D_must_return_is_said(img, returned, got, level):
    net = Net()
    D = lambda x: returned(net(x), x)  # noqa: E731
    with pytest.raises(ValueError, match=rf"D must return logits \[N\] = \[8\], got {got}"):
        step(D, net, img, level)
    assert "D must return logits" in penalties.refusal(D, img)


# Packs, and classes of any form


class Packed(nn.Module):
    """PacGAN judges four images together: one row of features makes the four logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(12, 8, 3, padding=1).double(), nn.Linear(512, 4).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.leaky_relu(self.conv(x.reshape(len(x) // 4, 12, 8, 8)), 0.2).flatten(1)).flatten()


def test_packs_are_refused_and_right(img):
    D = Packed()
    assert "the batch must stay in dimension 0" in penalties.refusal(D, img)
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


class Even(Net):
    """Takes batches of at least 8."""

    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        assert len(x) >= 8
        return super().forward(x)


def test_a_D_for_large_batches_is_taken_at_level_2(img):
    D = Even()
    assert penalties.refusal(D, img) is None
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))
    assert_equal(step(D, D, img, 2), step(D, D, img, "autograd"))


class Conditioned(Net):
    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        return super().forward(x) + (self.read(c) * x.mean((2, 3))).sum(1, keepdim=True)


CLASSES = {
    "dict": (lambda v: {"src": v}, lambda c: c["src"]),
    "tuple": (lambda v: (torch.zeros(8), v), lambda c: c[1]),
    "list": (lambda v: [v, None], lambda c: c[0]),
    "nested": (lambda v: {"a": [(v, "name")], "n": 3}, lambda c: c["a"][0][0] * c["n"]),
    "no tensor": (lambda v: 3, lambda c: torch.full((1, 3), float(c)).double()),
    "a string": (lambda v: "cat", lambda c: torch.full((1, 3), float(len(c))).double()),
    "one for all": (lambda v: v[0], lambda c: c),
}


@pytest.mark.parametrize("form", CLASSES)
def test_classes_of_any_form_are_handed_on(img, form):
    make, Conditioned.read = CLASSES[form][0], staticmethod(CLASSES[form][1])
    D, c = Conditioned(), make(torch.randn(8, 3).double())
    assert penalties.refusal(D, img, c) is None
    want = step(D, D, img, "autograd", c=c)
    for level in (None, 2, 1):
        assert_equal(step(D, D, img, level, c=c), want)


# Compiled parts


def compiled_forward(net: nn.Module) -> nn.Module:
    net.forward = torch.compile(net.forward)
    return net


def with_default(net: Callable) -> Callable:
    return lambda x, net=net: net(x)


def in_a_closure(net: Callable) -> Callable:
    return lambda x: net(x)


def compiled_inside(net: nn.Module) -> nn.Module:
    net.conv.compile()
    return net


@pytest.mark.parametrize(
    "make",
    [
        torch.compile,
        compiled_forward,
        compiled_inside,
        lambda net: nn.Sequential(torch.compile(net)),
        lambda net: torch.compile(net.forward),
        lambda net: functools.partial(torch.compile(net), c=None),
        lambda net: with_default(torch.compile(net)),
        lambda net: in_a_closure(torch.compile(net)),
        lambda net: compiled_inside(net).forward,
    ],
    ids=["module", "forward", "part", "in a module", "method", "partial", "default", "closure", "method of a part"],
)
def test_a_compiled_D_is_told_at_once(img, make):
    D = make(Net())
    assert "is compiled by torch.compile" in penalties.refusal(D, img)
    for level in (None, 2, 1, "autograd"):
        with pytest.raises(RuntimeError, match=r"is compiled by torch\.compile"):
            backward_with_penalty(D, img, softplus, gamma=1.0, level=level)
