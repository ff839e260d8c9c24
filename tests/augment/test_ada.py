"""Ada: each group does its work on as many images as it should, twice differentiable, and the controller moves p."""

import copy
import math

import pytest
import torch
from PIL import Image
from torch import nn

from gan_engine import augment
from gan_engine.augment import PIPES, Ada, Augmented, ada, diff_augment
from gan_engine.system import checkpoint

GROUPS = ada.GROUPS


@pytest.mark.parametrize("groups", [*PIPES, *GROUPS, "cutout,blit"])
def test_nothing_happens_at_p_0(groups, images):
    x = images(64)
    assert torch.equal(Ada(groups, p=0)(x), x)


@pytest.mark.parametrize("size", [16, (12, 20), (18, 6)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("groups", ["bgcfnc", *GROUPS])
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_shape_dtype_and_layout_are_kept(groups, n, channels, p, size, images):
    for dtype in (torch.float32, torch.bfloat16):
        x = images(n, channels, size).to(dtype).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            y = Ada(groups, p=p)(x)
        assert y.shape == x.shape and y.dtype == dtype and y.stride() == x.stride() and y.isfinite().all()


def test_autocast_does_not_reach_the_transforms(images):
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
def test_as_many_images_are_touched_as_p_says(group, images):
    x = images(2000)
    touched = (Ada(group, p=P)(x) != x).flatten(1).any(1)
    share, n = TOUCHED[group], len(x)
    assert abs(touched.sum() - n * share) < 4 * math.sqrt(n * share * (1 - share))


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("p", [0.5, 1.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_of_two_orders(group, p, channels, images):
    def function(x):
        torch.manual_seed(3)
        return Ada(group, p=p)(x).square()

    x = images(2, channels, 4, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_penalties_through_the_augmentation_are_those_of_the_image_before_it(images):
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


def test_refusals_say_what_is_wanted(images):
    for wrong in ("bcg", "blit,warp", ""):
        with pytest.raises(ValueError, match=f"Ada: groups must be one of b, bg, .*, got '{wrong}'"):
            Ada(wrong)
    for p in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"Ada: p must lie in .* got {p}"):
            Ada(p=p)
    for shape in ((1, 2, 4, 4), (3, 4, 4)):
        with pytest.raises(ValueError, match=r"Ada: img must be \[N, C, H, W\] with C 1, 3 or 4, got"):
            Ada()(torch.zeros(shape))
    with pytest.raises(ValueError, match="diff_augment: policy must be of color, translation, cutout, got 'colour'"):
        diff_augment(images(), "colour,cutout")
    with pytest.raises(ValueError, match=r"diff_augment: img must be \[N, C, H, W\], got \[3, 4, 4\]"):
        diff_augment(torch.zeros(3, 4, 4))


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


# The package


def test_the_picture_of_the_transforms(tmp_path):
    from gan_engine.augment.__main__ import main

    asked = f"--out {tmp_path / 'a.png'} --data toy --resolution 16 --channels 3 --num 3"
    assert main(asked.split()) == 0
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (96 + 3 * 66 + 2, 8 * 68)
    assert main([*asked.split(), "--resolution", "16x32"]) == 0
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.size == (96 + 3 * 66 + 2, 8 * 36)


def test_what_the_package_names_exists():
    assert all(hasattr(augment, name) for name in augment.__all__)
