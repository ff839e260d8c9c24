"""The values of an image after each transform: colours, frequencies, noise and cutout by their formulas."""

import colorsys
import math

import pytest
import scipy.ndimage
import torch

from gan_engine.augment import Ada, draw, values


def test_colours_are_those_of_the_formula_pixel_by_pixel(images):
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
    # Little of the gains of the others is left in the middle of a band, at 0, 3/16 pi, 3/8 pi and pi.
    middle = row[[0, 12, 24, 64]]
    torch.testing.assert_close(middle, g[0], rtol=0.25, atol=0)


@pytest.mark.parametrize("size", [12, (10, 16)])
def test_an_equalized_image_is_the_convolution_of_its_mirrored_self(size, images):
    x, g = images(2, 3, size, torch.float64), draw.band_gains(2, 1.0)
    y = values.equalize(x, g)
    for n in range(2):
        taps = (g[n, :, None] * values.bands()).sum(0).numpy()
        want = x[n].numpy()
        for axis in (1, 2):
            want = scipy.ndimage.convolve1d(want, taps, axis, mode="mirror")
        torch.testing.assert_close(y[n], torch.from_numpy(want))


def test_gains_keep_the_expected_power():
    g = draw.band_gains(1000, 0.5)
    power = torch.tensor(draw.SPECTRUM, dtype=torch.float64)
    # The power is exact if one of the four is drawn; then t = (t_i, 1, 1, 1) / root, of which t_i is the odd one out.
    for i in range(4):
        alone = ((g != g[:, [i - 1]]).sum(1) == 1) & (g[:, i] != g[:, i - 1])
        assert alone.sum() > 20
        kept = (power * g[alone].square()).sum(1) / power.sum()
        torch.testing.assert_close(kept, torch.ones_like(kept))


def test_noise_has_a_half_normal_deviation(images):
    x = images(2000, 3, 8)
    added = Ada("noise", p=1)(x) - x
    sigma = added.flatten(1).std(1)
    assert added.mean().abs() < 1e-3
    assert sigma.mean() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.06)
    assert sigma.square().mean().sqrt() == pytest.approx(0.1, rel=0.06)


def test_cutout_leaves_half_the_width_and_height_out_somewhere(images):
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
