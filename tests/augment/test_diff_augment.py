"""DiffAugment: each transform by its formula, twice differentiable."""

import torch

from gan_engine.augment import diff_augment


def test_an_empty_policy_is_none(images):
    x = images()
    assert diff_augment(x, "") is x


def test_diff_augment_colours_by_its_formula(images):
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


def test_diff_augment_translates_with_zeros(images):
    x = images(300)[:, :, :, :8]
    y = diff_augment(x, "translation")
    seen = set()
    for before, after in zip(x, y, strict=True):
        padded = torch.nn.functional.pad(before, [1, 1, 2, 2])
        fits = [(i, j) for i in range(5) for j in range(3) if torch.equal(padded[:, i : i + 16, j : j + 8], after)]
        assert len(fits) == 1
        seen |= set(fits)
    assert len(seen) == 15


def test_diff_augment_cuts_a_square_of_half_the_image_out(images):
    y = diff_augment(images(200) + 2, "cutout")
    gone = (y == 0).all(1)
    assert gone.any(2).sum(1).max() == gone.any(1).sum(1).max() == 8 and gone.flatten(1).sum(1).min() >= 16


def test_gradients_of_two_orders_of_diff_augment(images):
    def function(x):
        torch.manual_seed(3)
        return diff_augment(x).square()

    x = images(2, 3, 4, torch.float64)[:, :, :, :3].requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)
