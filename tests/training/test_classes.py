"""Images count for the classes that they belong to, and for none where that cannot be told."""

import pytest
import torch

from gan_engine.data import ImageSet
from gan_engine.training.classes import FURTHEST, NEAREST, Classes


def points(places, labels, num, offset=0.0):
    """Points of `num` classes around (10 p, 10 p) + offset, ten times as wide along (1, -1) as across."""
    along, across = torch.randn(2, len(labels), generator=torch.Generator().manual_seed(0))
    found = (10.0 * places + 0.1 * across)[:, None] + along[:, None] * torch.tensor([1.0, -1.0])
    return ImageSet("points", found + offset, labels, tuple(f"class {k}" for k in range(num)))


def of(img):
    return img.flatten(1)


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_point_counts_for_the_nearest_class_by_its_covariance_and_an_implausible_one_for_none(offset):
    labels = torch.arange(600) % 2
    found = Classes(points(labels, labels, 3, offset), of)
    assert found.known.tolist() == [True, True, False]  # the third class has no points
    share = (FURTHEST - NEAREST) / 2
    assert torch.allclose(found.expected, torch.tensor([share, share, 0.0]), atol=0.04)
    near = torch.tensor([[0.5, -0.5], [1.0, -1.0], [10.5, 9.5], [9.0, 11.0]])
    far = torch.tensor([[5.0, 5.0], [1.0, 1.0], [20.0, 20.0], [40.0, -40.0]])  # (1, 1) is across
    assert found.count(near + offset).tolist() == [2, 2, 0]
    assert found.count(far + offset).tolist() == [0, 0, 0]


def test_an_image_that_is_nearer_to_the_mean_than_images_are_counts_for_none():
    labels = torch.arange(600) % 2
    noise = 20 * torch.randn(600, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images = (100 + 50 * labels[:, None, None, None] + noise).byte()
    found = Classes(ImageSet("levels", images, labels, ("dark", "bright")), of)
    assert found.count(images.flatten(1)).sum() == pytest.approx((FURTHEST - NEAREST) * 600, rel=0.1)
    means = torch.stack([images[labels == k].float().mean(0).flatten() for k in range(2)])
    assert found.count(means).tolist() == [0, 0]


def test_classes_that_overlap_are_not_known():
    labels = torch.arange(600) % 4
    assert Classes(points(labels.clamp(max=2), labels, 4), of).known.tolist() == [True, True, False, False]


def test_classes_of_few_images_are_not_known_and_hide_no_limit():
    labels = torch.cat([torch.arange(400) % 2, torch.arange(2, 102)])  # a fifth are of classes of one image
    found = Classes(points(labels, labels, 102), of)
    assert found.known.nonzero().flatten().tolist() == [0, 1]
    assert found.count(torch.tensor([[5.0, 5.0], [2000.0, 2000.0]])).sum() == 0
    assert not Classes(points(labels[:1], labels[:1], 2), of).known.any()


def test_more_features_than_points_are_no_reason_to_know_a_class():
    labels, rng = torch.arange(60) % 2, torch.Generator().manual_seed(0)
    found = Classes(points(labels, labels, 2), lambda img: torch.randn(len(img), 100, generator=rng))
    assert not found.known.any() and found.expected.isfinite().all()


def test_equal_features_count_for_no_known_class_but_the_first():
    labels = torch.arange(60) % 2
    found = Classes(points(labels, labels, 2), lambda img: torch.ones(len(img), 3))
    assert found.known.tolist() == [True, False] and found.expected.tolist() == [1, 0]
