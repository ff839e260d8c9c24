"""PSNR and SSIM against numbers known by hand and against scipy's filters."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from gan_engine.metrics.similarity import luma, psnr, ssim


def test_luma_is_that_of_television():
    img = torch.tensor([[-1.0, -1, -1], [1, 1, 1], [1, -1, -1]])[:, :, None, None]
    assert luma(img).flatten().tolist() == pytest.approx([16, 235, 16 + 219 * 0.299])


def test_psnr_of_a_known_difference():
    a = torch.zeros(2, 1, 8, 8)
    b = a + torch.tensor([2 / 219, 20 / 219])[:, None, None, None]  # 1 and 10 steps of luma
    want = [20 * np.log10(255), 20 * np.log10(25.5)]
    assert psnr(a, b).tolist() == pytest.approx(want, rel=1e-6)
    b[..., 0] = 1
    assert psnr(a, b, border=1).tolist() == pytest.approx(want, rel=1e-6)


def test_ssim_is_that_of_its_paper():
    rng = np.random.default_rng(0)
    x, y = rng.random((2, 24, 30))
    images = (torch.from_numpy(each)[None, None] * 2 - 1 for each in (x, y))
    x, y = 16 + 219 * x, 16 + 219 * y

    def mean(values):
        return gaussian_filter(values, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    mx, my, c1, c2 = mean(x), mean(y), 2.55**2, 7.65**2
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    want = ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert ssim(*images).item() == pytest.approx(want, rel=1e-9)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"want images of one shape, got \[1, 1, 8, 8\] and \[1, 1, 8, 9\]"):
        psnr(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 9))
    with pytest.raises(ValueError, match=r"ssim: want at least 11x11 pixels without the border, got \[10, 10\]"):
        ssim(torch.zeros(1, 1, 12, 12), torch.zeros(1, 1, 12, 12), border=1)
