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

FORMS = ("written buffer", "replaced buffer", "replaced attribute", "written attribute", "data", "written parameter")


class SpectralNorm(nn.Module):
    """A linear layer of norm 1, by a power iteration that is written by hand. A count and a history go along."""

    def __init__(self, width: int, form: str) -> None:
        super().__init__()
        self.layer, self.form, self.calls, self.history = nn.Linear(width, 16), form, 0, []
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
        self.history.append(self.calls)
        return F.linear(x, weight / (u @ weight @ v), self.layer.bias)


def made(form: str) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Flatten(), SpectralNorm(12, form), nn.SiLU(), SpectralNorm(16, form), nn.SiLU(), nn.Linear(16, 1)
    return nn.Sequential(*layers).double()


def state(D: nn.Sequential) -> list[Any]:
    return [(m.u.clone(), m.count.clone(), m.calls, m.history.copy()) for m in D if isinstance(m, SpectralNorm)]


def images() -> Tensor:
    return torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(1)).double()


HANDED: dict[str, Callable[[nn.Module], Callable]] = {
    "module": lambda D: D,
    "hidden": lambda D: {"D": D}.__getitem__("D").__call__,
    "compiled": lambda D: torch.compile(D, backend="eager"),
    "in threads": nn.DataParallel,
}


@pytest.mark.parametrize("how", HANDED)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_each_run_begins_with_the_same_state(form: str, how: str):
    """It ends as one run leaves it. "hidden" is a module that only its call shows."""
    torch.compiler.reset()
    D, other, x = made(form), made(form), images()
    run = HANDED[how](D)
    for loss in (softplus, None):
        want = gradient(other, lambda f=loss: aligned(other, x, f, gamma=10.0, level="autograd"))
        got = gradient(D, lambda f=loss: aligned(run, x, f, gamma=10.0))
        torch.testing.assert_close(got, want, rtol=0, atol=float(1e-5 * want.norm()))
        torch.testing.assert_close(state(D), state(other))
    assert D[1].calls == 2 and D[1].history == [1, 2] and D[1].count == 2


@pytest.mark.parametrize("form", FORMS)
def test_the_error_estimate_puts_all_back(form: str):
    D, x = made(form), images()
    before, u = copy.deepcopy(state(D)), D[1].u
    assert 0 < penalties.aligned_error(D, x) < 1e-5
    torch.testing.assert_close(state(D), before, rtol=0, atol=0)
    assert D[1].u is u


def test_tensors_outside_of_modules_are_put_back_where_D_writes_to_them():
    net = made("written buffer")
    mean, generator = torch.ones(()).double(), torch.Generator().manual_seed(2)

    def D(x: Tensor) -> Tensor:
        mean.mul_(2)
        return net(x) * (mean + torch.rand((), generator=generator))

    x, found = images(), []
    for level in ("aligned", "autograd"):
        mean.fill_(1)
        generator.manual_seed(2)
        net.load_state_dict(made("written buffer").state_dict())
        found.append(gradient(net, lambda level=level: aligned(D, x, softplus, level=level)))
        assert mean == 2
    torch.testing.assert_close(*found, rtol=0, atol=float(1e-5 * found[1].norm()))


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


def test_backward_hooks_of_modules_are_called():
    D, other, x, called = made("replaced buffer"), made("replaced buffer"), images(), []
    D[3].register_full_backward_hook(lambda *args: called.append(1))
    want = gradient(other, lambda: aligned(other, x, softplus, level="autograd"))
    got = gradient(D, lambda: aligned(D, x, softplus))
    torch.testing.assert_close(got, want, rtol=0, atol=float(1e-5 * want.norm()))
    assert called
