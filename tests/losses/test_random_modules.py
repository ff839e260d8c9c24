"""Every level that takes a network drawn from the grammar of random_modules.py has the step of plain autograd.

Compared in float64: logits, penalty, the gradient of each parameter, all buffers, and the state of the random numbers
after the call. GAN_ENGINE_DRAWS=5000 draws that many networks.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gan_engine.losses.penalties import NotPiecewiseLinear, backward_with_penalty
from tests.losses.random_modules import draw, picked

pytestmark = pytest.mark.usefixtures("small_norms_on_norm_act")

DRAWS = int(os.environ.get("GAN_ENGINE_DRAWS", 120))
PARTS = 6  # of the draws, so that they can run beside each other
GAMMA, SCALE = 1.7, 0.5


def loss(logits: Tensor | list[Tensor]) -> Tensor:
    return sum(F.softplus(each).mean() for each in (logits if isinstance(logits, list) else [logits]))


def plain(D: Callable, img: Tensor, c: Any, returns: str) -> tuple[Tensor | list[Tensor], Tensor]:
    img = img.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        returned = D(img) if c is None else D(img, c)
        logits = {"pair": lambda: returned[0], "dict": lambda: returned["logits"], "picked": lambda: picked(returned)}
        logits = logits.get(returns, lambda: returned)()
        total = sum(each.sum() for each in logits) if returns in ("list", "towers") else logits.sum()
        (g,) = torch.autograd.grad(total, img, create_graph=True)
        penalty = g.square().flatten(1).sum(1)
        ((loss(logits) + GAMMA / 2 * penalty.mean()) * SCALE).backward()
    return logits, penalty


def state(D: nn.Module) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in D.state_dict().items()} | {"random": torch.get_rng_state()}


def step(seed: int, run: Callable) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The numbers of a step, run(D, img, c, returns), and the state of D and of random numbers after it."""
    called, D, img, c = draw(seed)
    torch.manual_seed(7)
    before = state(D)
    try:
        logits, penalty = run(called, img, c, D.returns)
    except NotPiecewiseLinear:
        assert_same(state(D), before, f"draw {seed}: a refusal left a trace")
        raise
    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in D.named_parameters()}
    flat = torch.cat([each.detach().flatten() for each in (logits if isinstance(logits, list) else [logits])])
    return grads | {"logits": flat, "penalty": penalty.detach()}, state(D)


def assert_same(got: dict[str, Tensor], want: dict[str, Tensor], message: str) -> None:
    assert got.keys() == want.keys(), message
    for name, wanted in want.items():
        if not wanted.is_floating_point():
            assert torch.equal(got[name], wanted), f"{message}: {name}"
            continue
        off = (got[name] - wanted).norm()
        assert off <= 1e-8 * wanted.norm() + 1e-10, f"{message}: {name} is off by {off:.3g} of {wanted.norm():.3g}"


def check(seed: int) -> list[Any] | None:
    """The levels that took the network of `seed`, all of them right. None: plain autograd raises an error."""
    try:
        want, after = step(seed, plain)
    except RuntimeError as error:
        of_the_draw = (
            "derivative for",
            "does not require grad",
            "modified by an inplace operation",
            "being modified inplace",
        )
        assert any(reason in str(error) for reason in of_the_draw), f"draw {seed}: {error}"
        return None
    if not all(values.isfinite().all() for values in want.values()):
        return None
    took: list[Any] = []
    for level in (2, 1, "autograd", None):

        def engine(D: Callable, img: Tensor, c: Any, returns: str, level: Any = level) -> tuple[Any, Tensor]:
            options = {"gamma": GAMMA, "scale": SCALE, "logits": picked if returns == "picked" else None}
            return backward_with_penalty(D, img, loss, c=c, level=level, **options)

        try:
            got, left = step(seed, engine)
        except NotPiecewiseLinear:
            assert level == 2
            continue
        assert_same(got, want, f"draw {seed}, level {level}")
        assert_same(left, after, f"draw {seed}, level {level}, afterwards")
        took.append(level)
    return took


@pytest.mark.filterwarnings("ignore")  # of layers that PyTorch has newer forms of
@pytest.mark.parametrize("part", range(PARTS))
def test_every_level_that_takes_a_random_network_equals_autograd(part: int):
    seeds = range(part, DRAWS, PARTS)
    taken = [check(seed) for seed in seeds]
    assert sum(levels is not None for levels in taken) > len(seeds) / 2
    assert any(2 in levels for levels in taken if levels is not None)
