"""Limits have one value and one gradient, however PyTorch's clamp has its own."""

import math

import pytest
import torch

from gan_engine.losses import penalties
from gan_engine.losses.level2 import pieces
from gan_engine.ops import limits
from tests.losses.networks import Lambda


@pytest.mark.parametrize("by_clamp", [False, True])
def test_the_gradient_is_1_at_the_limits_and_0_beyond(by_clamp: bool, monkeypatch):
    if by_clamp and not limits.CLAMP_PASSES:
        pytest.skip("the gradient of torch.clamp is 0 at its limits in this PyTorch")
    monkeypatch.setattr(limits, "CLAMP_PASSES", by_clamp)
    x = torch.tensor([-math.inf, -3, -2, 0, 2, 3, math.inf, math.nan], requires_grad=True)
    y = limits.clamped(x, 2.0)
    torch.testing.assert_close(y.detach(), torch.tensor([-2, -2, -2, 0, 2, 2, 2, math.nan]), equal_nan=True)
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert g[:7].tolist() == [0, 0, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("limit", [float, torch.tensor], ids=["number", "tensor"])
@pytest.mark.parametrize("high", [1.0, 2.0])
@pytest.mark.parametrize("low", [-1.0, 1.0, 2.0])
def test_level_2_has_the_slopes_of_this_pytorch_at_limits(low, high, limit):
    x = torch.tensor([[-2.0, -1.0, 0.5, 1.0, 2.0, 3.0]]).repeat(2, 1)
    D = Lambda(lambda x: x.clamp(limit(low), limit(high)).sum(1))
    found = {}
    for level in (2, "autograd"):
        found[level] = penalties.backward_with_penalty(D, x, torch.nn.functional.softplus, gamma=1.0, level=level)
    torch.testing.assert_close(found[2], found["autograd"])


def test_slopes_at_limits_where_clamp_stops_gradients(monkeypatch):
    monkeypatch.setattr(pieces, "CLAMP_PASSES", False)
    inside, at_limit = torch.tensor([False, False, True]), torch.tensor([False, True, False])
    assert pieces._slope_of_limit(inside, at_limit, 1.0).tolist() == [0, 0, 1]
    assert pieces._slope_of_limit(inside, at_limit, torch.ones(())).tolist() == [0, 0.5, 1]
