"""Mixtures of Gaussians as data: where the points lie, who takes them, and what keeps their precision."""

import pytest
import torch

from gan_engine.data import DataConfig, DataError, Sampler, describe, held_out, load
from gan_engine.data.gaussians import MIXTURES


def points(name, **options):
    return load(DataConfig(name), resolution=1, channels=2, kind="points", **options)


@pytest.mark.parametrize(
    ("name", "num", "sd", "nearest", "farthest"),
    [("toy:ring", 8, 0.02, 4 * 0.38268343, 4.0), ("toy:grid", 25, 0.05, 2.0, 8 * 2**0.5)],
)
def test_points_lie_around_the_centres_as_the_field_has_them(name, num, sd, nearest, farthest):
    data, centres = points(name), MIXTURES[name].centres
    apart = torch.pdist(centres.double())
    assert len(centres) == num and apart.min() == pytest.approx(nearest) and apart.max() == pytest.approx(farthest)
    assert data.images.shape == (100_000, 2) and data.images.dtype == torch.float32
    assert centres.mean(0).abs().max() < 1e-6
    off = data.images - centres[data.labels]
    assert off.std(0) == pytest.approx([sd, sd], rel=0.02) and off.mean(0).abs().max() < 0.001
    counts = data.labels.bincount(minlength=num)
    assert counts.min() > 0.9 * 100_000 / num
    assert len(set(data.class_names)) == num and describe(data) == f"{name}: 100,000 points, {num} classes, 0.8 MB"


def test_names_of_classes_are_the_centres():
    assert points("toy:ring").class_names[:3] == ("(2, 0)", "(1.41, 1.41)", "(0, 2)")
    assert points("toy:grid").class_names[:2] == ("(-4, -4)", "(-4, -2)")


def test_a_set_with_a_name_is_always_the_same_and_toy_follows_the_seed():
    assert points("toy:grid", seed=1).sha256 == points("toy:grid", seed=2).sha256
    assert points("toy", seed=1).sha256 != points("toy", seed=2).sha256
    assert points("toy", seed=0).sha256 == points("toy:ring").sha256


def test_batches_are_the_points_themselves():
    data = points("toy:ring")
    sampler = Sampler(data, 1000, seed=3)
    sampler.labels = None
    img, c = next(sampler)
    assert c is None and img.dtype == torch.float32
    assert torch.isin(img.view(torch.int64), data.images.view(torch.int64)).all()  # x and y, bit for bit


def test_points_can_be_held_out():
    data = points("toy:ring")
    learnt, unseen = held_out.split(data, 100, seed=0)
    assert len(learnt) == 99_900 and unseen.images.shape == (100, 2) and unseen.labels.shape == (100,)
    assert not torch.isin(unseen.images.view(torch.int64), learnt.images.view(torch.int64)).any()


@pytest.mark.parametrize(
    ("source", "kind", "channels", "message"),
    [
        ("toy:ring", "image", 1, "data: want toy, a folder, .*, got toy:ring, which holds points"),
        ("fashion-mnist", "points", 2, "want toy, toy:ring or toy:grid, got fashion-mnist, which holds single images"),
        ("/", "points", 2, "data: want toy, toy:ring or toy:grid, got /"),
        ("toy:square", "points", 2, "data: want toy, toy:ring or toy:grid, got toy:square"),
        ("", "points", 2, "data: want one of toy, .*, toy:ring or toy:grid, got ''"),
        ("toy:ring", "points", 3, "channels must be 2 for points, got 3"),
        ("toy:ring", "image", 2, r"channels must be 1 \(grey\), 3 \(RGB\) or 4 \(RGBA\), got 2"),
        ("toy:rnig", "image", 1, "no such name .*did you mean toy:ring"),
    ],
)
def test_other_data_and_other_families_are_refused(source, kind, channels, message):
    with pytest.raises(DataError, match=message):
        load(DataConfig(source), resolution=16, channels=channels, kind=kind)


def test_points_of_another_type_are_refused():
    data = points("toy:ring")
    with pytest.raises(DataError, match=r"or points float32 \[N, 2\], got torch.float64 \[100000, 2\]"):
        type(data)("mine", data.images.double())
