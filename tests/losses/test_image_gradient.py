"""A step by autograd leaves out the gradient by the image where nobody can tell, and nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gan_engine.losses import by_autograd
from gan_engine.losses.by_autograd import _other_leaves
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.networks import softplus

calls: list[str] = []


@pytest.fixture(autouse=True)
def of_few_numbers_too(monkeypatch):
    """The images of these tests are small."""
    monkeypatch.setattr(by_autograd, "FEW", 0)


def noted(name: str, change: float = 1.0) -> Callable[..., Any]:
    """A hook that notes its call, and changes the gradients."""

    def hook(*args: Any) -> Any:
        calls.append(name)
        last = args[-1] if len(args) == 1 else args[1]
        return tuple(d if d is None else change * d for d in last) if isinstance(last, tuple) else change * last

    return hook


class Noted(torch.autograd.Function):
    """Its backward pass has an effect that a test can see."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        calls.append("function")
        return 3 * dy


class Net(nn.Module):
    """tanh between a convolution of [N, 1, 6] and a linear layer; `before` is what happens to the image."""

    def __init__(self, before: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.before = nn.Conv1d(1, 2, 3), nn.Linear(8, 1), before
        self.double()

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        h = self.first(self.before(x))
        return self.last(torch.tanh(h if c is None else h * c).flatten(1)).flatten()


def hooked(x: Tensor) -> Tensor:
    x.register_hook(noted("image"))
    return x


def scaled_and_hooked(x: Tensor) -> Tensor:
    x = 2 * x
    x.register_hook(noted("before the weights", 0.5))
    return x


def with_backward_hook() -> Net:
    D = Net()
    D.first.register_full_backward_hook(noted("module", 2.0))
    return D


def plain(D: Callable[..., Tensor], x: Tensor) -> None:
    x = x.clone().requires_grad_()
    logits = D(x)
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    (softplus(logits).mean() + g.square().sum((1, 2)).mean()).backward()


@pytest.mark.parametrize("level", [1, "autograd"])
@pytest.mark.parametrize(
    "make",
    [
        Net,
        lambda: Net(lambda x: 2 * x - 1),
        lambda: Net(hooked),
        lambda: Net(scaled_and_hooked),
        lambda: Net(Noted.apply),
        with_backward_hook,
        lambda: Net(lambda x: checkpoint(torch.sin, x, use_reentrant=False)),
    ],
    ids=["direct", "scaled", "hook of the image", "hook", "function", "hook of a module", "checkpoint"],
)
def test_hooks_and_effects_are_those_of_autograd(make: Callable[[], Net], level: Any):
    x = torch.randn(5, 1, 6, dtype=torch.float64)
    found = []
    for run in (plain, lambda D, x: backward_with_penalty(D, x, softplus, gamma=2.0, level=level)):
        D = make()
        calls.clear()
        run(D, x)
        found.append((sorted(calls), [p.grad for p in D.parameters()]))
    (want_calls, want), (got_calls, got) = found
    assert got_calls == want_calls
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 1, 6), (5, 6)])
def test_the_pass_is_left_out_for_many_numbers_in_three_dimensions(monkeypatch, shape: tuple[int, ...]):
    searched: list[int] = []
    D = Net() if len(shape) == 3 else nn.Sequential(nn.Linear(6, 1), nn.Tanh()).double()
    x = torch.randn(shape, dtype=torch.float64)
    monkeypatch.setattr(by_autograd, "_other_leaves", lambda *args: searched.append(1))
    for few, times in ((31, 0), (30, int(len(shape) == 3))):
        monkeypatch.setattr(by_autograd, "FEW", few)
        backward_with_penalty(D, x, softplus, gamma=2.0, level=1)
        assert len(searched) == times


def graph(D: Net, x: Tensor, c: Tensor | None = None) -> Tensor:
    logits = D(x, c)
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return logits.sum() + g.square().sum()


def test_the_leaves_but_the_image():
    x = torch.randn(5, 1, 6, dtype=torch.float64, requires_grad=True)
    D, c = Net(), torch.rand(5, 2, 4, dtype=torch.float64, requires_grad=True)
    leaves = _other_leaves([graph(D, x, c)], x)
    assert leaves is not None
    assert {id(leaf) for leaf in leaves} == {id(t) for t in (*D.parameters(), c)}
    for alone in (lambda x: 2 * x, scaled_and_hooked, Noted.apply, hooked):
        assert _other_leaves([graph(Net(alone), x)], x) is None
    re_entrant = graph(D, x) + checkpoint(lambda w: w.sum(), D.first.weight, use_reentrant=True)
    assert _other_leaves([re_entrant], x.detach().requires_grad_()) is None


@pytest.mark.parametrize("level", [1, "autograd"])
def test_all_else_that_requires_gradients_gets_them(level: Any):
    D, x = Net(), torch.randn(5, 1, 6, dtype=torch.float64)
    c, weight = torch.rand(5, 2, 4, dtype=torch.float64, requires_grad=True), torch.ones((), requires_grad=True)
    backward_with_penalty(D, x, lambda logits: weight * softplus(logits), gamma=2.0, c=c, level=level)
    image = x.clone().requires_grad_()
    logits = D(image, c)
    (g,) = torch.autograd.grad(logits.sum(), image, create_graph=True)
    total = weight * softplus(logits).mean() + g.square().sum((1, 2)).mean()
    want = torch.autograd.grad(total, [*D.parameters(), c, weight])
    torch.testing.assert_close([p.grad for p in (*D.parameters(), c, weight)], list(want), rtol=1e-10, atol=1e-12)
    D.requires_grad_(False).zero_grad()
    backward_with_penalty(D, x, lambda logits: softplus(logits), gamma=2.0, level=level)  # learns nothing
    assert all(p.grad is None for p in D.parameters())


@pytest.mark.parametrize("level", [1, "autograd"])
def test_a_loss_may_hold_a_re_entrant_checkpoint(level: Any):
    D, x, weight = Net(), torch.randn(5, 1, 6, dtype=torch.float64), torch.ones(5, requires_grad=True)
    loss = lambda logits: softplus(logits) + checkpoint(F.softplus, weight, use_reentrant=True)  # noqa: E731
    backward_with_penalty(D, x, loss, gamma=2.0, level=level)
    torch.testing.assert_close(weight.grad, torch.sigmoid(torch.ones(5)) / 5)
