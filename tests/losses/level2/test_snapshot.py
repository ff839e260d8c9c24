"""A D that is refused, or asked about, is what it was before."""

import collections
import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm

from gan_engine.losses import penalties
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.level2.steps import Net, assert_equal, images_fixture, step
from tests.losses.networks import softplus

img = images_fixture(8)


class Counting(Net):
    """It changes all that a forward pass may change, and is then refused."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6).double()
        self.old, self.new = nn.Conv2d(6, 6, 1).double(), nn.Conv2d(6, 6, 1).double()
        spectral_norm(self.old)
        parametrizations.spectral_norm(self.new)
        self.register_buffer("replaced", torch.zeros(2).double())
        self.register_buffer("written", torch.zeros(2).double())
        self.attribute, self.calls, self.history, self.seen = torch.zeros(2), 0, [], {}
        self.held = [torch.zeros(2)]
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor, c: Any = None) -> Tensor:
        self.replaced = self.replaced * 0.5 + self.conv.weight.detach().mean()
        self.written.mul_(0.5).add_(1)
        self.attribute += 1
        self.held[0][1] = self.held[0][1] + 3
        self.calls += 1
        self.history.append(self.calls)
        self.seen[self.calls] = True
        self.fresh = self.calls
        noise = torch.randn(()) + torch.rand((), generator=self.generator)
        h = self.norm(self.new(self.old(self.conv(x) + noise.double())))
        return self.last(h.flatten(1))

    def state(self) -> dict[str, Any]:
        names = ("attribute", "calls", "history", "seen", "held", "fresh")
        attributes = {name: copy.deepcopy(getattr(self, name, None)) for name in names}
        generators = {"generator": self.generator.get_state(), "random": torch.get_rng_state()}
        return {**{name: v.clone() for name, v in self.state_dict().items()}, **attributes, **generators}


HANDED = {
    "module": lambda D: D,
    "function": lambda D: lambda x: D(x),
    "bound method": lambda D: D.forward,
    "partial": lambda D: functools.partial(D, c=None),
    "method in a closure": lambda D: lambda x: D.forward(x),
    "object": lambda D: type("Critic", (), {"net": D, "__call__": lambda self, x: self.net.forward(x)})(),
    "default": lambda D: lambda x, D=D: D(x),
    "hidden": lambda D: {"D": D}.__getitem__("D").__call__,
}


@pytest.mark.parametrize("how", HANDED)
def test_a_refusal_leaves_no_trace(img, how):
    torch.manual_seed(0)
    D = Counting()
    called = HANDED[how](D)
    before = D.state()
    assert "batch_norm" in penalties.refusal(called, img)
    torch.testing.assert_close(D.state(), before, rtol=0, atol=0)
    with pytest.raises(NotPiecewiseLinear):
        step(called, D, img, 2)
    torch.testing.assert_close(D.state(), before, rtol=0, atol=0)

    other = copy.deepcopy(D)
    other.generator = torch.Generator()
    other.generator.set_state(D.generator.get_state())
    torch.set_rng_state(before["random"])
    want = step(other, other, img, "autograd")
    after = other.state()
    torch.set_rng_state(before["random"])
    assert_equal(step(called, D, img, None), want)  # D has run once
    torch.testing.assert_close(D.state(), after, rtol=0, atol=0)


def test_asking_leaves_no_trace_where_level_2_holds(img):
    D = nn.Sequential(spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1)).double()
    before = {name: values.clone() for name, values in D.state_dict().items()}
    random = torch.get_rng_state()
    assert penalties.refusal(D, img) is None
    torch.testing.assert_close(dict(D.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


def test_tensors_that_a_function_writes_are_put_back(img):
    net, mean, out = Net(), torch.zeros(()).double(), torch.zeros(2).double()
    net.curved = True

    def D(x: Tensor) -> Tensor:
        mean.lerp_(net.conv.weight.detach().mean(), 0.5)
        torch.add(out, 1, out=out)
        out[0] += 1
        return net(x) * mean

    assert "tanh" in penalties.refusal(D, img)
    assert not mean.any()
    assert not out.any()
    backward_with_penalty(D, img, softplus, gamma=1.0)
    assert out.tolist() == [2, 1]


def doubled_in_place(row: Tensor) -> Tensor:
    total = torch.zeros_like(row)
    total += row
    return total.mul_(2)


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "grad": torch.func.grad(lambda h: F.softplus(doubled_in_place(h)).sum()),
    "vmap": torch.vmap(doubled_in_place),
    "vmap of grad": torch.vmap(torch.func.grad(lambda row: doubled_in_place(row).square().sum())),
    "vjp": lambda h: torch.func.vjp(torch.square, h)[1](h)[0],
    "jvp": lambda h: torch.func.jvp(doubled_in_place, (h,), (h,))[1] * h,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_a_transform_of_torch_func_wraps_is_left_alone(img: Tensor, name: str):
    net = Net()

    def D(x: Tensor) -> Tensor:
        return net.last(TRANSFORMS[name](net.conv(x)).flatten(1))

    assert penalties.refusal(D, img) is not None
    assert_equal(step(D, net, img, None), step(D, net, img, "autograd"))


SIZES = {
    "resized": lambda D: D.queue.resize_(len(D.queue) + 1).fill_(1),
    "data": lambda D: setattr(D.queue, "data", torch.ones(len(D.queue) + 1).double()),
    "other memory": lambda D: setattr(D.queue, "data", D.conv.bias.data.mul_(2)),
    "set": lambda D: D.queue.set_(torch.ones(len(D.queue) + 1).double()),
    "deque": lambda D: D.recent.append(len(D.recent)),
}


@pytest.mark.parametrize("name", SIZES)
def test_buffers_that_grow_are_put_back(img, name):
    """A buffer may be a queue of features. A tensor whose memory a buffer was given stays as it was, too."""

    class Growing(Net):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                SIZES[name](self)
            return super().forward(x)

    def made() -> Growing:
        torch.manual_seed(0)
        D = Growing()
        D.curved, D.recent = True, collections.deque([5], maxlen=3)
        D.register_buffer("queue", torch.zeros(6).double())
        with torch.inference_mode():
            D.register_buffer("of_inference", torch.zeros(2))
        D.register_buffer("sparse", torch.eye(2).to_sparse())
        return D

    D, same = made(), made()
    assert "tanh" in penalties.refusal(D, img)
    assert D.queue.shape == (6,) and not D.queue.any() and list(D.recent) == [5]
    assert torch.equal(D.conv.bias, same.conv.bias)
    for net, level in ((D, None), (same, 1)):
        backward_with_penalty(net, img, softplus, gamma=1.0, level=level)
    assert torch.equal(D.queue, same.queue) and D.recent == same.recent
    assert torch.equal(D.conv.bias, same.conv.bias)


def test_spectral_norms_turn_once_a_step(img):
    """The same as in a step without a penalty, at level 2 and where level 2 is refused."""
    for last in (nn.Identity(), nn.Tanh()):
        torch.manual_seed(0)
        D = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Flatten(), last)
        D = D.append(nn.Linear(144, 1)).double()
        other = copy.deepcopy(D)
        for _ in range(2):
            want = step(other, other, img, "autograd")
            assert_equal(step(D, D, img, None), want)
        torch.testing.assert_close(dict(D.state_dict()), dict(other.state_dict()))


def test_lazy_modules_stay_what_the_trial_made_of_them(img):
    D = nn.Sequential(nn.Flatten(), nn.LazyLinear(1), nn.Tanh()).double()
    assert penalties.refusal(D, img) is not None
    assert_equal(step(D, D, img, None), step(D, D, img, "autograd"))


class Frozen(collections.OrderedDict):
    """A configuration that cannot be changed, as some libraries keep in their networks."""

    def update(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("frozen")

    clear = pop = popitem = setdefault = update


@pytest.mark.parametrize("level", [None, 2])
def test_a_frozen_dict_stays(level: int | None, img: Tensor):
    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = Frozen([("slope", 1.0)])
            self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.Softplus(), nn.LazyLinear(1)).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(self.config["slope"] * x)

    D = Smooth()
    D(img)
    if level == 2:
        with pytest.raises(NotPiecewiseLinear, match="curved"):
            backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    else:
        backward_with_penalty(D, img, softplus, gamma=1.0, level=level)
    assert dict(D.config) == {"slope": 1.0}
