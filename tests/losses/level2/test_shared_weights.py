"""A parameter that several layers share has its whole gradient once, and its hooks are called once.

What is wanted is always the step as its formula is written, by autograd in float64.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gan_engine.losses import penalties
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.level2.steps import assert_equal, images_fixture, small, taken
from tests.losses.networks import softplus, written_out

img = images_fixture(4)
BEST = [None, 2]


class Shared(nn.Module):
    """A layer three times over, one tied to it by its transpose, a bias of two layers, and a scaled weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.last = nn.Linear(192, 16), nn.Linear(16, 16), nn.Linear(16, 1)
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv(x), 0.2) + F.conv2d(x, self.conv.weight * 0.5, self.conv.bias, padding=1)
        x = F.leaky_relu(self.first(x.flatten(1)), 0.2)
        for _ in range(2):
            x = F.leaky_relu(self.again(x), 0.2)
        x = F.leaky_relu(F.linear(x, self.again.weight.t(), self.again.bias), 0.2)
        return self.last(x).squeeze(1) + (x @ self.last.weight[0]) * 0.1


def normed() -> nn.Module:
    D = Shared().double()
    for layer in (D.first, D.again, D.conv):
        parametrizations.spectral_norm(layer)
    return D.eval()


def frozen() -> nn.Module:
    D = Shared().double()
    D.again.weight.requires_grad_(False)
    D.conv.bias.requires_grad_(False)
    return D


class Recorded:
    """Hooks of every kind on the parameters of D. They change the gradient where a hook can."""

    def __init__(self, D: nn.Module) -> None:
        self.calls: list[tuple[str, str]] = []
        for name, p in D.named_parameters():
            if p.requires_grad:
                p.register_hook(lambda g, name=name: self._clamp(name, g))
                p.register_post_accumulate_grad_hook(lambda p, name=name: self.calls.append(("done", name)))

    def _clamp(self, name: str, g: Tensor) -> Tensor:
        self.calls.append(("hook", name))
        return g.clamp(-1e-3, 1e-3)


@pytest.mark.parametrize("level", [None, 2, 1])
@pytest.mark.parametrize("reads_D", [False, True], ids=["logits", "reads D"])
@pytest.mark.parametrize(
    "make", [lambda: Shared().double(), normed, frozen], ids=["as it is", "spectral norm", "frozen"]
)
def test_a_hook_sees_the_whole_gradient_once(img, make, level, reads_D):
    torch.manual_seed(0)
    D = make()
    other = copy.deepcopy(D)
    hooks, others = Recorded(D), Recorded(other)
    loss = lambda D: lambda logits: F.softplus((D(img.flip(0)) if reads_D else 0) - logits)  # noqa: E731
    written_out(other, img, loss(other))
    backward_with_penalty(D, img, loss(D), gamma=1.0, level=level)
    assert sorted(hooks.calls) == sorted(others.calls)
    assert_equal(taken(list(D.parameters())), taken(list(other.parameters())))


@pytest.mark.parametrize("level", BEST)
def test_an_optimizer_in_the_backward_pass(img, level):
    torch.manual_seed(0)
    D = Shared().double()
    other = copy.deepcopy(D)

    def step(p: Tensor) -> None:
        p.data.sub_(0.1 * p.grad / (p.grad.norm() + 1e-8))

    for p in [*D.parameters(), *other.parameters()]:
        p.register_post_accumulate_grad_hook(step)
    written_out(other, img, softplus)
    backward_with_penalty(D, img, softplus, gamma=1.0, level=level)
    assert_equal(list(D.parameters()), list(other.parameters()))


@pytest.mark.parametrize("level", BEST)
def test_gradients_are_added_to_those_there_are(img, level):
    torch.manual_seed(0)
    D = Shared().double()
    written_out(D, img, softplus)
    want = [3 * g for g in taken(list(D.parameters()))]
    for p, w in zip(D.parameters(), want, strict=True):
        p.grad = w * 2 / 3
    held = [p.grad for p in D.parameters()]
    backward_with_penalty(D, img, softplus, gamma=1.0, level=level)
    assert all(p.grad is g for p, g in zip(D.parameters(), held, strict=True))
    assert_equal(held, want)


def test_without_a_loss_biases_have_no_gradient_and_their_hooks_rest(img):
    torch.manual_seed(0)
    for loss in (None, lambda logits: torch.zeros(2, requires_grad=True)):
        D = Shared().double()
        hooks = Recorded(D)
        backward_with_penalty(D, img, loss, gamma=1.0, level=2)
        called = {name for _, name in hooks.calls}
        assert called == {name for name, p in D.named_parameters() if p.grad is not None}
        assert called == {name for name, _ in D.named_parameters() if name.endswith("weight")}


def test_nothing_learnt_is_no_error(img):
    D = small().requires_grad_(False)
    want = D(img)
    logits, penalty = backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    assert torch.equal(logits, want)
    assert penalty.shape == (4,)


def test_gradients_are_taken_over_without_a_copy(img):
    """A weight that one layer reads has the memory of its gradient from that layer, without a copy."""
    D, made = small(), []
    keep = lambda g: made.append(g.data_ptr())  # noqa: E731
    for p in D.parameters():
        p.register_hook(keep)
    backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    weights = {p.grad.data_ptr() for p in D.parameters() if p.ndim > 1}
    assert weights <= set(made)


@pytest.mark.parametrize("find_unused", [False, True])
def test_distributed_data_parallel_with_shared_layers(img, find_unused):
    torch.manual_seed(0)
    D = Shared().double()
    want = copy.deepcopy(D)
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(D, find_unused_parameters=find_unused)
        for step in range(3):
            loss = lambda D: lambda logits: F.softplus(D(img * 0.5).detach() - logits)  # noqa: E731
            written_out(want, img, loss(want))
            backward_with_penalty(parallel, img, loss(want), gamma=1.0, level=None if find_unused or step < 2 else 2)
            assert_equal(taken(list(D.parameters())), taken(list(want.parameters())))
        assert (penalties.refusal(parallel, img) is None) == (not find_unused)
    finally:
        parallel = None  # the last to hold the group would wait for its threads, which may wait for the interpreter
        torch.distributed.destroy_process_group()
