"""A step with a penalty is one backward pass: of the whole graph of the loss, with hooks, and each parameter once.

What is wanted is always the step as its formula is written, by autograd in float64.
"""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from gan_engine.losses import penalties
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.penalties import backward_with_penalty

BEST = [None, 2]


def softplus(logits: Tensor) -> Tensor:
    return F.softplus(-logits)


def written_out(D: Callable, img: Tensor, loss: Callable, *, gamma=1.0, c=None, scale=1.0) -> None:
    """mean(loss(logits)) + mean(gamma / 2 * |dD/dimg|^2), into .grad"""
    x = img.detach().clone().requires_grad_()
    logits = (D(x) if c is None else D(x, c)).flatten()
    (g,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    ((loss(logits).mean() + (gamma / 2 * g.square().flatten(1).sum(1)).mean()) * scale).backward()


def taken(leaves: list[Tensor]) -> list[Tensor | None]:
    """The gradients of the leaves, which have none afterwards."""
    found = [None if leaf.grad is None else leaf.grad.clone() for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return found


def assert_equal(got: list[Tensor | None], want: list[Tensor | None]) -> None:
    """No gradient is as good as one of zeros, which autograd makes up for some."""
    for g, w in zip(got, want, strict=True):
        if g is None or w is None:
            assert all(x is None or not x.any() for x in (g, w))
        else:
            torch.testing.assert_close(g, w, rtol=1e-10, atol=1e-13)


@pytest.fixture
def img() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 3, 8, 8, dtype=torch.float64)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(6 * 64, 1), nn.Flatten(0)
    return nn.Sequential(*layers).double()


# What a loss may depend on


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
    "a constant": lambda D, t, s, logits: torch.ones(3),
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


# Weights that are used several times


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
    """Hooks of every kind on the parameters of D, that change the gradient where they can."""

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
@pytest.mark.parametrize("make", [lambda: Shared().double(), normed, frozen], ids=["plain", "spectral norm", "frozen"])
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
    for loss in (None, lambda logits: torch.zeros(2)):
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
    """Where autograd has nothing to add they are the memory that the kernels wrote: no more than one of each weight."""
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
        torch.distributed.destroy_process_group()


# Hooks in D, and parts of D that autograd alone knows


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
