"""Level "aligned": how far it is from exact gradients, and what it leaves behind."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed.fsdp
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.curved_discriminators import ViT, batch_norms, group_norms, mlp
from benchmarks.foreign import Periods
from gan_engine.losses import penalties
from tests.losses.discriminators import seeded
from tests.losses.networks import softplus, written_out

DISCRIMINATORS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: ViT(32, 2),
    "group norms": lambda: group_norms(16),
    "batch norms": lambda: batch_norms(16),
    "mlp": lambda: mlp(256),
    "mlp of ReLUs": lambda: mlp(256, nn.ReLU),
}


def images(n: int = 8) -> Tensor:
    """Blots [n, 3, 32, 32], smooth as photographs are."""
    noise = torch.randn(n, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(noise, 32, mode="bicubic").tanh()


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """A D that has learnt for some steps: its gradient bends sooner than that of a new one."""
    D, real = seeded(make), images()
    for _ in range(10):
        gradient(D, lambda: (F.softplus(D(torch.randn_like(real))) + softplus(D(real))).mean().backward())
        with torch.no_grad():
            for p in D.parameters():
                p.sub_(2e-4 * p.grad.sign())  # as Adam does at first
    return D


def gradient(D: nn.Module, step: Callable[[], object]) -> Tensor:
    """What `step` adds to .grad, in one vector."""
    D.zero_grad(set_to_none=True)
    step()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).double().flatten() for p in D.parameters()])


def aligned(D: Callable, img: Tensor, loss: Callable | None = None, *, gamma: Any = 1.0, **options: Any) -> Tensor:
    return penalties.backward_with_penalty(D, img, loss, gamma=gamma, **{"level": "aligned"} | options)[1]


def error(
    D: nn.Module,
    loss: Callable | None = None,
    *,
    run: Callable | None = None,
    precision: AbstractContextManager | None = None,
    level: str = "aligned",
    **options: Any,
) -> float:
    """The relative error of the gradients by all parameters, from those of autograd in float64."""
    exact = copy.deepcopy(D).double()
    precise = {"level": "autograd", **options}
    want = gradient(exact, lambda: penalties.backward_with_penalty(exact, images().double(), loss, **precise))
    with precision or nullcontext():
        got = gradient(D, lambda: aligned(D if run is None else run, images(), loss, level=level, **options))
    return float((got - want).norm() / want.norm())


FORMS: dict[str, dict[str, Any]] = {
    "R1": {"gamma": 1.0},
    "with a loss": {"gamma": 10.0, "loss": softplus},
    "WGAN-GP": {"gamma": 20.0, "centre": 1.0},
    "scaled": {"gamma": 10.0, "loss": softplus, "scale": torch.tensor(128.0)},
    "of each image": {"gamma": 20 * torch.arange(8) / 8},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_at_most_1_percent_off_in_float32_and_10_in_bfloat16(kind: str, form: str):
    D = trained(DISCRIMINATORS[kind])
    assert error(D, **FORMS[form]) < 1e-2
    if form == "R1":
        half = torch.autocast("cpu", torch.bfloat16)
        of_autograd = error(D, precision=half, level="autograd", **FORMS[form])
        # bfloat16 changes the signs before some ReLUs: autograd is up to 9 % off too.
        most = max(1e-1, 1.5 * of_autograd) if kind == "mlp of ReLUs" else 1e-1
        assert error(D, precision=half, **FORMS[form]) < most
        for dtype, most in ((torch.float32, 1e-2), (torch.bfloat16, 1e-1)):
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                assert 1e-5 < penalties.aligned_error(D, images()) < most, dtype


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_error_in_float64(kind: str):
    D = trained(DISCRIMINATORS[kind]).double()
    exact = gradient(D, lambda: written_out(D, images().double(), softplus, gamma=3.0))
    got = gradient(D, lambda: aligned(D, images().double(), softplus, gamma=3.0))
    torch.testing.assert_close(got, exact, rtol=0, atol=float(1e-6 * exact.norm()))


@pytest.mark.parametrize("with_loss", [True, False])
def test_hundreds_of_logits_for_each_image(with_loss: bool):
    """The shares of a loss are far less than those of the difference: biases lost half of them."""
    D = seeded(lambda: Periods((2, 3, 7), 8))
    wave = torch.randn(8, 1, 4096, generator=torch.Generator().manual_seed(1))
    of_loss = (lambda maps: F.softplus(-torch.cat(maps, 1)).mean(1)) if with_loss else None
    run = penalties.backward_with_penalty
    got = gradient(D, lambda: run(D, wave, of_loss, gamma=1.0, level="aligned"))
    D = D.double()
    want = gradient(D, lambda: run(D, wave.double(), of_loss, gamma=1.0, level="autograd"))
    assert (got - want).norm() < 1e-2 * want.norm()
    biases = torch.cat([torch.full((p.numel(),), "bias" in name) for name, p in D.named_parameters()])
    assert (got - want)[biases].norm() < 2e-2 * max(want[biases].norm(), 1e-2 * want.norm())


@pytest.mark.parametrize("with_loss", [True, False])
def test_hooks_of_parameters_run_once(with_loss: bool):
    D = seeded(lambda: mlp(64))
    D[-2].weight.register_hook(lambda g: 2 * g)
    got = gradient(D, lambda: aligned(D, images(), softplus if with_loss else None))
    want = gradient(D, lambda: aligned(D, images(), softplus if with_loss else None, level="autograd"))
    assert (got - want).norm() < 1e-2 * want.norm()


def test_penalty_and_logits_are_those_of_autograd():
    D, img = seeded(DISCRIMINATORS["vit"]), images()
    for centre in (0.0, 1.0):
        found = [
            penalties.backward_with_penalty(D, img, None, gamma=1.0, centre=centre, level=level)
            for level in ("aligned", "autograd")
        ]
        torch.testing.assert_close(*found)


@pytest.mark.parametrize("precise", [True, False])
def test_zero_gradients(precise: bool):
    """Images that D is constant in, a black image among others, and weights of 0: no NaN, and no gradient."""
    precision = torch.autocast("cpu", torch.bfloat16, enabled=not precise)
    D, img = seeded(lambda: mlp(64)), images()
    img[0] = 0
    with precision:
        whole = gradient(D, lambda: aligned(D, img, gamma=torch.ones(8).index_fill(0, torch.arange(4), 0)))
        part = gradient(D, lambda: aligned(D, img[4:], gamma=0.5))
        torch.testing.assert_close(whole, part, rtol=0, atol=float((2e-3 if precise else 0.1) * part.norm()))
        assert not gradient(D, lambda: aligned(D, img, gamma=0.0)).any()
        assert gradient(D, lambda: aligned(D, torch.zeros_like(img))).isfinite().all()
    nn.init.zeros_(D[-2].weight)
    with precision:
        for centre in (0.0, 1.0):
            assert not gradient(D, lambda c=centre: aligned(D, img, centre=c)).any()
        with_loss = gradient(D, lambda: aligned(D, img, softplus))
        torch.testing.assert_close(with_loss, gradient(D, lambda: softplus(D(img).float()).mean().backward()))


def test_all_in_bfloat16():
    D = trained(DISCRIMINATORS["vit"])
    half = copy.deepcopy(D).bfloat16()
    want = gradient(D, lambda: penalties.backward_with_penalty(D, images(), None, gamma=1.0, level=1))
    got = gradient(half, lambda: aligned(half, images().bfloat16()))
    assert (got - want).norm() < 0.1 * want.norm()


class Drawing(nn.Module):
    """Dropout, a spectral norm, a batch norm and a counter: a D that draws, and changes with each run."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 8, 4, 4))
        self.layers = nn.Sequential(first, nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(0.3), nn.Flatten())
        self.last = nn.Linear(512, 1)

    def forward(self, img: Tensor) -> Tensor:
        return self.last(self.layers(img))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_is_that_of_one_run(dtype: torch.dtype):
    D, img = seeded(Drawing), images()
    other = copy.deepcopy(D)
    torch.manual_seed(3)
    want = gradient(other, lambda: penalties.backward_with_penalty(other, img, softplus, gamma=1.0, level="autograd"))
    after = torch.rand(1)
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        got = gradient(D, lambda: aligned(D, img, softplus))
    assert torch.rand(1) == after
    assert (got - want).norm() < (1e-2 if dtype == torch.float32 else 0.1) * want.norm()
    close = {"rtol": 0.05, "atol": 0.01} if dtype != torch.float32 else {}
    torch.testing.assert_close(dict(D.named_buffers()), dict(other.named_buffers()), **close)


def test_the_error_estimate_leaves_no_trace():
    D, img = seeded(Drawing), images()
    D.last.weight.grad = torch.ones_like(D.last.weight)
    before, state = copy.deepcopy(D.state_dict()), torch.get_rng_state()
    assert 0 < penalties.aligned_error(D, img) < 1e-2
    torch.testing.assert_close(D.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert (D.last.weight.grad == 1).all() and D.last.bias.grad is None


def test_frozen_parameters_and_images():
    D, img = seeded(DISCRIMINATORS["vit"]), images().requires_grad_()
    everything = {name: p.grad for name, p in D.named_parameters() if gradient(D, lambda: aligned(D, img)) is not None}
    D.blocks.requires_grad_(False)
    gradient(D, lambda: aligned(D, img))
    for name, p in D.named_parameters():
        if name.startswith("blocks"):
            assert p.grad is None
        else:
            torch.testing.assert_close(p.grad, everything[name], rtol=1e-3, atol=1e-6)
    assert img.grad is None
    D.requires_grad_(False)
    assert aligned(D, img, softplus).isfinite().all()


def test_patches_scales_and_classes():
    """Logits of several discriminators with patches, a D with classes that have gradients, and hooks that run once."""
    torch.manual_seed(0)
    embed, calls = nn.Linear(4, 12), []
    nets = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 4, k, k), nn.SiLU(), nn.Conv2d(4, 1, 3)) for k in (2, 4))
    D = lambda img, c: [net(img + c.unflatten(1, (3, 2, 2)).repeat(1, 1, 16, 16)) for net in nets]  # noqa: E731
    loss = lambda logits: sum(softplus(each).mean() for each in logits)  # noqa: E731
    both, found = nn.ModuleList([embed, nets]), []
    nets[0][0].weight.register_hook(lambda g: calls.append(1))
    for level in ("aligned", "autograd"):
        step = lambda level=level: penalties.backward_with_penalty(  # noqa: E731
            D, images(), loss, gamma=1.0, c=embed(torch.eye(8, 4)), level=level
        )
        found.append(gradient(both, step))
    assert (found[0] - found[1]).norm() < 2e-2 * found[1].norm()  # more logits, more rounding
    assert embed.weight.grad.any()
    assert len(calls) == 2


class InItsOwnPrecision(nn.Module):
    """float32 images and logits, and less inside: calls in bfloat16, or weights that are kept in it."""

    def __init__(self, kept: bool) -> None:
        super().__init__()
        self.kept, self.first, self.last = kept, nn.Linear(3072, 64), nn.Linear(64, 1)
        if kept:
            self.first.to(torch.bfloat16)

    def forward(self, img: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.kept):
            h = F.linear(img.flatten(1), self.first.weight.to(img.dtype), self.first.bias.to(img.dtype))
        return self.last(F.silu(h.to(img.dtype))).squeeze(1)


@pytest.mark.parametrize("kept", [False, True])
def test_a_coarse_part_of_D_makes_a_large_step(kept: bool):
    D = seeded(lambda: InItsOwnPrecision(kept))
    exact = copy.deepcopy(D).double()
    exact.kept = True
    for loss in (None, softplus):
        got = gradient(D, lambda loss=loss: aligned(D, images(), loss, gamma=10.0))
        want = gradient(exact, lambda loss=loss: aligned(exact, images().double(), loss, gamma=10.0, level="autograd"))
        assert (got - want).norm() < 1e-1 * want.norm()


@pytest.mark.parametrize("gamma", [torch.tensor(torch.nan), torch.tensor(torch.inf)])
@pytest.mark.parametrize("with_loss", [False, True])
def test_what_is_not_finite_shows_in_the_gradients(with_loss: bool, gamma: Tensor):
    """So that a loss scale falls, or a run is told. Nobody reads the numbers in tensors before the step."""
    for D in (seeded(lambda: mlp(64)), seeded(lambda: nn.Sequential(*mlp(64)[:-2], nn.Linear(32, 3)))):
        loss = (lambda logits: softplus(logits).reshape(len(logits), -1).mean(1)) if with_loss else None
        assert not gradient(D, lambda D=D, loss=loss: aligned(D, images(), loss, gamma=gamma)).isfinite().any()


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("with_loss", [False, True])
def test_what_D_computed_before_the_call_serves_each_run(with_loss: bool, many: bool):
    """c and weights with graphs of their own, which all passes go back through."""
    embed, hyper = seeded(lambda: nn.Linear(4, 16)), seeded(lambda: nn.Linear(4, 16 * 3072))
    body = seeded(lambda: nn.Sequential(nn.SiLU(), nn.Linear(16, 8), nn.SiLU(), nn.Linear(8, 2 if many else 1)))
    all_of = nn.ModuleList([embed, hyper, body])
    loss = (lambda logits: softplus(logits).reshape(len(logits), -1).mean(1)) if with_loss else None

    def step(level: str) -> None:
        weight, c = hyper(torch.ones(4)).view(16, 3072) / 30, embed(torch.eye(8, 4))
        D = lambda img, c: body(F.linear(img.flatten(1), weight) + c).squeeze(1)  # noqa: E731
        if level == "aligned":
            assert penalties.aligned_error(D, images(), c) < 1e-2
        penalties.backward_with_penalty(D, images(), loss, gamma=20.0, c=c, level=level)

    got, want = (gradient(all_of, partial(step, level)) for level in ("aligned", "autograd"))
    assert (got - want).norm() < 1e-2 * want.norm()
    assert hyper.weight.grad.any() and embed.weight.grad.any()


def test_the_error_of_a_D_without_parameters_is_no_number():
    layer = mlp(8)
    for D in (copy.deepcopy(layer).requires_grad_(False), lambda x, layers=[[[layer]]]: layers[0][0][0](x)):
        with pytest.raises(ValueError, match="want a D with parameters that learn, got none"):
            penalties.aligned_error(D, images())
    assert all(p.grad is None for p in layer.parameters())
