"""Images count for the classes that they belong to, and for none where that cannot be told."""

import torch

from gan_engine.data import ImageSet
from gan_engine.training.classes import Classes


def points(places, labels, num):
    """Points of `num` classes around (10 p, 10 p), ten times as wide along (1, -1) as across."""
    along, across = torch.randn(2, len(labels), generator=torch.Generator().manual_seed(0))
    found = (10.0 * places + 0.1 * across)[:, None] + along[:, None] * torch.tensor([1.0, -1.0])
    return ImageSet("points", found, labels, tuple("abcdefghij"[:num]))


def test_a_point_counts_for_the_nearest_class_by_its_covariance_and_an_implausible_one_for_none():
    labels = torch.arange(600) % 2
    found = Classes(points(labels, labels, 3), lambda img: img)
    assert found.known.tolist() == [True, True, False]  # the third class has no points
    assert torch.allclose(found.expected, torch.tensor([0.45, 0.45, 0.0]), atol=0.04)
    near = torch.tensor([[0.0, 0.0], [1.0, -1.0], [10.0, 10.0], [10.1, 9.9]])
    far = torch.tensor([[5.0, 5.0], [1.0, 1.0], [20.0, 20.0], [40.0, -40.0]])  # (1, 1) is across
    assert found.count(near).tolist() == [2, 2, 0]
    assert found.count(far).tolist() == [0, 0, 0]


def test_classes_that_overlap_are_not_known():
    labels = torch.arange(600) % 4
    assert Classes(points(labels.clamp(max=2), labels, 4), lambda img: img).known.tolist() == [True, True, False, False]


def test_more_features_than_points_are_no_reason_to_know_a_class():
    labels, rng = torch.arange(40) % 2, torch.Generator().manual_seed(0)
    found = Classes(points(labels, labels, 2), lambda img: torch.randn(len(img), 100, generator=rng))
    assert not found.known.any() and found.expected.isfinite().all()
    constant = Classes(points(labels, labels, 2), lambda img: torch.ones(len(img), 3))
    assert not constant.known.all()
