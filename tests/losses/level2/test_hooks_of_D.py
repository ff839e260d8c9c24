"""Hooks in D, and parts of D that autograd alone knows, act as in autograd.

What is wanted is always the step as its formula is written, by autograd in float64.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from gan_engine.losses import penalties
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.level2.steps import assert_equal, images_fixture, taken
from tests.losses.networks import softplus, written_out

img = images_fixture(4)


def halved(module: nn.Module, by_input: tuple, by_output: tuple) -> tuple:
    return tuple(None if g is None else g * 0.5 for g in by_input)


HOOKS = {
    "full": lambda D: D.body[2].register_full_backward_hook(halved),
    "full pre": lambda D: D.body[2].register_full_backward_pre_hook(lambda m, g: tuple(x * 0.5 for x in g)),
    "on D": lambda D: D.register_full_backward_pre_hook(lambda m, g: tuple(x * 0.5 for x in g)),
    "legacy": lambda D: D.body[1].register_backward_hook(halved),
    "of all": lambda D: nn.modules.module.register_module_full_backward_hook(halved),
    "pre of all": lambda D: nn.modules.module.register_module_full_backward_pre_hook(lambda m, g: (g[0] * 0.9,)),
    "of a tensor": lambda D: D.body[0].register_forward_hook(
        lambda m, i, o: o.register_hook(lambda g: g * 0.5) and None
    ),
    "retain_grad": lambda D: D.body[0].register_forward_hook(lambda m, i, o: o.retain_grad()),
}


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3, padding=1), nn.LeakyReLU(0.2)
        self.body = nn.Sequential(*layers)
        self.last = nn.Linear(6 * 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x).flatten(1))


@pytest.mark.parametrize("through", ["module", "function"])
@pytest.mark.parametrize("name", HOOKS)
@pytest.mark.filterwarnings("ignore:Using a non-full backward hook")
def test_backward_hooks_act_as_in_autograd(img, name, through):
    torch.manual_seed(0)
    D = Body().double()
    called = D if through == "module" else lambda x: D(x)
    backward_with_penalty(called, img, softplus, gamma=1.0, level=2)  # a D that has been tried
    taken(list(D.parameters()))
    handle = HOOKS[name](D)
    try:
        written_out(called, img, softplus)
        want = taken(list(D.parameters()))
        assert penalties.refusal(called, img) is not None
        with pytest.raises(NotPiecewiseLinear):
            backward_with_penalty(called, img, softplus, gamma=1.0, level=2)
        for _ in range(2):
            backward_with_penalty(called, img, softplus, gamma=1.0)
            assert_equal(taken(list(D.parameters())), want)
    finally:
        handle.remove()
    assert penalties.refusal(called, img) is None


def test_a_refused_hook_names_its_module(img):
    D = Body().double()
    D.body[2].register_full_backward_hook(halved)
    assert penalties.refusal(D, img).startswith("body.2 (Conv2d): a backward hook")


def test_forward_hooks_change_what_D_computes(img):
    torch.manual_seed(0)
    D = Body().double()
    D.body[0].register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    D.body[1].register_forward_hook(lambda m, args, out: out + args[0])
    D.body[2].register_forward_hook(lambda m, args, kwargs, out: out * 0.5, with_kwargs=True)
    written_out(D, img, softplus)
    want = taken(list(D.parameters()))
    backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    assert_equal(taken(list(D.parameters())), want)


def test_hooks_of_computed_weights_run_once(img):
    class Scaled(Body):
        def forward(self, x: Tensor) -> Tensor:
            self.w, b = self.body[0].weight * 2, self.body[0].bias * 1
            self.w.retain_grad()
            self.called = []
            for t in (self.w, b):
                t.register_hook(lambda g: (self.called.append(g.shape), g * 0.5)[1])
            twice = F.conv2d(x, self.w, b, padding=1) - F.conv2d(x.relu(), self.w, b, padding=1)
            return self.last(F.leaky_relu(twice, 0.2).flatten(1))

    torch.manual_seed(0)
    D = Scaled().double()
    written_out(D, img, softplus)
    want, called = [*taken(list(D.parameters())), D.w.grad], D.called
    backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    assert sorted(D.called) == sorted(called)
    assert_equal([*taken(list(D.parameters())), D.w.grad], want)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, d: Tensor) -> Tensor:
        return d * -0.5


class ReversedWithGrad(Reversed):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return x * 1


class ReversedView(Reversed):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x


PARTS = {
    "an autograd.Function": lambda D, x: D.last(Reversed.apply(D.body(x)).flatten(1)),
    "one that computes with gradients": lambda D, x: D.last(ReversedWithGrad.apply(D.body(x)).flatten(1)),
    "one that returns what it gets": lambda D, x: D.last(ReversedView.apply(D.body(x)).flatten(1)),
    "one at the end": lambda D, x: ReversedWithGrad.apply(D.last(D.body(x).flatten(1))),
    "data": lambda D, x: D.last((D.body(x) + D.body[0](x).data).flatten(1)),
    "detach": lambda D, x: D.last((D.body(x) - D.body[0](x).detach()).flatten(1)),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_with_a_gradient_of_their_own_are_left_to_autograd(img, name):
    torch.manual_seed(0)
    net = Body().double()
    D = lambda x: PARTS[name](net, x)  # noqa: E731
    written_out(D, img, softplus)
    want = taken(list(net.parameters()))
    with pytest.raises(NotPiecewiseLinear):
        backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    backward_with_penalty(D, img, softplus, gamma=1.0, level="autograd")
    assert_equal(taken(list(net.parameters())), want)
    backward_with_penalty(D, img, softplus, gamma=1.0)
    assert_equal(taken(list(net.parameters())), want)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_in_D_is_right_or_refused(img, reentrant):
    torch.manual_seed(0)
    net = Body().double()
    parametrizations.spectral_norm(net.body[0]).eval()
    written_out(net, img, softplus)
    want = taken(list(net.parameters()))
    D = lambda x: net.last(checkpoint(net.body, x, use_reentrant=reentrant).flatten(1))  # noqa: E731
    try:
        backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    except NotPiecewiseLinear:
        return
    assert_equal(taken(list(net.parameters())), want)


@pytest.mark.parametrize("keeps", ["an attribute", "a hook", "a list"])
def test_a_loss_may_read_features_that_D_keeps(img, keeps):
    torch.manual_seed(0)
    held = []

    class Keeping(Body):
        def forward(self, x: Tensor) -> Tensor:
            h = self.body(x)
            if keeps == "an attribute":
                self.features = h
            elif keeps == "a list":
                held.append(h)
            return self.last(h.flatten(1))

    D = Keeping().double()
    if keeps == "a hook":
        D.body.register_forward_hook(lambda m, args, out: held.append(out))

    def loss(logits: Tensor) -> Tensor:
        features = D.features if keeps == "an attribute" else held[-1]
        return F.softplus(-logits) + features.flatten(1).square().mean(1)

    written_out(D, img, loss)
    want = taken(list(D.parameters()))
    backward_with_penalty(D, img, loss, gamma=1.0)
    assert_equal(taken(list(D.parameters())), want)
    with pytest.raises(NotPiecewiseLinear, match="an activation after its forward pass"):
        backward_with_penalty(D, img, loss, gamma=1.0, level=2)


def test_complex_buffers_are_no_matter(img):
    class Fourier(Body):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("phase", torch.exp(1j * torch.linspace(0, 1, 6)).to(torch.complex128))

        def forward(self, x: Tensor) -> Tensor:
            return self.last((self.body(x) * self.phase.real[:, None, None]).flatten(1))

    D = Fourier().double()
    written_out(D, img, softplus)
    want = taken(list(D.parameters()))
    backward_with_penalty(D, img, softplus, gamma=1.0, level=2)
    assert_equal(taken(list(D.parameters())), want)
