"""Level 2 of lists of logits: several discriminators or scales that share no layer with something to learn."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.game import Game
from gan_engine.losses.penalties import NotPiecewiseLinear, backward_with_penalty, level_of, refusal
from tests.losses.test_penalty_passes import passes


def tower(width: int = 4, norm: Callable[[nn.Module], nn.Module] = lambda layer: layer) -> nn.Sequential:
    """[N, 3, H, W] -> [N, 1]"""
    layers = norm(nn.Conv2d(3, width, 3, padding=1)), nn.LeakyReLU(0.2), norm(nn.Conv2d(width, width, 3)), nn.ReLU()
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 1))


class Scales(nn.Module):
    """Towers, each of which sees half as many pixels as the one before."""

    def __init__(self, towers: list[nn.Module], form: Callable[[list[Tensor]], Any] = list) -> None:
        super().__init__()
        self.towers, self.form = nn.ModuleList(towers), form

    def forward(self, x: Tensor) -> Any:
        x, logits = (2 * x - 0.3).clamp(-2, 2), []
        for each in self.towers:
            logits.append(each(x))
            x = F.max_pool2d(x, 2) if len(logits) % 2 else F.avg_pool2d(x + 0.1, 2)
        return self.form(logits)


class Frozen(nn.Module):
    """Two heads on features that are not learned."""

    def __init__(self, *, learns: bool) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).requires_grad_(learns)
        self.heads = nn.ModuleList([nn.Linear(4 * 100, 1), nn.Linear(4 * 100, 1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.trunk(x)
        return [head(h).flatten() for head in self.heads]


shared = tower()
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "towers": lambda: Scales([tower(), tower(3), tower()]),
    "one tower at two scales": lambda: Scales([shared, shared]),
    "spectral norms": lambda: Scales([tower(norm=spectral_norm), tower(norm=spectral_norm)]),
    "one": lambda: Scales([tower()]),
    "pairs": lambda: Scales([tower(), tower()], lambda logits: [(each, [each]) for each in logits]),
    "dict": lambda: Scales([tower(), tower()], lambda logits: {"logits": logits}),
    "vectors": lambda: Scales([tower(), tower()], lambda logits: [each.flatten() for each in logits]),
    "frozen trunk": lambda: Frozen(learns=False),
}


def first_alone(logits: list[Tensor]) -> Tensor:
    return F.softplus(-logits[0])


def last_alone(logits: list[Tensor]) -> Tensor:
    return logits[-1].square()


def each_differently(logits: list[Tensor]) -> Tensor:
    return sum((k + 1) * F.softplus((-1) ** k * each) for k, each in enumerate(logits)) * torch.arange(4)


def none_of_them(logits: list[Tensor]) -> Tensor:
    return torch.ones((), requires_grad=True)


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return NETWORKS[name]().double(), torch.randn(4, 3, 12, 12, dtype=torch.float64)


def step(D: nn.Module, x: Tensor, loss: Any, **options: Any) -> dict[str, Any]:
    D.zero_grad()
    torch.manual_seed(1)
    before = {name: buffer.clone() for name, buffer in D.named_buffers()}
    logits, penalty = backward_with_penalty(D, x, loss, **options)
    for name, buffer in D.named_buffers():
        buffer.copy_(before[name])
    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in D.named_parameters()}
    return {"logits": torch.cat([each.flatten() for each in logits]), "penalty": penalty} | grads


@pytest.mark.parametrize("centre", [0.0, 1.0])
@pytest.mark.parametrize("loss", [first_alone, last_alone, each_differently, none_of_them, None])
@pytest.mark.parametrize("name", NETWORKS)
def test_level_2_is_autograd(name: str, loss: Any, centre: float):
    D, x = made(name)
    options = {"gamma": torch.rand(4, dtype=torch.float64), "centre": centre, "scale": 0.5}
    got, want = (step(D, x, loss, level=level, **options) for level in (2, "autograd"))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", ["relativistic", "hinge"])
def test_a_game_of_several_discriminators(loss: str):
    D, real = made("towers")
    fake, found = real.roll(1, 3) * 0.7, []
    for level in (2, "autograd"):
        D.zero_grad()
        game = Game(
            D, LOSSES[loss], {"r1": 2.0, "r2": 3.0, "gp": 1.0}, level=level, rng=torch.Generator().manual_seed(0)
        )
        fakes, reals, terms = game.backward(real, fake, None, 1.0)
        found.append([*fakes, *reals, *terms.values(), *(p.grad for p in D.parameters())])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


def test_four_passes():
    D, x = made("towers")
    assert passes(D, x, lambda: backward_with_penalty(D, x, each_differently, gamma=1.0, level=2)) == 4


def test_logits_that_share_a_learned_layer_are_refused():
    x = torch.randn(4, 3, 12, 12)
    same = Scales([tower()], lambda logits: logits * 2)
    for D in (Frozen(learns=True), same):
        assert refusal(D, x).startswith("D returns several logits for each image that share a layer with weights")
        with pytest.raises(NotPiecewiseLinear, match="level=1 is exact"):
            backward_with_penalty(D, x, first_alone, gamma=1.0, level=2)
        assert level_of(D, x, with_loss=False) == 2
    patches = Scales([tower()], lambda logits: [logits[0].expand(-1, 2)])
    assert refusal(patches, x).startswith("D returns several logits for each image, and")
