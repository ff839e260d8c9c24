"""Blits copy pixels, and warps are the filtered interpolation of the formula."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from gan_engine.augment import Ada, draw, geometry

EYE = torch.eye(3, dtype=torch.float64)


def one(*rows):
    return torch.tensor(rows, dtype=torch.float64)[None]


def turn(quarters):
    """Quarter turns as `torch.rot90` counts them: from the y axis, which points down, to the x axis."""
    return geometry.rotate(torch.tensor([-quarters * math.pi / 2], dtype=torch.float64))


@pytest.mark.parametrize("size", [5, 16])
def test_blits_copy_pixels(size, images):
    x = images(1, size=size)
    assert torch.equal(geometry.blit(x, one([-1, 0, 0], [0, 1, 0], [0, 0, 1])), x.flip(3))
    for quarters in range(4):
        assert torch.equal(geometry.blit(x, turn(quarters)), x.rot90(quarters, (2, 3)))
    for dx, dy in ((2, -1), (-2, 0), (0, 2)):
        padded = torch.nn.functional.pad(x, [2] * 4, mode="reflect")
        want = padded[:, :, 2 - dy : 2 - dy + size, 2 - dx : 2 - dx + size]
        assert torch.equal(geometry.blit(x, one([1, 0, dx], [0, 1, dy], [0, 0, 1])), want)


def test_every_blit_is_a_flip_a_turn_and_a_shift(images):
    x = images(100, 1)
    y = Ada("blit", p=1)(x)
    seen = set()
    for before, after in zip(x, y, strict=True):
        for flipped in (False, True):
            for quarters in range(4):
                turned = (before.flip(2) if flipped else before).rot90(quarters, (1, 2))
                padded = torch.nn.functional.pad(turned, [2] * 4, mode="reflect")
                for dx in range(5):
                    for dy in range(5):
                        if torch.equal(padded[:, dy : dy + 16, dx : dx + 16], after):
                            seen.add((flipped, quarters, (dx, dy)))
                            break
    flips, turns, shifts = (set(each) for each in zip(*seen, strict=True))
    assert flips == {False, True} and turns == {0, 1, 2, 3} and len(shifts) == 25


@pytest.mark.parametrize("size", [(5, 8), (6, 16), (7, 3)])
def test_rectangles_are_flipped_turned_by_halves_and_shifted_by_a_share_of_each_side(size, images):
    x, n = images(400, 1, size), 400
    h, w = size
    for quarters in (0, 2):
        assert torch.equal(geometry.blit(x, turn(quarters).expand(n, 3, 3)), x.rot90(quarters, (2, 3)))
    torch.manual_seed(3)
    G = draw.blits(n, size, 1.0)
    torch.manual_seed(3)
    y = Ada("blit", p=1)(x)
    assert torch.equal(y, geometry.blit(x, G))
    assert not G[:, 0, 1].any() and not G[:, 1, 0].any()
    assert {tuple(signs) for signs in G[:, (0, 1), (0, 1)].tolist()} == {(1, 1), (-1, 1), (1, -1), (-1, -1)}
    assert [G[:, i, 2].abs().max().item() for i in (0, 1)] == [round(w / 8), round(h / 8)]
    torch.manual_seed(3)
    wide = draw.warpings(n, (8, 24), 1.0)
    torch.manual_seed(3)
    square = draw.warpings(n, (8, 8), 1.0)
    assert torch.equal(wide[:, :2, :2], square[:, :2, :2])
    torch.testing.assert_close(wide[:, :2, 2], square[:, :2, 2] * torch.tensor([3.0, 1.0]))


@pytest.mark.parametrize("size", [1, 2, 5, 32])
def test_the_identity_warps_nothing(size, images):
    x = images(2, size=size, dtype=torch.float64)
    torch.testing.assert_close(geometry.warp(x, EYE.expand(2, 3, 3)), x, rtol=0, atol=1e-6)


def test_the_filter_of_the_warp_is_orthonormal_and_has_six_vanishing_moments():
    h = np.array(geometry.SYM6)
    for shift in range(6):
        assert h[2 * shift :] @ h[: 12 - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-11)
    for moment in range(6):
        assert np.sum((-1.0) ** np.arange(12) * np.arange(-5.5, 6) ** moment * h) == pytest.approx(0, abs=1e-6)


def slow_warp(x, G):
    """One channel x [H, W], on numpy: mirror images all around, np.convolve, scipy's interpolation."""
    h, (height, width), pad = np.array(geometry.SYM6), x.shape, 3 * len(x)
    centroid = (np.arange(12) * h).sum() / h.sum()  # pixel i comes to lie at 2 i + centroid of the convolution
    large = np.pad(x, pad, mode="reflect")
    for axis in (0, 1):
        stuffed = np.insert(large, np.arange(1, large.shape[axis] + 1), 0, axis)
        large = np.apply_along_axis(np.convolve, axis, stuffed, h * 2**0.5)
    out = (np.arange(-2, 2 * size + 14) for size in (width, height))  # one tap more on either side than is read
    places = ((i - centroid) / 2 - (size - 1) / 2 for i, size in zip(out, (width, height), strict=True))
    px, py = np.meshgrid(*places)
    source = np.linalg.inv(G) @ np.stack([px.ravel(), py.ravel(), np.ones(px.size)])
    at = 2 * (source[1::-1] + (np.array(x.shape)[:, None] - 1) / 2 + pad) + centroid
    v = scipy.ndimage.map_coordinates(large, at, order=1).reshape(px.shape)
    taps = h / 2**0.5
    rows = np.stack([sum(taps[k] * v[2 * i + k + 2] for k in range(12)) for i in range(height)])
    return np.stack([sum(taps[k] * rows[:, 2 * i + k + 2] for k in range(12)) for i in range(width)], 1)


def matrix(s, ratio, degrees, dx, dy):
    s, ratio, angle, dx, dy = (torch.tensor([float(v)], dtype=torch.float64) for v in (s, ratio, degrees, dx, dy))
    G = geometry.rotate(angle.deg2rad()) @ geometry.scale(s * ratio, s / ratio)
    return geometry.translate(dx, dy) @ G


@pytest.mark.parametrize("size", [16, (20, 16)])
@pytest.mark.parametrize("case", [(2, 1, 30, 0, 0), (1.8, 1.1, -75, 1.3, -0.6), (2.5, 0.8, 170, -2.25, 3)])
def test_a_warp_is_that_of_the_slow_computation(case, size, images):
    x, G = images(1, 1, size, torch.float64), matrix(*case)
    want = slow_warp(x[0, 0].numpy(), G[0].numpy())
    torch.testing.assert_close(geometry.warp(x, G)[0, 0], torch.from_numpy(want), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", [(1, 1, 0, 0.5, 0.25), (0.7, 1, 30, 0, 0), (0.5, 1.3, 110, 5, -7), (1, 1, 0, 12, 0)])
def test_a_warp_mirrors_the_image_outside(case, images):
    # The filter is not symmetric, so that the mirror image of what was filtered is not quite that of the image.
    x = torch.nn.functional.interpolate(images(1, 1, 8, torch.float64), scale_factor=4, mode="bicubic")
    G = matrix(*case)
    want = torch.from_numpy(slow_warp(x[0, 0].numpy(), G[0].numpy()))
    got = geometry.warp(x, G)[0, 0]
    assert (got - want).abs().max() < 0.15 and (got - want).square().mean().sqrt() < 0.01


def test_a_warp_by_a_quarter_turn_is_one_of_pixels(images):
    x = torch.nn.functional.interpolate(images(1, 3, 6, torch.float64), scale_factor=4, mode="bicubic")
    for quarters in range(4):
        error = geometry.warp(x, turn(quarters)) - x.rot90(quarters, (2, 3))
        assert error.square().mean().sqrt() < 0.01


def test_images_that_are_only_blitted_are_not_filtered(images):
    x = images(300)
    torch.manual_seed(2)
    y = Ada("bg", p=0.2)(x)
    torch.manual_seed(2)
    moves, warps = draw.blits(300, (16, 16), 0.2), draw.warpings(300, (16, 16), 0.2)
    still = (warps == EYE).all(2).all(1)
    assert 50 < still.sum() < 250
    assert torch.equal(y[still], geometry.blit(x[still], moves[still]))
    torch.testing.assert_close(y[~still], geometry.warp(x[~still], (warps @ moves)[~still]))


def test_warps_are_spread_as_in_the_paper():
    n = 20000
    G = draw.warpings(n, (100, 100), 1.0)
    log_scale = G[:, :2, :2].det().log2() / 2
    assert log_scale.mean().abs() < 0.006 and log_scale.std() == pytest.approx(0.2, rel=0.02)
    ratio = torch.linalg.svdvals(G[:, :2, :2])
    # |N(0, 0.2)| has the mean 0.2 sqrt(2 / pi)
    assert (ratio[:, 0] / ratio[:, 1]).log2().div(2).mean() == pytest.approx(0.2 * math.sqrt(2 / math.pi), rel=0.03)
    assert G[:, :2, 2].std() == pytest.approx(12.5, rel=0.02)
    G = draw.warpings(n, (100, 100), 0.5)
    turned = ((G[:, 0, 1] != 0) | (G[:, 1, 0] != 0)).double().mean()
    assert turned == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / n))
