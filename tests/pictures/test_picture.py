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
    with pytest.raises(ValueError, match=r"C 1, 3 or 4, got \[2, 5, 8, 8\]"):
        grid(torch.zeros(2, 5, 8, 8))
