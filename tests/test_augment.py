"""Each transform does what its formula says, to as many images as it should, and can be differentiated twice."""

import colorsys
import copy
import dataclasses
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from torch import nn

from gan_engine import augment, checkpoint, models
from gan_engine.augment import PIPES, Ada, Augmented, ada, diff_augment, draw, geometry, values
from gan_engine.config import Config
from gan_engine.data import DataConfig, load
from gan_engine.monitors import read_metrics
from gan_engine.trainer import Trainer

GROUPS = ada.GROUPS
EYE = torch.eye(3, dtype=torch.float64)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def images(n=8, channels=3, size=16, dtype=torch.float32):
    return torch.rand(n, channels, size, size, dtype=dtype) * 2 - 1


def one(*rows):
    return torch.tensor(rows, dtype=torch.float64)[None]


def turn(quarters):
    """Quarter turns as `torch.rot90` counts them: from the y axis, which points down, to the x axis."""
    return geometry.rotate(torch.tensor([-quarters * math.pi / 2], dtype=torch.float64))


# All groups


@pytest.mark.parametrize("groups", [*PIPES, *GROUPS, "cutout,blit"])
def test_nothing_happens_at_p_0(groups):
    x = images(64)
    assert torch.equal(Ada(groups, p=0)(x), x)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("groups", ["bgcfnc", *GROUPS])
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_shape_dtype_and_layout_are_kept(groups, n, channels, p):
    for dtype in (torch.float32, torch.bfloat16):
        x = images(n, channels).to(dtype).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            y = Ada(groups, p=p)(x)
        assert y.shape == x.shape and y.dtype == dtype and y.stride() == x.stride() and y.isfinite().all()


def test_autocast_does_not_reach_the_transforms():
    x = images()
    for transform in (Ada("bgcf", p=1), diff_augment):
        torch.manual_seed(1)
        want = transform(x)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(transform(x), want)


P = 0.3
TOUCHED = {
    "blit": 1 - (1 - P / 2) * (1 - 3 / 4 * P) * (1 - 15 / 16 * P),  # 1 / 16: |shift| < 1/2 of at most 2 pixels, twice
    "geometry": 1 - (1 - P) ** 4,
    "color": 1 - (1 - P) ** 4 * (1 - P / 2),
    "filter": 1 - (1 - P) ** 4,
    "noise": P,
    "cutout": P,
}


@pytest.mark.parametrize("group", GROUPS)
def test_as_many_images_are_touched_as_p_says(group):
    x = images(2000)
    touched = (Ada(group, p=P)(x) != x).flatten(1).any(1)
    share, n = TOUCHED[group], len(x)
    assert abs(touched.sum() - n * share) < 4 * math.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_two_orders(group, p, channels):
    def function(x):
        torch.manual_seed(3)
        return Ada(group, p=p)(x).square()

    x = images(2, channels, 4, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_gradients_of_two_orders_of_diff_augment():
    def function(x):
        torch.manual_seed(3)
        return diff_augment(x).square()

    x = images(2, 3, 4, torch.float64)[:, :, :, :3].requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_penalties_through_the_augmentation_are_those_of_the_image_before_it():
    D = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.Softplus(), nn.Linear(8, 1), nn.Flatten(0)).double()
    seen = Augmented(lambda img, c: D(img), Ada("bgcf", p=0.7))
    x = images(4, dtype=torch.float64).requires_grad_()
    # A difference quotient of the gradients by D's weights, with the same transforms.
    v, eps = torch.randn_like(D[1].weight), 1e-6

    def penalty(sign):
        moved = copy.deepcopy(D)
        moved[1].weight.data += sign * eps * v
        torch.manual_seed(5)
        (g,) = torch.autograd.grad(moved(seen.augment(x)).sum(), x)
        return g.square().sum()

    torch.manual_seed(5)
    (g,) = torch.autograd.grad(seen(x).sum(), x, create_graph=True)
    g.square().sum().backward()
    torch.testing.assert_close((D[1].weight.grad * v).sum(), (penalty(1) - penalty(-1)) / (2 * eps), rtol=1e-5, atol=0)


def test_refusals_say_what_is_wanted():
    for wrong in ("bcg", "blit,warp", ""):
        with pytest.raises(ValueError, match=f"Ada: groups must be one of b, bg, .*, got '{wrong}'"):
            Ada(wrong)
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"Ada: p must lie in .* got {p}"):
            Ada(p=p)
    for shape in ((1, 3, 4, 5), (1, 2, 4, 4), (3, 4, 4)):
        with pytest.raises(ValueError, match=r"Ada: img must be \[N, C, H, W\] with H = W and C 1 or 3, got"):
            Ada()(torch.zeros(shape))
    with pytest.raises(ValueError, match="diff_augment: policy must be of color, translation, cutout, got 'colour'"):
        diff_augment(images(), "colour,cutout")
    with pytest.raises(ValueError, match=r"diff_augment: img must be \[N, C, H, W\], got \[3, 4, 4\]"):
        diff_augment(torch.zeros(3, 4, 4))


# Blits and warps


@pytest.mark.parametrize("size", [5, 16])
def test_blits_copy_pixels(size):
    x = images(1, size=size)
    assert torch.equal(geometry.blit(x, one([-1, 0, 0], [0, 1, 0], [0, 0, 1])), x.flip(3))
    for quarters in range(4):
        assert torch.equal(geometry.blit(x, turn(quarters)), x.rot90(quarters, (2, 3)))
    for dx, dy in ((2, -1), (-2, 0), (0, 2)):
        padded = torch.nn.functional.pad(x, [2] * 4, mode="reflect")
        want = padded[:, :, 2 - dy : 2 - dy + size, 2 - dx : 2 - dx + size]
        assert torch.equal(geometry.blit(x, one([1, 0, dx], [0, 1, dy], [0, 0, 1])), want)


def test_every_blit_is_a_flip_a_turn_and_a_shift():
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


@pytest.mark.parametrize("size", [1, 2, 5, 32])
def test_the_identity_warps_nothing(size):
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
    h, size, pad = np.array(geometry.SYM6), len(x), 3 * len(x)
    centroid = (np.arange(12) * h).sum() / h.sum()  # pixel i comes to lie at 2 i + centroid of the convolution
    large = np.pad(x, pad, mode="reflect")
    for axis in (0, 1):
        stuffed = np.insert(large, np.arange(1, large.shape[axis] + 1), 0, axis)
        large = np.apply_along_axis(np.convolve, axis, stuffed, h * 2**0.5)
    out = np.arange(-2, 2 * size + 14)  # one tap more on either side than is read
    place = (out - centroid) / 2 - (size - 1) / 2
    px, py = np.meshgrid(place, place)
    source = np.linalg.inv(G) @ np.stack([px.ravel(), py.ravel(), np.ones(px.size)])
    at = 2 * (source[1::-1] + (size - 1) / 2 + pad) + centroid
    v = scipy.ndimage.map_coordinates(large, at, order=1).reshape(px.shape)
    taps = h / 2**0.5
    rows = np.stack([sum(taps[k] * v[2 * i + k + 2] for k in range(12)) for i in range(size)])
    return np.stack([sum(taps[k] * rows[:, 2 * i + k + 2] for k in range(12)) for i in range(size)], 1)


def matrix(s, ratio, degrees, dx, dy):
    s, ratio, angle, dx, dy = (torch.tensor([float(v)], dtype=torch.float64) for v in (s, ratio, degrees, dx, dy))
    G = geometry.rotate(angle.deg2rad()) @ geometry.scale(s * ratio, s / ratio)
    return geometry.translate(dx, dy) @ G


@pytest.mark.parametrize("case", [(2, 1, 30, 0, 0), (1.8, 1.1, -75, 1.3, -0.6), (2.5, 0.8, 170, -2.25, 3)])
def test_a_warp_is_that_of_the_slow_computation(case):
    x, G = images(1, 1, 16, torch.float64), matrix(*case)
    want = slow_warp(x[0, 0].numpy(), G[0].numpy())
    torch.testing.assert_close(geometry.warp(x, G)[0, 0], torch.from_numpy(want), rtol=0, atol=1e-6)


@pytest.mark.parametrize("case", [(1, 1, 0, 0.5, 0.25), (0.7, 1, 30, 0, 0), (0.5, 1.3, 110, 5, -7), (1, 1, 0, 12, 0)])
def test_a_warp_mirrors_the_image_outside(case):
    # The filter is not symmetric, so that the mirror image of what was filtered is not quite that of the image.
    x = torch.nn.functional.interpolate(images(1, 1, 8, torch.float64), scale_factor=4, mode="bicubic")
    G = matrix(*case)
    want = torch.from_numpy(slow_warp(x[0, 0].numpy(), G[0].numpy()))
    got = geometry.warp(x, G)[0, 0]
    assert (got - want).abs().max() < 0.15 and (got - want).square().mean().sqrt() < 0.01


def test_a_warp_by_a_quarter_turn_is_one_of_pixels():
    x = torch.nn.functional.interpolate(images(1, 3, 6, torch.float64), scale_factor=4, mode="bicubic")
    for quarters in range(4):
        error = geometry.warp(x, turn(quarters)) - x.rot90(quarters, (2, 3))
        assert error.square().mean().sqrt() < 0.01


def test_images_that_are_only_blitted_are_not_filtered():
    x = images(300)
    torch.manual_seed(2)
    y = Ada("bg", p=0.2)(x)
    torch.manual_seed(2)
    moves, warps = draw.blits(300, 16, 0.2), draw.warpings(300, 16, 0.2)
    still = (warps == EYE).all(2).all(1)
    assert 50 < still.sum() < 250
    assert torch.equal(y[still], geometry.blit(x[still], moves[still]))
    torch.testing.assert_close(y[~still], geometry.warp(x[~still], (warps @ moves)[~still]))


def test_warps_are_spread_as_in_the_paper():
    n = 20000
    G = draw.warpings(n, 100, 1.0)
    log_scale = G[:, :2, :2].det().log2() / 2
    assert log_scale.mean().abs() < 0.006 and log_scale.std() == pytest.approx(0.2, rel=0.02)
    ratio = torch.linalg.svdvals(G[:, :2, :2])
    # |N(0, 0.2)| has the mean 0.2 sqrt(2 / pi)
    assert (ratio[:, 0] / ratio[:, 1]).log2().div(2).mean() == pytest.approx(0.2 * math.sqrt(2 / math.pi), rel=0.03)
    assert G[:, :2, 2].std() == pytest.approx(12.5, rel=0.02)
    G = draw.warpings(n, 100, 0.5)
    turned = ((G[:, 0, 1] != 0) | (G[:, 1, 0] != 0)).double().mean()
    assert turned == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / n))


# Colours


def test_colours_are_those_of_the_formula_pixel_by_pixel():
    x, C = images(4, 3, 3, torch.float64), draw.colors(4, 1.0)
    y = values.recolor(x, C)
    for n in range(4):
        for i in range(3):
            for j in range(3):
                want = C[n] @ torch.cat([x[n, :, i, j], torch.ones(1, dtype=torch.float64)])
                torch.testing.assert_close(y[n, :, i, j], want[:3])
                assert want[3] == 1
    grey = x.mean(1, keepdim=True)
    torch.testing.assert_close(values.recolor(grey, C), values.recolor(grey.expand(-1, 3, -1, -1), C).mean(1, True))


def test_each_colour_transform_alone(monkeypatch):
    rgb = torch.tensor([0.7, 0.2, -0.3], dtype=torch.float64)

    def alone(index, value):
        """The colour after the transform of that place in the order, with `value` drawn, and no other."""
        calls = iter(range(5))

        def gated(p, values, neutral):
            return torch.full(values.shape, float(value if next(calls) == index else neutral), dtype=torch.float64)

        monkeypatch.setattr(draw, "gated", gated)
        return values.recolor(rgb.view(1, 3, 1, 1), draw.colors(1, 1.0)).flatten()

    mean = rgb.mean()
    torch.testing.assert_close(alone(0, 0.1), rgb + 0.1)
    torch.testing.assert_close(alone(1, 1.5), rgb * 1.5)
    torch.testing.assert_close(alone(2, 1), rgb - 2 * mean)
    torch.testing.assert_close(alone(3, 2 * math.pi / 3), rgb.roll(1))  # red becomes green
    torch.testing.assert_close(alone(4, 0.4), mean + 0.4 * (rgb - mean))
    hue = alone(3, 0.3)
    assert hue.mean() == pytest.approx(float(mean)) and hue.norm() == pytest.approx(float(rgb.norm()))
    assert colorsys.rgb_to_hsv(*(hue - hue.min()).tolist())[0] > colorsys.rgb_to_hsv(*(rgb - rgb.min()).tolist())[0]


def test_colours_are_spread_as_in_the_paper():
    C = draw.colors(20000, 1.0)
    v, u = (torch.tensor(t, dtype=torch.float64) for t in ([1.0, 1, 1], [1.0, -1, 0]))
    contrast = (C[:, :3, :3] @ v).mean(1)
    assert (contrast < 0).double().mean() == pytest.approx(0.5, abs=0.015)  # mirrored
    assert contrast.abs().log2().std() == pytest.approx(0.5, rel=0.02)
    brightness = C[:, :3, 3].mean(1) / contrast
    assert brightness.std() == pytest.approx(0.2, rel=0.02)
    saturation = (C[:, :3, :3] @ u).norm(dim=1) / u.norm() / contrast.abs()
    assert saturation.log2().std() == pytest.approx(1, rel=0.02)


# Frequencies, noise, cutout


def test_gains_are_those_of_the_frequency_response():
    filters = values.bands()
    torch.testing.assert_close(filters.sum(0), torch.eye(43, dtype=torch.float64)[21], rtol=0, atol=1e-15)
    assert torch.equal(filters, filters.flip(1)) or torch.allclose(filters, filters.flip(1), rtol=0, atol=1e-16)
    size, g = 128, torch.tensor([[0.5, 2.0, 1.5, 3.0]], dtype=torch.float64)
    x = torch.zeros(1, 1, size, size, dtype=torch.float64)
    x[:, :, 64, 64] = 1
    response = torch.fft.fft2(values.equalize(x, g)[0, 0]).abs()
    taps = (g[0, :, None] * filters).sum(0)
    row = torch.fft.fft(taps, size).abs()
    torch.testing.assert_close(response, row.outer(row), rtol=0, atol=1e-10)
    # In the middle of a band, at 0, 3/16 pi, 3/8 pi and pi, little of the gains of the others is left.
    middle = row[[0, 12, 24, 64]]
    torch.testing.assert_close(middle, g[0], rtol=0.25, atol=0)


def test_an_equalized_image_is_the_convolution_of_its_mirrored_self():
    x, g = images(2, 3, 12, torch.float64), draw.gains(2, 1.0)
    y = values.equalize(x, g)
    for n in range(2):
        taps = (g[n, :, None] * values.bands()).sum(0).numpy()
        want = x[n].numpy()
        for axis in (1, 2):
            want = scipy.ndimage.convolve1d(want, taps, axis, mode="mirror")
        torch.testing.assert_close(y[n], torch.from_numpy(want))


def test_gains_keep_the_expected_power():
    g = draw.gains(1000, 0.5)
    power = torch.tensor(draw.SPECTRUM, dtype=torch.float64)
    # With one of the four drawn, exactly; then t = (t_i, 1, 1, 1) / root, of which t_i is the odd one out.
    for i in range(4):
        alone = ((g != g[:, [i - 1]]).sum(1) == 1) & (g[:, i] != g[:, i - 1])
        assert alone.sum() > 20
        kept = (power * g[alone].square()).sum(1) / power.sum()
        torch.testing.assert_close(kept, torch.ones_like(kept))


def test_noise_has_a_half_normal_deviation():
    x = images(2000, 3, 8)
    added = Ada("noise", p=1)(x) - x
    sigma = added.flatten(1).std(1)
    assert added.mean().abs() < 1e-3
    assert sigma.mean() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.06)
    assert sigma.square().mean().sqrt() == pytest.approx(0.1, rel=0.06)


def test_cutout_leaves_half_the_width_and_height_out_somewhere():
    x = images(500, 3, 16) + 2
    y = Ada("cutout", p=1)(x)
    gone = (y == 0).all(1)
    assert torch.equal(y == 0, gone[:, None].expand(-1, 3, -1, -1))
    assert torch.equal(y.where(y != 0, 0), x.where(~gone[:, None], 0))
    rows, columns = gone.any(2), gone.any(1)
    assert torch.equal(gone, rows[:, :, None] & columns[:, None])
    for side in (rows, columns):
        assert side.sum(1).max() == 8 and side.sum(1).min() == 4  # centre at the edge: half of it is outside
        assert (side.sum(1) == 8).double().mean() == pytest.approx(0.5, abs=0.1)
    low = values.rectangle(torch.tensor([0.0, 0.5, 0.99]), 8)
    assert [row.nonzero()[:, 0].tolist() for row in low] == [[0, 1], [2, 3, 4, 5], [6, 7]]


# The controller


def test_p_rises_falls_and_stays_in_its_bounds():
    control = Ada(adjust_kimg=1, target=0.6, interval=4)
    curve = []
    for step in range(80):
        # r_t is 1, then 0.5, and at the end the target itself
        control.observe(torch.tensor([1.0, 2.0, 3.0, 1.0] if step < 40 else [0.1, 5.0, 1.0, -9.0]))
        control.update(32)
        curve.append(control.p)
    assert curve[:3] == [0, 0, 0] and curve[3] == curve[6] == pytest.approx(0.128)
    assert curve[7] == pytest.approx(0.256)
    assert curve[35] == curve[39] == 1  # 8 steps of 0.128 on
    assert curve[43] == pytest.approx(1 - 0.128) and curve[-1] == 0
    control.p = 0.5
    control.target = 0.5
    for _ in range(4):
        control.observe(torch.tensor([1.0, 1.0, 1.0, -1.0]))
        control.update(32)
    assert control.p == 0.5


def test_the_controller_takes_500_kimg_from_0_to_1_at_any_batch_size():
    for batch_size in (8, 100):
        control = Ada()
        for _ in range(0, 250_000, batch_size):
            control.observe(torch.ones(1))
            control.update(batch_size)
        assert control.p == pytest.approx(0.5, abs=0.001)


def test_the_controller_goes_on_from_its_state(tmp_path):
    def steps(control, first, last):
        for step in range(first, last):
            control.observe(torch.tensor([math.sin(5.0 * step), 1.0]))
            control.update(10)

    whole, first, second = (Ada(adjust_kimg=0.5, target=0.2) for _ in range(3))
    steps(whole, 0, 22)
    steps(first, 0, 10)
    checkpoint.save(tmp_path / "ada.pt", first.state_dict())
    second.load_state_dict(checkpoint.load(tmp_path / "ada.pt"))
    steps(second, 10, 22)
    assert second.p == whole.p > 0 and second.state_dict() == whole.state_dict()


# DiffAugment


def test_an_empty_policy_is_none():
    x = images()
    assert diff_augment(x, "") is x


def test_diff_augment_colours_by_its_formula():
    x = images(500, dtype=torch.float64)
    y = diff_augment(x, "color")
    grey_x, grey_y = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    mean_x, mean_y = x.mean((1, 2, 3), keepdim=True), y.mean((1, 2, 3), keepdim=True)
    contrast = ((grey_y - mean_y) / (grey_x - mean_x)).flatten(1)
    saturation = ((y - grey_y) / (x - grey_x)).flatten(1) / contrast.median(1, keepdim=True).values
    brightness = (mean_y - mean_x).flatten()
    for name, drawn, low, high in (
        ("contrast", contrast, 0.5, 1.5),
        ("saturation", saturation, 0, 2),
        ("brightness", brightness[:, None], -0.5, 0.5),
    ):
        assert (drawn - drawn[:, :1]).abs().max() < 1e-6 * 1e3, name  # one for an image
        assert low <= drawn[:, 0].min() < low + 0.02 * (high - low), name
        assert high - 0.02 * (high - low) < drawn[:, 0].max() <= high, name


def test_diff_augment_translates_with_zeros():
    x = images(300)[:, :, :, :8]
    y = diff_augment(x, "translation")
    seen = set()
    for before, after in zip(x, y, strict=True):
        padded = torch.nn.functional.pad(before, [1, 1, 2, 2])
        fits = [(i, j) for i in range(5) for j in range(3) if torch.equal(padded[:, i : i + 16, j : j + 8], after)]
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) == 15


def test_diff_augment_cuts_a_square_of_half_the_image_out():
    y = diff_augment(images(200) + 2, "cutout")
    gone = (y == 0).all(1)
    assert gone.any(2).sum(1).max() == gone.any(1).sum(1).max() == 8 and gone.flatten(1).sum(1).min() >= 16


# In training

CONFIG = Config(
    preset="dcgan",
    model=models.dcgan.Config(resolution=16, z_dim=8, width=4),
    data="toy",
    batch_size=16,
    kimg=0.16,
    precision="fp32",
    metrics_kimg=0.032,
    checkpoint_kimg=0.032,
    tensorboard=False,
)
# p rises at every step of the controller, by 0.64 and then to 1.
RISING = dataclasses.replace(CONFIG, augment="ada", ada_target=-1.0, ada_kimg=0.1, ada_groups="bgcfnc")


@pytest.fixture
def make(tmp_path):
    data = load(DataConfig("toy"), resolution=16, channels=1)

    def trainer(config, **changes):
        config = dataclasses.replace(config, **changes)
        return Trainer(config, data, device=torch.device("cpu"), run_dir=tmp_path / "run")

    return trainer


def test_every_image_that_D_sees_is_augmented(make, monkeypatch):
    monkeypatch.setattr("gan_engine.trainer.diff_augment", lambda img: img * 0 + 7)
    for kind in ("diffaugment", "none"):
        trainer, given = make(CONFIG, augment=kind), []
        trainer.D.register_forward_pre_hook(lambda module, args, given=given: given.append(args[0]))
        trainer.step()
        assert len(given) == 3  # generated and real in the phase of D, generated in that of G
        assert [bool((img == 7).all()) for img in given] == [kind != "none"] * 3


@pytest.mark.parametrize("kind", ["ada", "diffaugment"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_augmentation(make, kind, precision):
    trainer = make(RISING, augment=kind, precision=precision)
    assert trainer.run() is None
    rows = read_metrics(trainer.run_dir)
    assert all(math.isfinite(value) for row in rows for value in row.values())
    if kind == "ada":
        assert [row["ada/p"] for row in rows] == [0, 0.64, 0.64, 1, 1]
        assert all(-1 <= row["ada/r_t"] <= 1 for row in rows)
    else:
        assert "ada/p" not in rows[-1]


def test_gradients_reach_G_through_the_augmentation(make):
    for kind in ("ada", "diffaugment"):
        trainer = make(RISING, augment=kind)
        if trainer.ada is not None:
            trainer.ada.p = 1.0
        trainer.step()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trainer.G.parameters())


@pytest.mark.parametrize("kind", ["ada", "diffaugment"])
def test_penalties_through_the_augmentation_equal_those_of_autograd(make, kind):
    curves = {}
    for level in (1, "autograd"):
        trainer = make(RISING, augment=kind, r1_gamma=1.0)
        assert trainer.objective.level == 1
        assert trainer.penalties() == "r1 1; level 1, as level 2 does not hold for D: its images are augmented"
        trainer.objective.level = level
        curves[level] = []
        for _ in range(6):  # p rises from 0 on the way
            trainer.step()
            means = trainer.means.read()
            curves[level].append([means[name] for name in sorted(means) if name.startswith("loss/")])
    for ours, plain in zip(*curves.values(), strict=True):
        assert ours == pytest.approx(plain, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("kind", ["ada", "diffaugment"])
@pytest.mark.parametrize("at", [3, 4, 6])
def test_a_resumed_run_with_augmentation_equals_an_uninterrupted_one(make, kind, at):
    whole = make(RISING, augment=kind)
    for _ in range(9):
        whole.step()
    first = make(RISING, augment=kind)
    for _ in range(at):
        first.step()
    path = checkpoint.Keeper(first.run_dir, keep=1).save(first.nimg, first.state_dict())
    second = make(RISING, augment=kind)
    torch.rand(5)
    second.load_state_dict(checkpoint.load(path))
    for _ in range(at, 9):
        second.step()
    for name in ("G", "D", "G_ema"):
        for a, b in zip(getattr(whole, name).state_dict().values(), getattr(second, name).state_dict().values()):
            assert torch.equal(a, b)
    assert whole.means.read() == second.means.read()
    if kind == "ada":
        assert second.ada.p == 1 and second.ada.state_dict() == whole.ada.state_dict()


def test_a_checkpoint_without_the_state_of_ada_is_refused(make):
    state = make(RISING).state_dict()
    del state["processes"][0]["ada"]
    with pytest.raises(checkpoint.CheckpointError, match="want a checkpoint of a training with ada"):
        make(RISING).load_state_dict(state)
    assert "ada" not in make(CONFIG).state_dict()["processes"][0]


def test_the_half_life_of_the_moving_average_ramps_up(make):
    trainer = make(CONFIG, ema_kimg=0.05, ema_rampup=0.1)
    trainer.step()
    for a, b in zip(trainer.G.parameters(), trainer.G_ema.parameters(), strict=True):
        assert torch.equal(a, b)  # no images before: a half-life of 0
    start = copy.deepcopy(trainer.G_ema)
    for nimg, half_life in ((320, 32), (5000, 50)):
        trainer.nimg = nimg
        trainer.G_ema.load_state_dict(start.state_dict())
        with torch.no_grad():
            for p in trainer.G.parameters():
                p += 1
        trainer._average()
        beta = 0.5 ** (16 / half_life)
        for a, b, ema in zip(start.parameters(), trainer.G.parameters(), trainer.G_ema.parameters(), strict=True):
            torch.testing.assert_close(ema, beta * a + (1 - beta) * b)


def test_the_picture_of_the_transforms(tmp_path):
    from gan_engine.augment.__main__ import Options, main

    main(Options(out=tmp_path / "a.png", data="toy", resolution=16, channels=3, num=3))
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (96 + 3 * 66 + 2, 8 * 68)


def test_what_the_package_names_exists():
    assert all(hasattr(augment, name) for name in augment.__all__)
