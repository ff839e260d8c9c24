"""Level "aligned" runs D several times, and each run begins with the same state, however D keeps it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_engine.losses import penalties
from tests.losses.networks import softplus
from tests.losses.test_aligned import aligned, gradient

FORMS = ("written buffer", "replaced buffer", "replaced attribute", "written attribute", "data")


class SpectralNorm(nn.Module):
    """A linear layer of norm 1, by a power iteration that is written by hand. Two counts go along."""

    def __init__(self, width: int, form: str) -> None:
        super().__init__()
        self.layer, self.form, self.calls = nn.Linear(width, 16), form, 0
        u = F.normalize(torch.randn(16).double(), dim=0)
        if form.endswith("buffer"):
            self.register_buffer("u", u)
        else:
            self.u = u if form.endswith("attribute") else nn.Parameter(u, requires_grad=False)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.weight
        with torch.no_grad():
            v = F.normalize(weight.T @ self.u, dim=0)
            u = F.normalize(weight @ v, dim=0)
            if self.form.startswith("written"):
                self.u.copy_(u)
            elif self.form == "data":
                self.u.data = u.clone()
            else:
                self.u = u
        self.count, self.calls = self.count + 1, self.calls + 1
        return F.linear(x, weight / (u @ weight @ v), self.layer.bias)


def made(form: str) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Flatten(), SpectralNorm(12, form), nn.SiLU(), SpectralNorm(16, form), nn.SiLU(), nn.Linear(16, 1)
    return nn.Sequential(*layers).double()


def state(D: nn.Sequential) -> list[Any]:
    return [(m.u.clone(), m.count.clone(), m.calls) for m in D if isinstance(m, SpectralNorm)]


def images() -> Tensor:
    return torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(1)).double()


HANDED: dict[str, Callable[[nn.Module], Callable]] = {
    "module": lambda D: D,
    "compiled": lambda D: torch.compile(D, backend="eager"),
    "in threads": nn.DataParallel,
}


@pytest.mark.parametrize("how", HANDED)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_each_run_begins_with_the_same_state(form: str, how: str):
    """It ends as one run leaves it."""
    torch.compiler.reset()
    D, other, x = made(form), made(form), images()
    run = HANDED[how](D)
    for loss in (softplus, None):
        want = gradient(other, lambda f=loss: aligned(other, x, f, gamma=10.0, level="autograd"))
        got = gradient(D, lambda f=loss: aligned(run, x, f, gamma=10.0))
        torch.testing.assert_close(got, want, rtol=0, atol=float(1e-5 * want.norm()))
        torch.testing.assert_close(state(D), state(other))
    assert D[1].calls == 2 and D[1].count == 2


@pytest.mark.parametrize("form", FORMS)
def test_the_error_estimate_puts_all_back(form: str):
    D, x = made(form), images()
    before, u = copy.deepcopy(state(D)), D[1].u
    assert 0 < penalties.aligned_error(D, x) < 1e-5
    torch.testing.assert_close(state(D), before, rtol=0, atol=0)
    assert D[1].u is u


def test_layers_that_the_first_run_makes_stay():
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(12, 8), None

        def forward(self, x: Tensor) -> Tensor:
            h = F.silu(self.first(x.flatten(1)))
            if self.last is None:
                self.last = nn.Linear(h.shape[1], 1, dtype=torch.float64)
                self.last.weight.data.normal_()
            return self.last(h)

    found = []
    for level in ("aligned", "autograd"):
        torch.manual_seed(0)
        D = Growing().double()
        aligned(D, images(), softplus, gamma=10.0, level=level)
        found.append(torch.cat([p.grad.flatten() for p in D.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=float(1e-5 * found[1].norm()))


def test_a_tensor_that_the_first_run_makes_is_made_again_by_the_next():
    class Running(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(12, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.scale = 2 * self.scale if hasattr(self, "scale") else torch.ones((), dtype=torch.float64)
            return self.layer(F.silu(self.scale * x.flatten(1)))

    found = []
    for level in ("aligned", "autograd"):
        torch.manual_seed(0)
        D = Running().double()
        found.append(gradient(D, lambda D=D, level=level: aligned(D, images(), softplus, gamma=10.0, level=level)))
        assert D.scale == 1
    torch.testing.assert_close(*found, rtol=0, atol=float(1e-5 * found[1].norm()))


def test_lazy_layers_and_functorch_run():
    torch.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.LazyLinear(16), nn.SiLU(), nn.LazyLinear(1)).double()

    def summed(row: Tensor) -> Tensor:
        total = torch.zeros_like(row)
        total += row.square()
        return total.sum()

    x, found = images(), []
    for level in ("aligned", "autograd"):
        run = lambda img: D(img) * torch.vmap(summed)(img.flatten(1))  # noqa: E731
        found.append(gradient(D, lambda run=run, level=level: aligned(run, x, softplus, level=level)))
    torch.testing.assert_close(*found, rtol=0, atol=float(1e-5 * found[1].norm()))
