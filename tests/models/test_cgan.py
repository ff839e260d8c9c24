"""How the classes reach D, and what its classifier may know."""

import pytest
import torch

from gan_engine import models
from gan_engine.models import cgan

SIZES = {"z_dim": 8, "width": 4, "max_width": 8, "c_dim": 10}


def build(**options):
    torch.manual_seed(0)
    return models.build(cgan.Config(**SIZES, **options))[1]


@pytest.mark.parametrize(("method", "matters"), [("concat", True), ("projection", True), ("none", False)])
def test_the_class_matters_to_the_logit_by_method(method, matters):
    D = build(method=method, class_weight=0 if method == "concat" else 1)
    img, c = torch.randn(1, 1, 32, 32), torch.eye(10)
    assert torch.equal(D(img, c[:1]), D(img, c[1:2])) != matters


@pytest.mark.parametrize("method", ["projection", "none"])
def test_the_classifier_is_not_told_the_class(method):
    D = build(method=method, class_weight=1)
    img, c = torch.randn(2, 1, 32, 32), torch.eye(10)
    logits, classes = D.logits_and_classes(img, c[:2])
    assert classes.shape == (2, 10)
    torch.testing.assert_close(logits, D(img, c[:2]))
    assert torch.equal(classes, D.logits_and_classes(img, c[2:4])[1])


def test_concat_adds_a_map_for_each_class():
    D = build(method="concat")
    img, c = torch.randn(2, 1, 32, 32), torch.eye(10)[[3, 7]]
    maps = torch.zeros(2, 10, 32, 32)
    maps[0, 3] = maps[1, 7] = 1
    seen = []
    D.convs[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    D(img, c)
    assert torch.equal(seen[0], torch.cat([img, maps], dim=1))
