"""Level "aligned": how far it is from exact gradients, and where it works that second derivatives do not."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from benchmarks.curved_discriminators import ViT, batch_norms, group_norms, mlp
from gan_engine.losses import penalties
from gan_engine.ops import bias_act
from tests.losses.networks import Lambda, seeded, softplus, written_out

DISCRIMINATORS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: ViT(depth=2),
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
    D = seeded(make)
    optimizer, real = torch.optim.Adam(D.parameters(), 2e-4, betas=(0.5, 0.99)), images()
    for _ in range(10):
        optimizer.zero_grad()
        (F.softplus(D(torch.randn_like(real))) + softplus(D(real))).mean().backward()
        optimizer.step()
    return D


def gradient(D: nn.Module, step: Callable[[], object]) -> Tensor:
    """What `step` adds to .grad, in one vector."""
    D.zero_grad(set_to_none=True)
    step()
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).double().flatten() for p in D.parameters()])


def aligned(D: Callable, img: Tensor, loss: Callable | None = None, *, gamma: Any = 1.0, **options: Any) -> Tensor:
    return penalties.backward_with_penalty(D, img, loss, gamma=gamma, level="aligned", **options)[1]


def error(
    D: nn.Module,
    loss: Callable | None = None,
    *,
    run: Callable | None = None,
    precision: AbstractContextManager | None = None,
    **options: Any,
) -> float:
    """The relative error of the gradients by all parameters, from those of autograd in float64."""
    exact = copy.deepcopy(D).double()
    precise = {"level": "autograd", **options}
    want = gradient(exact, lambda: penalties.backward_with_penalty(exact, images().double(), loss, **precise))
    with precision or nullcontext():
        got = gradient(D, lambda: aligned(run or D, images(), loss, **options))
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
        assert error(D, precision=torch.autocast("cpu", torch.bfloat16), **FORMS[form]) < 1e-1
        for dtype, most in ((torch.float32, 1e-2), (torch.bfloat16, 1e-1)):
            with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
                assert 1e-5 < penalties.aligned_error(D, images()) < most


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_error_in_float64(kind: str):
    D = trained(DISCRIMINATORS[kind]).double()
    exact = gradient(copy.deepcopy(D), lambda: None)
    exact = gradient(D, lambda: written_out(D, images().double(), softplus, gamma=3.0))
    got = gradient(D, lambda: aligned(D, images().double(), softplus, gamma=3.0))
    torch.testing.assert_close(got, exact, rtol=0, atol=float(1e-6 * exact.norm()))
