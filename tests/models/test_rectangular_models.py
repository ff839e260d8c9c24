"""Families that make rectangles: where they begin, their shapes and gradients, and what is refused by all families."""

import dataclasses

import pytest
import torch
from torch.nn.functional import softplus

from gan_engine import models
from gan_engine.config import Config
from gan_engine.losses.penalties import backward_with_penalty
from gan_engine.models.doublings import nominal, split
from gan_engine.presets import PRESETS
from tests.losses.conftest import level_2_for_small_networks as level_2_for_small_networks
from tests.training.runs import RECTANGLES


@pytest.mark.parametrize(
    ("resolution", "want"),
    [
        *((2**n, (4, 4, n - 2)) for n in range(3, 11)),
        ((48, 64), (3, 4, 4)),
        ((64, 48), (4, 3, 4)),
        ((64, 96), (4, 6, 4)),
        ((96, 64), (6, 4, 4)),
        ((64, 128), (4, 8, 4)),
        ((24, 32), (3, 4, 3)),
        ((40, 24), (5, 3, 3)),
        ((56, 64), (7, 8, 3)),
        ((768, 1280), (3, 5, 8)),
    ],
)
def test_images_begin_with_the_fewest_pixels_of_at_least_three_a_side(resolution, want):
    assert split(resolution) == want and nominal(resolution) == 4 << want[2]


def test_every_family_that_can_make_rectangles_is_tested():
    tested = {models.family(config.model) for config in RECTANGLES.values()}
    square = set()
    for name, preset in PRESETS.items():
        model = preset().model
        try:
            dataclasses.replace(model, resolution=(64, 96))
        except ValueError as error:
            assert "resolution: want one number for this family, whose sides are equal, got 64x96" in str(error), name
            square.add(models.family(model))
        except TypeError:
            square.add(models.family(model))  # points have no resolution
    assert square == {"stylegan3", "lapgan", "gan3d", "points"} and tested == models.FAMILIES.keys() - square


def inputs(config, num=2):
    if models.capabilities(config).from_noise:
        return (torch.randn(num, config.z_dim), *((torch.eye(config.c_dim)[:num],) if config.c_dim else ()))
    scale = getattr(config, "scale", 1)
    return (torch.rand(num, config.source_channels, *(side // scale for side in config.resolution)) * 2 - 1,)


@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("name", RECTANGLES)
def test_images_and_logits(name, turned):
    config = RECTANGLES[name].model
    if turned:
        config = dataclasses.replace(config, resolution=config.resolution[::-1])
    torch.manual_seed(0)
    G, D = models.build(config)
    x = inputs(config)
    img = G(*x)
    assert img.shape == (2, config.channels, *config.resolution)
    logits = D(img, *(x if models.family(config) in ("pix2pix", "srgan") else x[1:]))
    assert logits.shape[0] == 2 and logits.isfinite().all()


@pytest.mark.parametrize("name", ["dcgan", "stylegan2", "r3gan", "sagan", "cgan", "vanilla"])
def test_gradients_of_penalties_are_those_of_autograd(name):
    config = RECTANGLES[name].model
    config = dataclasses.replace(config, **{"d_norm": False} if name == "dcgan" else {})
    torch.manual_seed(0)
    D = models.build(config)[1].eval().double()
    img, c = torch.rand(3, config.channels, *config.resolution).double(), inputs(config, 3)[1:]
    found = []
    for level in (None, "autograd"):  # None is level 2, where D allows it
        D.zero_grad()
        c_of_D = c[0].double() if c else None
        logits, penalty = backward_with_penalty(D, img, softplus, gamma=3.0, c=c_of_D, level=level)
        found.append({"logits": logits, "penalty": penalty} | {k: p.grad for k, p in D.named_parameters()})
    torch.testing.assert_close(*found)


def test_feature_maps_are_those_of_the_square_that_doubles_as_often():
    for name in ("dcgan", "cgan", "r3gan", "stylegan2", "sngan", "sagan"):
        config = RECTANGLES[name].model
        square = dataclasses.replace(config, resolution=nominal(config.resolution))
        pairs = zip(models.build(config), models.build(square), strict=True)
        for ours, theirs in pairs:
            kept = [(a.shape, b.shape) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)]
            assert sum(a != b for a, b in kept) <= 2  # where the first maps of G begin, and where the last of D end
    config = models.sngan.Config(resolution=(48, 64), attention=16)
    shapes = []
    G, _ = models.build(config)
    G.attention.register_forward_hook(lambda module, args, output: shapes.append(args[0].shape[2:]))
    G(torch.randn(1, config.z_dim))
    assert shapes == [(12, 16)]


@pytest.mark.parametrize(
    ("name", "resolution", "want"),
    [
        (
            "stylegan2",
            (720, 1280),
            "resolution: want a power of two from 8 to 1024, or two numbers from 3 to 16, both times one power of two "
            "from 2 to 256, got 720x1280; 768x1280 is near",
        ),
        ("dcgan", (720, 1280), "both times one power of two from 4 to 64, got 720x1280"),
        ("dcgan", (6, 8), "both times one power of two from 4 to 64, got 6x8"),
        ("dcgan", (0, 64), "got 0x64"),
        ("dcgan", (32, 32), r"resolution: want 32 for a square, got \(32, 32\)"),
        ("dcgan", (32.0, 48), "resolution: want a whole number or a tuple of 2 numbers, got "),
        ("upsample_gan", (24, 36), "resolution: want two multiples of 8 from 16 to 256, got 24x36"),
        ("upsample_gan", (24, 264), "resolution: want two multiples of 8 from 16 to 256, got 24x264"),
        ("pix2pix", (40, 64), "resolution: want two multiples of 16 from 32 to 1024, got 40x64"),
        ("pix2pix", (32, 1040), "resolution: want two multiples of 16 from 32 to 1024, got 32x1040"),
        ("cyclegan", (28, 64), "resolution: want two multiples of 4, at least 32, got 28x64"),
        ("srgan", (40, 64), "resolution: want two multiples of 16, at least 32, got 40x64"),
        ("vanilla", (0, 4), r"resolution: want at least 1, got \(0, 4\)"),
    ],
)
def test_sides_that_a_family_cannot_have(name, resolution, want):
    with pytest.raises(ValueError, match=want):
        dataclasses.replace(RECTANGLES[name].model, resolution=resolution)


def test_the_preset_of_stylegan2_counts_pixels():
    square, wide = PRESETS["stylegan2"](64, "cpu"), PRESETS["stylegan2"]((32, 128), "cpu")
    assert isinstance(wide, Config) and wide.model.resolution == (32, 128)
    assert wide == dataclasses.replace(square, model=wide.model)


def test_a_unet_halves_while_both_sides_are_even():
    def config(resolution):
        return models.pix2pix.Config(resolution=resolution)

    assert [len(config(sides).widths) for sides in (256, (256, 512), (288, 512), (48, 64), (96, 64))] == [8, 8, 5, 4, 5]
