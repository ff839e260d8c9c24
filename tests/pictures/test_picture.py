"""Pictures have the values of the images that they show."""

import math

import numpy as np
import pytest
import torch

from gan_engine.pictures.picture import grid


def test_colours_and_limits():
    images = torch.tensor([[-1.0, 0.2, 3.0], [math.nan, -7.0, 1.0]])[:, :, None, None].expand(2, 3, 100, 80)
    sheet = np.asarray(grid(images))
    assert sheet.shape == (104, 166, 3)
    assert sheet[50, 40].tolist() == [0, 153, 255]
    assert sheet[50, 120].tolist() == [0, 0, 255]
    with pytest.raises(ValueError, match=r"N > 0 and C > 0, got \[2, 0, 8, 8\]"):
        grid(torch.zeros(2, 0, 8, 8))


@pytest.mark.parametrize(("channels", "shown"), [(2, 1), (5, 3)])
def test_bands_show_their_first_channels(channels, shown):
    images = torch.linspace(-1, 1, channels)[None, :, None, None].expand(1, -1, 64, 64)
    assert grid(images).tobytes() == grid(images[:, :shown]).tobytes()
