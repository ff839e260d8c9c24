"""Volumes: their shapes, the sizes of the paper, what a picture shows of them, and their surfaces."""

from collections import Counter

import numpy as np
import pytest
import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.models import gan3d
from gan_engine.volumes import render, surface, write_obj


def ball(side, radius, centre=(0, 0, 0)):
    """Volume [1, 1, side, side, side], of half a side 1"""
    axis = (torch.arange(side) + 0.5) * (2 / side) - 1
    x, y, z = (axis.view(-1, *[1] * i) - at for i, at in zip((2, 1, 0), centre))
    return (x**2 + y**2 + z**2 < radius**2).float()[None, None] * 2 - 1


@pytest.mark.parametrize("c_dim", [0, 6])
@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
def test_shapes_range_and_gradients(resolution, c_dim):
    torch.manual_seed(0)
    G, D = models.build(gan3d.Config(resolution=resolution, width=2, c_dim=c_dim))
    c = torch.eye(6)[:2] if c_dim else None
    img = G(torch.randn(2, 200), c)
    assert img.shape == (2, 1, resolution, resolution, resolution) and img.abs().max() <= 1
    logits = D(img, c)
    assert logits.shape == (2,)
    logits.sum().backward()
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        assert p.grad is not None and p.grad.isfinite().all(), name


def test_gan3d_is_that_of_the_paper():
    """200 -> 512x4^3 -> 256x8^3 -> 128x16^3 -> 64x32^3 -> 64^3, kernels of 4^3 (arXiv:1610.07584, figure 1)"""
    config = gan3d.Config(resolution=64, width=64)
    assert config.widths == [512, 256, 128, 64]
    G, D = models.build(config)
    kernels = [200 * 512, 512 * 256, 256 * 128, 128 * 64, 64]
    assert sum(p.numel() for p in G.parameters()) == 64 * sum(kernels) + 2 * sum(config.widths) + 1
    assert [type(m).__name__ for m in D.modules()].count("Conv3d") == 5


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda: gan3d.Config(resolution=48), "resolution: want a power of two from 16 to 128, got 48"),
        (lambda: gan3d.Config(width=0), "width: want at least 1, got 0"),
        (lambda: Config("gan3d", gan3d.Config(), augment="ada"), "augment: want none for gan3d, .*, got ada"),
    ],
)
def test_wrong_sizes_are_refused(make, want):
    with pytest.raises(ValueError, match=want):
        make()


# Pictures


def test_a_ball_is_a_disc_that_is_brightest_above():
    picture = render(ball(32, 0.8))[0, 0]
    shape = picture < 1
    assert picture.shape == (64, 64) and picture.abs().max() <= 1
    for mirrored in (shape.flip(0), shape.flip(1), shape.mT):
        assert (shape ^ mirrored).sum() < 0.05 * shape.sum()
    assert shape.sum().item() == pytest.approx(np.pi * (0.8 / 1.5 * 32) ** 2, rel=0.07)  # corners stand out
    assert picture[16:24, 28:36].mean() > picture[40:48, 28:36].mean() + 0.2


def test_what_is_nearer_hides_what_is_behind_it():
    towards = np.array([-np.sin(np.pi / 6), np.tan(np.radians(25)), np.cos(np.pi / 6)]) * 0.5
    near, behind = ball(32, 0.3, towards), ball(32, 0.2, -towards)
    both = torch.maximum(near, behind)
    assert torch.equal(render(both), render(near))
    assert not torch.equal(render(both), render(behind))


def test_y_is_upwards_and_nothing_is_white():
    assert render(-torch.ones(2, 1, 16, 16, 16)).eq(1).all()
    low, high = (render(ball(32, 0.2, (0, y, 0)))[0, 0] for y in (-0.6, 0.6))
    assert (low[:32] == 1).all() and (high[32:] == 1).all()


# Surfaces


def edges(faces):
    return Counter((a, b) for face in faces.tolist() for a, b in zip(face, [*face[1:], face[0]]))


@pytest.mark.parametrize("name", ["one voxel", "a ball", "a full volume"])
def test_a_surface_is_closed(name):
    """Each edge is that of two faces, which run along it in opposite directions."""
    volume = {"one voxel": np.eye(1)[None], "a ball": ball(16, 0.7)[0, 0].numpy(), "a full volume": np.ones((4, 5, 6))}
    occupied = volume[name] > 0
    vertices, faces = surface(occupied)
    found = edges(faces)
    assert all(count == 1 and found[b, a] == 1 for (a, b), count in found.items())
    assert len(vertices) - len(found) / 2 + len(faces) == 2  # Euler: the surface of one solid without holes
    # The divergence theorem: faces that look outwards enclose the volume.
    a, b, c, d = vertices[faces].astype(float).transpose(1, 0, 2)
    assert (np.cross(c - a, d - b) / 2 * (a + c) / 2).sum() / 3 == pytest.approx(occupied.sum())


def test_any_surface_has_as_many_faces_on_each_side_of_an_edge():
    found = edges(surface(np.random.default_rng(0).random((6, 6, 6)) < 0.5)[1])
    assert all(found[b, a] == count for (a, b), count in found.items())


def test_an_obj_has_the_surface(tmp_path):
    occupied = ball(8, 0.7)[0, 0].numpy() > 0
    write_obj(tmp_path / "a.obj", occupied)
    lines = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    vertices, faces = surface(occupied)
    assert np.allclose([[float(n) for n in line[1:]] for line in lines if line[0] == "v"], vertices / 8)
    assert [[int(n) - 1 for n in line[1:]] for line in lines if line[0] == "f"] == faces.tolist()
