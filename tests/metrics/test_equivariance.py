"""EQ-T: its formula on generators that move as they should, or by too much; and of two families through `evaluate`."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from gan_engine.data import ImageSet
from gan_engine.evaluate import Options, evaluate
from gan_engine.metrics.equivariance import translation_equivariance
from gan_engine.metrics.scores import more_is_better
from gan_engine.models import stylegan2, stylegan3
from tests.metrics.test_scores import noise_set, saved


class Waves(nn.Module):
    """A plane wave with its phase from w. It moves as it should, times `slip`. `glued` noise stays on the pixels."""

    def __init__(self, slip=1.0, glued=0.0, sides=(32, 32)):
        super().__init__()
        self.config = stylegan2.Config(resolution=32 if sides == (32, 32) else sides, z_dim=1)
        self.sides = sides
        self.weight = nn.Parameter(torch.zeros(()))
        self.slip, self.glued = slip, glued

    def ws(self, z, c=None):
        return z[:, None].double()

    def synthesis(self, ws, *, translation=None):
        t = torch.zeros(len(ws), 2).double() if translation is None else self.slip * translation
        height, width = self.sides
        x, y = (torch.arange(n).double() / n - t[:, i : i + 1] for i, n in enumerate((width, height)))
        img = (2 * math.pi * (2 * x[:, None, :] + 3 * y[:, :, None]) + ws).sin()[:, None]
        noise = torch.randn(height, width, generator=torch.Generator().manual_seed(0)).double()
        return img + self.glued * noise


def test_images_that_move_as_they_should_have_no_limit():
    for sides in ((32, 32), (24, 32), (64, 48)):
        assert translation_equivariance(Waves(sides=sides), 20, seed=0, batch=7) > 250  # rounding in float64, or inf


def test_noise_that_stays_counts_twice():
    """|n(p) - n(p - t)|^2 is 2 glued^2 on average, so EQ-T is 10 log10(4 / (2 glued^2))."""
    found = translation_equivariance(Waves(glued=0.1), 400, seed=0)
    assert found == pytest.approx(10 * math.log10(4 / 0.02), abs=0.3)


def test_images_that_do_not_move_are_as_far_off_as_their_waves():
    """The mean of (sin a - sin b)^2 is 1 - cos(a - b), and over uniform t in a square 1 - sinc(1 / 2) sinc(3 / 4)."""
    found = translation_equivariance(Waves(slip=0), 400, seed=0)
    assert found == pytest.approx(10 * math.log10(4 / (1 - np.sinc(1 / 2) * np.sinc(3 / 4))), abs=0.4)


def test_the_constant_of_stylegan2_moves_by_whole_samples_and_back():
    move = lambda x, *by: stylegan2._moved(x, torch.tensor([by], dtype=torch.float64))  # noqa: E731
    for h, w in ((4, 4), (3, 4), (6, 5), (4, 7)):
        const = torch.randn(1, 3, h, w, dtype=torch.float64)
        torch.testing.assert_close(move(const, 1 / w, -2 / h), const.roll((-2, 1), (2, 3)))
        if h % 2:  # such samples hold no frequency of half the rate
            torch.testing.assert_close(move(move(const, 0, 0.1), 0, -0.1), const)
    const = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    smooth = move(const, 0.125, 0) + move(const, -0.125, 0)  # holds no frequency of half the rate along x
    torch.testing.assert_close(move(move(smooth, 0.1, 0), -0.1, 0), smooth)


def test_stylegan3_moves_better_than_stylegan2(tmp_path):
    sizes = {"z_dim": 8, "w_dim": 8, "channel_base": 512, "channel_max": 8}
    found = {}
    for preset in ("stylegan2_32", "stylegan3_t_64"):
        images = noise_set(12, 32, 3)
        (tmp_path / preset).mkdir()
        path, data = saved(tmp_path / preset, ImageSet(images.name, images.images), preset, **sizes)
        found |= {preset: evaluate(Options(path, data=data, num=8, batch=4, metrics="eqt"))}
        assert list(found[preset]) == ["eqt_dB N=8"] and more_is_better("eqt_dB N=8")
    two, three = (row["eqt_dB N=8"] for row in found.values())
    assert three > two + 15 and three > 50


def test_classes_are_drawn():
    config = dataclasses.replace(stylegan3.Config(resolution=16, z_dim=8, w_dim=8, channel_base=64), c_dim=2)
    G = stylegan3.Generator(config).eval()
    assert math.isfinite(translation_equivariance(G, 4, seed=0, classes=[0, 1, 0, 1], batch=3))
