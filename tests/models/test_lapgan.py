"""The pyramid takes images apart and puts them together again, and every level is trained as in the paper."""

import pytest
import torch
import torch.nn.functional as F

from gan_engine import models
from gan_engine.losses.adversarial import LOSSES
from gan_engine.losses.objective import Batch
from gan_engine.losses.pyramid import PyramidObjective
from gan_engine.models import lapgan

CONFIG = lapgan.Config(base_z_dim=8, hidden=16, width=4)


@pytest.fixture
def nets():
    torch.manual_seed(0)
    return models.build(CONFIG)


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_details_and_coarse_images_add_up(levels):
    pyramid = lapgan.Pyramid(lapgan.Config(levels=levels))
    img = torch.rand(2, 1, 32, 32) * 2 - 1
    pairs = pyramid(img)
    assert [pair[0].shape[2] for pair in pairs] == [32 >> i for i in range(levels - 1, -1, -1)]
    again = pairs[0][0]
    for image, low in pairs[1:]:
        torch.testing.assert_close(pyramid.up(again), low)
        again = pyramid.up(again) + (image - low)
    torch.testing.assert_close(again, img)


def test_the_filter_is_bilinear_and_black_stays_black():
    pyramid = lapgan.Pyramid(CONFIG)
    img = torch.rand(1, 1, 8, 8) * 2 - 1
    inside = (..., slice(2, -2), slice(2, -2))
    want = F.interpolate(img, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(pyramid.up(img)[inside], want[inside])
    black = torch.full((1, 1, 8, 8), -1.0)
    torch.testing.assert_close(pyramid.up(black), torch.full((1, 1, 16, 16), -1.0))
    torch.testing.assert_close(pyramid.down(black), torch.full((1, 1, 4, 4), -1.0))


def test_noise_is_split_among_the_levels(nets):
    G, _ = nets
    assert CONFIG.z_dims == [8, 16**2, 32**2] and CONFIG.z_dim == 8 + 256 + 1024
    z = torch.randn(1, CONFIG.z_dim)
    img = G.levels[0](z[:, :8], None, None)
    img = G.levels[1](z[:, 8 : 8 + 256], G.pyramid.up(img), None)
    img = G.levels[2](z[:, 8 + 256 :], G.pyramid.up(img), None)
    assert torch.equal(G(z), img)


@pytest.mark.parametrize("loss", ["nonsaturating", "relativistic"])
def test_every_level_plays_its_own_game_on_the_coarse_image_of_a_real_one(nets, loss):
    G, D = nets
    batch = Batch(torch.rand(4, 1, 32, 32) * 2 - 1, torch.randn(4, CONFIG.z_dim), None)
    objective = PyramidObjective(G, D, LOSSES[loss], lambda name, values: None)
    of_D, of_G = objective.discriminator(batch), objective.generator(batch)
    assert list(of_D) == ["D/8", "D/16", "D/32"] and list(of_G) == ["G/8", "G/16", "G/32"]
    half = D.pyramid.down(batch.real_img)
    for k, img in ((1, half), (2, batch.real_img)):
        low = D.pyramid.up(D.pyramid.down(img))
        z = batch.z.split(CONFIG.z_dims, dim=1)[k]
        fake, real = D.levels[k](G.levels[k](z, low, None), low, None), D.levels[k](img, low, None)
        torch.testing.assert_close(of_D[f"D/{CONFIG.sizes[k]}"], LOSSES[loss].discriminator(fake, real))
        torch.testing.assert_close(of_G[f"G/{CONFIG.sizes[k]}"], LOSSES[loss].generator(fake, real))
