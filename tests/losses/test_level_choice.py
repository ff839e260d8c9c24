"""Level None leaves a small D to plain autograd. What is remembered of a D for it ends where D changes."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from gan_engine.losses import norms, penalties
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.game import Game
from gan_engine.losses.known import _known, known
from gan_engine.losses.level2.refusals import level_instead
from gan_engine.losses.penalties import backward_with_penalty, level_of
from gan_engine.losses.small import penalised_at_once
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
    assert level_of(D, x) == "autograd"


def test_fewer_images_of_a_small_function_are_no_new_trial(small):
    layers = Counted()
    for n, runs in ((5, 2), (4, 1), (5, 1), (6, 2)):
        calls.clear()
        step_of = backward_with_penalty(lambda x: layers(x), torch.randn(n, 6), softplus, gamma=2.0)
        assert calls == [n] * runs
        assert step_of[0].shape == (n,)


def test_a_D_with_much_to_do_takes_level_2():
    D, x = Counted(), torch.randn(5, 6)
    assert level_of(D, x) == 2
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


class Column(Counted):
    """Logits [N, 1], or two scales of them."""

    scales = False

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        y = super().forward(x)[:, None]
        return [y, -2 * y] if self.scales else y


class Scales(Column):
    scales = True


WEIGHTS = [{"r1": 3.0}, {"gp": 2.0}, {"r1": 3.0, "gp": 2.0}]


@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: "+".join(weights))
@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic", "hinge"])
@pytest.mark.parametrize("level", [None, "autograd"])
@pytest.mark.parametrize("make", [Counted, Column, Scales])
@pytest.mark.parametrize("scale", [0.5, torch.tensor(3.0)], ids=["number", "tensor"])
def test_one_backward_pass_has_the_gradients_of_several(small, monkeypatch, weights, loss, level, make, scale):
    D = make().double()
    real, fake = torch.randn(2, 5, 6, dtype=torch.float64)
    at_once, found = [], []
    monkeypatch.setattr(Game, "_at_once", lambda *args: at_once.append(1) or played(*args))
    for of, factor in ((level, 2.0), (level, torch.tensor(2.0)), (1, 2.0)):
        game = Game(D, LOSSES[loss], weights, 4, of, rng=torch.Generator(), factor=factor)
        for means in (False, False, True):
            D.zero_grad()
            game.rng.manual_seed(0)
            fakes, reals, terms = game.backward(real, fake, None, scale, means=means)
            assert list(terms) == list({"D": 0} | ({"gp": 0} if "gp" in weights else {}) | weights)
            logits = [*fakes, *reals] if make is Scales else [fakes, reals]
            assert not any(t.requires_grad for t in (*logits, *terms.values()))
            assert all(term.shape == (() if means else (5,)) for term in terms.values())
            means_of = [term.mean() for term in terms.values()]
            found.append([*logits, *means_of, *(p.grad for p in D.parameters())])
    # Level 2 refuses scales that share a layer, and float64 activations gain by level 1.
    refused = make is Scales and level is None and "r1" in weights
    assert len(at_once) == (0 if refused else 6)
    assert all(torch.equal(a, b) for a, b in zip(found[0], found[1], strict=True))  # the first step is as the others
    for each in found:
        torch.testing.assert_close(each, found[-1], rtol=1e-10, atol=1e-12)


played = Game._at_once


def test_a_step_at_level_autograd_leaves_the_first_one_of_level_none_as_the_others(small, monkeypatch):
    D, at_once = Column().double(), []
    monkeypatch.setattr(Game, "_at_once", lambda *args: at_once.append(1) or played(*args))
    real, fake = torch.randn(2, 5, 6, dtype=torch.float64)
    for level in ("autograd", None, None):
        D.zero_grad()
        Game(D, LOSSES["hinge"], {"r1": 3.0}, 1, level).backward(real, fake, None, 1.0)
    assert len(at_once) == 3


@pytest.mark.parametrize("level", [None, "autograd"])
@pytest.mark.parametrize("make", [Counted, Column, Scales])
@pytest.mark.parametrize("centre", [0.0, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.5, torch.tensor(3.0)], ids=["1", "number", "tensor"])
@pytest.mark.parametrize("shape", [(5, 6), (5, 1, 2, 3)], ids=str)
def test_a_penalty_at_once_has_the_gradients_of_level_1(small, monkeypatch, level, make, centre, scale, shape):
    def loss(logits):
        return sum(map(softplus, logits)) if make is Scales else softplus(logits)

    D, x = nn.Sequential(nn.Flatten(), make()).double(), torch.randn(shape, dtype=torch.float64)
    options = {"gamma": 2.0, "centre": centre, "scale": scale}
    at_once, found = [], []
    monkeypatch.setattr(penalties, "penalised_at_once", lambda *args: at_once.append(1) or penalised_at_once(*args))
    for of in (level, level, level, 1):  # the first steps find out what D is
        D.zero_grad()
        logits, penalty = backward_with_penalty(D, x, loss, level=of, **options)
        of_each = logits if make is Scales else [logits]
        assert not any(t.requires_grad for t in (*of_each, penalty)) and not x.requires_grad
        found.append([*of_each, penalty, *(p.grad for p in D.parameters())])
    # Level 2 refuses scales that share a layer, and float64 activations gain by level 1.
    assert at_once or (make is Scales and level is None)
    for each in found:
        torch.testing.assert_close(each, found[-1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("n", [48, 50, 100])
def test_a_bias_that_a_wasserstein_loss_cancels_gets_no_gradient(small, n):
    """Adam would make whole steps of what rounding leaves."""
    torch.manual_seed(0)
    D = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 1))
    game = Game(D, LOSSES["wasserstein"], {"gp": 10.0}, 1, "autograd", rng=torch.Generator())
    for step in range(3):
        D.zero_grad()
        game.backward(torch.randn(n, 6), torch.randn(n, 6), None, 1.0)
        assert step < 1 or D[2].bias.grad == 0


def test_the_gradient_of_a_loss_is_dense(small):
    """A hook or a function behind D may write to it."""

    def loss(logits):
        values = softplus(logits)
        values.register_hook(lambda g: g.clamp_(-0.01, 0.01))
        return values

    D, x = Counted(), torch.randn(5, 6)
    found = []
    for level in (None, None, None, 1):
        D.zero_grad()
        backward_with_penalty(D, x, loss, gamma=2.0, level=level)
        found.append([p.grad for p in D.parameters()])
    for each in found:
        torch.testing.assert_close(each, found[-1])


def test_a_loss_of_parameters_alone_is_taken_with_large_images():
    D, x = nn.Sequential(nn.Flatten(), nn.Linear(1 << 15, 1)), torch.randn(2, 1, 1 << 7, 1 << 8)
    for _ in range(3):
        D.zero_grad()
        backward_with_penalty(D, x, lambda logits: D[1].bias, gamma=2.0, level="autograd")
        assert D[1].bias.grad == 1


@pytest.mark.parametrize("centre", [0.0, 1.0])
def test_the_weight_of_a_penalty_is_never_in_half_precision(centre):
    """A GPU rounds a tensor [] to the dtype of the other factor, so the weight must have dimensions."""
    g, weight = torch.randn(5, 6).half(), torch.full((5,), 81920.0)
    s = g.float().square().sum(1)
    wrong = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            tensors = [x for x in args if isinstance(x, torch.Tensor)]
            wrong.extend(x for x in tensors if x.ndim == 0 and any(y.dtype != x.dtype for y in tensors))
            return func(*args, **(kwargs or {}))

    with Watch():
        got = norms.slope(g, s, weight, centre)
    want = weight[:, None] * g.float() * (1 - centre / norms.norm(s)[:, None])
    assert not wrong and got.dtype == g.dtype
    torch.testing.assert_close(got.float(), want.half().float(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "loss", [lambda logits: logits[:, None] * logits, lambda logits: logits.mean(0, keepdim=True)[None]]
)
def test_a_loss_of_other_dimensions_is_refused_in_every_step(small, loss):
    D, x = Counted(), torch.randn(5, 6)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"loss must return \[M\] for logits \[N\] = \[5\]"):
            backward_with_penalty(D, x, loss, gamma=2.0)
        step(D, x, None)


def test_a_small_refused_D_of_linear_layers_is_small_until_its_structure_changes(monkeypatch):
    monkeypatch.setitem(TABLE, FEW, TABLE[FEW]._replace(number=1000))
    x = torch.randn(5, 6)
    few, many = (nn.Sequential(nn.Linear(6, n), nn.Tanh(), nn.Linear(n, 1)) for n in (8, 1000))
    for _ in range(3):
        step(few, x, None)
        step(many, x, None)
    assert known(few).small and not known(many).small
    few[1] = nn.LeakyReLU(0.2)
    assert not known(few).small


def test_another_mode_of_D_is_another_choice():
    D, x = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 1)), torch.randn(5, 6)
    for mode, level in ((True, "autograd"), (False, 2), (True, "autograd")):
        D.train(mode)
        for _ in range(2):
            step(D, x, None)
        assert level_of(D, x) == level


@pytest.mark.parametrize("level", [None, "autograd"])
def test_a_game_refuses_a_small_D_that_is_compiled_after_its_steps(small, level):
    D, real, fake = Counted(), *torch.randn(2, 5, 6)
    game = Game(D, LOSSES["hinge"], {"r1": 1.0}, 1, level)
    for _ in range(2):
        game.backward(real, fake, None, 1.0)
    D.layers.compile(backend="eager")
    with pytest.raises(RuntimeError, match=r"is compiled by torch\.compile"):
        game.backward(real, fake, None, 1.0)


def test_attention_that_a_hook_adds_has_its_second_gradient_in_a_game(small):
    def attention(module: nn.Module, args: tuple, y: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*(y.reshape(len(y), 1, 2, 4),) * 3).reshape(y.shape)

    D, real, fake = Counted(), *torch.randn(2, 5, 6)
    game = Game(D, LOSSES["hinge"], {"r1": 1.0})
    for _ in range(2):
        game.backward(real, fake, None, 1.0)
    D.layers[0].register_forward_hook(attention)
    game.backward(real, fake, None, 1.0)


def test_a_small_D_whose_logits_do_not_depend_on_the_image_is_refused_in_every_step(small):
    class Constant(Counted):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x if self.training else torch.ones_like(x))

    D, real, fake = Constant(), *torch.randn(2, 5, 6)
    game = Game(D, LOSSES["hinge"], {"r1": 1.0})
    for _ in range(2):
        game.backward(real, fake, None, 1.0)
    D.training = False
    with pytest.raises(ValueError, match="D must return logits that depend on the image"):
        game.backward(real, fake, None, 1.0)


def test_a_small_D_that_returns_other_shapes_after_its_steps_is_refused(small):
    class Turned(Counted):
        turned = False

        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y[None] if self.turned else y

    D, real, fake = Turned(), *torch.randn(2, 5, 6)
    game = Game(D, LOSSES["hinge"], {"r1": 1.0})
    for _ in range(2):
        game.backward(real, fake, None, 1.0)
    D.turned = True
    with pytest.raises(ValueError, match=r"D must return logits \[N\] = \[5\], got \[1, 5\]"):
        game.backward(real, fake, None, 1.0)


def curved(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*layers, nn.Tanh(), nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0))


def test_a_refused_D_that_gains_nothing_by_level_1_is_left_to_autograd():
    D, x = curved(nn.Linear(6, 8), nn.ReLU()), torch.randn(5, 6)
    D(x)
    assert level_of(D, x) == "autograd"
    first = step(D, x, None)
    assert level_instead(D, x) == "autograd"
    second = step(D, x, None)
    torch.testing.assert_close(first, second)
    assert all(map(torch.equal, second, step(D, x, "autograd")))
    # Without a loss, plain autograd would send zeros through all layers.
    assert level_of(D, x, with_loss=False) == 1
    backward_with_penalty(D, x, None, gamma=2.0)
    assert level_instead(D, x, with_loss=False) == 1
    # What may gain by more images is tried again.
    assert level_instead(D, torch.randn(6, 6)) is None


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ((nn.Conv2d(16, 16, 3),), (2, 16, 96, 96)),
        ((nn.Conv2d(2, 8, 1), nn.LeakyReLU()), (2, 2, 192, 192)),
    ],
    ids=["convolution", "activation"],
)
def test_a_refused_D_with_large_layers_stays_at_level_1(layers: tuple, shape: tuple[int, ...]):
    D, x = curved(*layers), torch.randn(shape)
    D(x)
    step(D, x, None)
    assert level_instead(D, x) == 1
    assert level_of(D, x) == 1
