"""Volumes: their shapes, the sizes of the paper, what a picture shows of them, and their surfaces."""

import importlib.util
from collections import Counter

import numpy as np
import pytest
import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.models import gan3d
from gan_engine.pictures.volumes import render, surface, write_obj


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

needs_mcubes = pytest.mark.skipif(
    importlib.util.find_spec("mcubes") is None, reason="PyMCubes is not installed: it has no wheels for this Python"
)


def sphere(r):
    """r - |x| in a volume of 16x16x16 voxels, in voxels"""
    at = np.arange(16) + 0.5 - 8
    return r - np.sqrt(at[:, None, None] ** 2 + at[:, None] ** 2 + at**2)


@needs_mcubes
@pytest.mark.parametrize("name", ["one voxel", "a sphere", "a full volume"])
def test_a_surface_is_closed(name):
    """Each edge is that of two triangles, which run along it in opposite directions."""
    volume = {"one voxel": np.ones((1, 1, 1)), "a sphere": sphere(5), "a full volume": np.ones((4, 5, 6))}[name]
    vertices, triangles = surface(volume)
    found = Counter((a, b) for triangle in triangles.tolist() for a, b in zip(triangle, triangle[1:] + triangle[:1]))
    assert all(count == 1 and found[b, a] == 1 for (a, b), count in found.items())
    assert len(vertices) - len(found) / 2 + len(triangles) == 2  # Euler: the surface of one solid without holes


@needs_mcubes
def test_any_surface_has_as_many_triangles_on_each_side_of_an_edge():
    _, triangles = surface(np.random.default_rng(0).normal(size=(6, 6, 6)))
    found = Counter((a, b) for triangle in triangles.tolist() for a, b in zip(triangle, triangle[1:] + triangle[:1]))
    assert len(triangles) > 100 and all(found[b, a] == count for (a, b), count in found.items())


@needs_mcubes
def test_a_surface_is_where_the_volume_crosses_0():
    vertices, triangles = surface(sphere(5))
    assert np.abs(np.linalg.norm(vertices - 8, axis=1) - 5).max() < 0.05
    # The divergence theorem: triangles that look outwards enclose the volume, less what chords cut off.
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    assert (np.cross(b - a, c - a) * (a + b + c)).sum() / 18 == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.03)
    vertices, _ = surface(np.ones((4, 5, 6)))
    assert np.array_equal(vertices.min(0), [0, 0, 0]) and np.array_equal(vertices.max(0), [4, 5, 6])


@needs_mcubes
def test_an_obj_has_the_surface(tmp_path, monkeypatch):
    write_obj(tmp_path / "a.obj", sphere(5))
    lines = [line.split() for line in (tmp_path / "a.obj").read_text().splitlines()]
    vertices, triangles = surface(sphere(5))
    assert np.allclose([[float(n) for n in line[1:]] for line in lines if line[0] == "v"], vertices / 16, atol=1e-5)
    assert [[int(n) - 1 for n in line[1:]] for line in lines if line[0] == "f"] == triangles.tolist()
    for mask in (sphere(5) > 0, (sphere(5) > 0).astype(np.uint8)):
        with pytest.raises(ValueError, match=f"want a volume with values below 0 where it is empty, got {mask.dtype}"):
            surface(mask)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="want PyMCubes, and it is not installed; pip install PyMCubes"):
        surface(sphere(5))
