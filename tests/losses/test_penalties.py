"""Steps with a penalty: every level gives the gradients of the formula as it is written."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.discriminators import ResNet, convolutions, dcgan
from gan_engine import backends
from gan_engine.layers import EqualizedConv2d
from gan_engine.losses import penalties
from gan_engine.losses.penalties import backward_with_penalty
from tests.losses.discriminators import DISCRIMINATORS, seeded
from tests.losses.networks import softplus

LEVELS = [2, 1, "autograd"]


@pytest.fixture(params=DISCRIMINATORS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    make, shape = DISCRIMINATORS[request.param]
    return seeded(make), torch.randn(4, *shape)


def gradients(D: nn.Module, img: Tensor, loss=softplus, *, gamma: float = 3.0, **options) -> dict[str, Tensor]:
    """The gradients of backward_with_penalty by name, the logits and the penalty among them, in float64."""
    D.zero_grad(set_to_none=True)
    logits, penalty = backward_with_penalty(D, img, loss, gamma=gamma, **options)
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in D.named_parameters()}
    return {name: g.double() for name, g in {**found, "logits": logits, "penalty": penalty}.items()}


def written_out(D: nn.Module, img: Tensor, loss=softplus, *, gamma: float = 3.0, centre: float = 0.0) -> dict:
    """The promise of backward_with_penalty, as a user would write it, in float64."""
    D, img = copy.deepcopy(D).double(), img.double().requires_grad_()
    logits = D(img)
    (g,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    norm = (g.flatten(1).square().sum(1) + 1e-12).sqrt() if centre else g.flatten(1).norm(dim=1)
    penalty = (norm - centre).square()
    total = gamma / 2 * penalty.mean() + (0 if loss is None else loss(logits).mean())
    grads = torch.autograd.grad(total, list(D.parameters()), allow_unused=True)
    found = {
        name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(D.named_parameters(), grads, strict=True)
    }
    return {**found, "logits": logits.detach(), "penalty": penalty.detach()}


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    for name, w in want.items():
        assert (got[name] - w).norm() <= tolerance * w.norm() + 1e-12, name


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("loss", [softplus, None], ids=["with loss", "penalty alone"])
@pytest.mark.parametrize("centre", [0.0, 1.0])
@pytest.mark.usefixtures("poisoned_memory")
def test_every_level_is_what_is_written(case, level, loss, centre):
    D, img = case
    got = gradients(D.double(), img.double(), loss, level=level, centre=centre)
    assert_close(got, written_out(D, img, loss, centre=centre), 1e-9)


@pytest.mark.parametrize("loss", [softplus, None], ids=["with loss", "penalty alone"])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1), (4, 9)),
        (nn.Conv3d(4, 6, (1, 3, 2), padding=(0, 1, 1), bias=False), (4, 3, 4, 5)),
        (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (4, 7, 6)),
        (nn.Conv2d(4, 6, 3, padding="valid", groups=2), (4, 7, 6)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1), (4, 5)),
        (nn.ConvTranspose2d(4, 6, 3, 2, (1, 0), output_padding=(1, 0), groups=2, dilation=(1, 2)), (4, 5, 6)),
        (nn.ConvTranspose3d(4, 6, 2, stride=2, bias=False), (4, 2, 3, 2)),
    ],
    ids=str,
)
@pytest.mark.usefixtures("poisoned_memory")
def test_level_2_takes_convolutions_of_every_kind(layer, shape, loss):
    like = nn.Conv2d if "2d" in str(layer) else nn.Conv1d if "1d" in str(layer) else nn.Conv3d
    layers = [like(3, 4, 1), nn.LeakyReLU(0.2), layer, nn.ReLU(), nn.Flatten(), nn.LazyLinear(1), nn.Flatten(0)]
    D, img = nn.Sequential(*copy.deepcopy(layers)).double(), torch.randn(4, 3, *shape[1:], dtype=torch.float64)
    D(img)
    assert_close(gradients(D, img, loss, level=2), written_out(D, img, loss), 1e-10)


@pytest.mark.usefixtures("poisoned_memory")
def test_memory_that_others_show_is_not_written_over():
    """Activations that are read twice, before and after their masks, and through views."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            before = self.first(x)
            view = before.flatten(2)
            after = F.leaky_relu(before, 0.2)
            y = F.relu(self.second(after))
            z = F.relu(self.third(y) + after)
            return (view * 0.5 + z.flatten(2) + self.second(y).flatten(2)).sum((1, 2)) + before.sum((1, 2, 3))

    D, img = seeded(Shared).double(), torch.randn(3, 4, 6, 6, dtype=torch.float64)
    assert_close(gradients(D, img, level=2), written_out(D, img), 1e-10)


@pytest.mark.usefixtures("poisoned_memory")
def test_gradients_that_others_read_are_not_written_over():
    """The branches of a fork read one gradient, in memory of its own from the convolution behind them."""

    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))
            self.last = nn.Conv2d(4, 1, 6)

        def forward(self, x: Tensor) -> Tensor:
            h = self.a(x)
            return self.last(F.leaky_relu(self.b(h), 0.2) + F.leaky_relu(h, 0.2) + self.c(h)).flatten()

    D, img = seeded(Forked).double(), torch.randn(3, 4, 6, 6, dtype=torch.float64)
    assert_close(gradients(D, img, level=2), written_out(D, img), 1e-10)


def test_clamped_units_are_as_exact_on_the_reference():
    D = nn.Sequential(EqualizedConv2d(3, 8, 3, act="lrelu", clamp=0.3), nn.Conv2d(8, 1, 6), nn.Flatten(0)).double()
    img = torch.randn(3, 3, 6, 6, dtype=torch.float64)
    with backends.use("reference"):
        assert_close(gradients(D, img, level=2), written_out(D, img), 1e-12)


@pytest.mark.parametrize("clamp", [Tensor.clamp, torch.clip, Tensor.clamp_], ids=lambda f: f.__name__)
def test_a_clamp_of_its_own_is_exact(clamp: Callable[..., Tensor]):
    class Clamped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return clamp(F.leaky_relu(x, 0.2) * 2, -0.3, 0.3)

    D = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), Clamped(), nn.Conv2d(8, 1, 6), nn.Flatten(0))).double()
    img = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    assert_close(gradients(D, img, level=2), written_out(D, img), 1e-10)


# What a step takes


@pytest.mark.parametrize("level", LEVELS)
def test_gradients_are_added_and_scaled(case, level):
    D, img = case
    once = gradients(D, img, level=level)
    backward_with_penalty(D, img, softplus, gamma=3.0, level=level, scale=torch.tensor(4.0))
    for name, p in D.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(p.grad.double(), 5 * once[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("level", LEVELS)
def test_frozen_parameters_get_no_gradient(case, level):
    D, img = case
    want = gradients(D, img, level=level)
    names = [name for name, _ in D.named_parameters()]
    for name, p in D.named_parameters():
        p.requires_grad_(name != names[0])
    got = gradients(D, img, level=level)
    assert not got.pop(names[0]).any()
    assert_close(got, {name: want[name] for name in got}, 1e-5)


@pytest.mark.parametrize("level", [*LEVELS, "aligned"])
def test_a_loss_learns_where_D_is_frozen(level):
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(144, 1)).double()
    D, img = D.requires_grad_(False), torch.randn(4, 3, 8, 8).double()
    factor = torch.ones((), dtype=torch.float64, requires_grad=True)
    backward_with_penalty(D, img, lambda logits: F.softplus(factor * logits), gamma=1.0, level=level)
    (want,) = torch.autograd.grad(F.softplus(factor * D(img).flatten()).mean(), factor)
    torch.testing.assert_close(factor.grad, want, rtol=1e-9 if level != "aligned" else 1e-3, atol=0)
    assert all(p.grad is None for p in D.parameters())


@pytest.mark.parametrize("level", LEVELS)
def test_classes_reach_the_discriminator(level):
    D, img, c = seeded(ResNet, 8).double(), torch.randn(4, 3, 16, 16).double(), torch.tensor([1, 5, 1, 0])
    got = gradients(D, img, level=level, c=c)
    conditioned = seeded(ResNet, 8).double()
    forward = conditioned.forward
    conditioned.forward = lambda img: forward(img, c)
    want = gradients(conditioned, img, level="autograd")
    assert got["embed.weight"].abs().sum() > 0
    assert_close(got, want, 1e-10)


@pytest.mark.parametrize("level", LEVELS)
def test_a_weight_for_each_image_and_a_relativistic_loss(case, level):
    """R1 and R2 with weights of their own and a loss that pairs real and generated images, in one call."""
    D, real = case
    D, real = D.double(), real.double()
    fake = real.flip(0) * 0.5
    gammas = torch.tensor([2.0] * 4 + [6.0] * 4)
    got = gradients(D, torch.cat([real, fake]), lambda pair: F.softplus(pair[4:] - pair[:4]), gamma=gammas, level=level)
    D.zero_grad()
    pair = F.softplus(D(fake) - D(real)).mean()
    total = pair + 0.5 * penalties.r1(D, real).mean() + 1.5 * penalties.r2(D, fake).mean()
    total.backward()
    for name, p in D.named_parameters():
        torch.testing.assert_close(got[name], torch.zeros_like(p) if p.grad is None else p.grad, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [True, False])
def test_half_precision_is_as_exact_as_autograd_in_it(case, autocast, dtype):
    """The gradients are too small for numbers of float16. The scale of the loss brings them through."""
    D, img = case
    img = img.to(memory_format=torch.channels_last)
    scale = 2.0**16 if dtype == torch.float16 else 1.0
    loss = lambda logits: softplus(logits) / scale  # noqa: E731
    truth = gradients(D, img, loss, gamma=3 / scale, level="autograd")
    error = {}
    for level in LEVELS:
        options = {"gamma": 3 / scale, "level": level, "scale": scale}
        if autocast:
            with torch.autocast("cpu", dtype):
                got = gradients(D, img, loss, **options)
        else:
            got = gradients(copy.deepcopy(D).to(dtype), img.to(dtype), loss, **options)
        got = {name: g / scale for name, g in got.items()}
        off = sum((got[name] - truth[name]).square().sum() for name, _ in D.named_parameters())
        error[level] = math.sqrt(off / sum(truth[name].square().sum() for name, _ in D.named_parameters()))
    assert error[2] <= 1.25 * error["autograd"] + 1e-3
    assert error[1] <= 1.25 * error["autograd"] + 1e-3


@pytest.mark.parametrize("level", [2, 1])
def test_fifty_steps_of_adam_end_where_those_of_autograd_do(level):
    D, img = seeded(dcgan, 4).double(), torch.randn(50, 4, 3, 64, 64, dtype=torch.float64)
    ends = []
    for each in (level, "autograd"):
        trained = copy.deepcopy(D)
        adam = torch.optim.Adam(trained.parameters(), lr=1e-3, betas=(0.5, 0.999))
        for batch in img:
            adam.zero_grad()
            backward_with_penalty(trained, batch, softplus, gamma=1.0, level=each)
            adam.step()
        ends.append(torch.nn.utils.parameters_to_vector(trained.parameters()))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("centre", [0.0, 1.0])
def test_a_gradient_of_zero_gives_no_nan(level, centre):
    D = convolutions(4, 2)
    for parameter in D.parameters():
        nn.init.zeros_(parameter)
    found = gradients(D, torch.randn(2, 4, 8, 8), centre=centre, level=level)
    assert all(values.isfinite().all() for values in found.values())
