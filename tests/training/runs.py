"""Small runs of every family, and what tests ask of trainers."""

import dataclasses
import functools

import torch

from gan_engine import models
from gan_engine.config import Config
from gan_engine.data import DataConfig, load
from gan_engine.training.health import PREFIX, Health

NUM_CLASSES = 5  # of the toy data
CPU = torch.device("cpu")
DCGAN = Config(
    preset="dcgan",
    model=models.dcgan.Config(resolution=16, z_dim=8, width=4),
    data="toy",
    batch_size=16,
    kimg=0.16,
    precision="fp32",
    ema_kimg=0.05,
    metrics_kimg=0.032,
    grid_kimg=0.08,
    checkpoint_kimg=0.032,
    tensorboard=False,
)
MLP = dataclasses.replace(DCGAN, preset="vanilla", model=models.vanilla.Config(resolution=16, z_dim=8, hidden=(16, 16)))
NO_NORM = dataclasses.replace(DCGAN, model=dataclasses.replace(DCGAN.model, d_norm=False))
LAZY = dataclasses.replace(NO_NORM, r1_gamma=1.0, gp_weight=10.0, penalty_interval=2, n_critic=2)

STYLEGAN2 = dataclasses.replace(
    DCGAN,
    preset="stylegan2",
    model=models.stylegan2.Config(
        resolution=16, channels=1, z_dim=8, w_dim=8, mapping_layers=2, channel_base=128, channel_max=16
    ),
    lr=2.5e-3,
    betas=(0.0, 0.99),
)
PATHS = dataclasses.replace(STYLEGAN2, betas=(0.5, 0.99), pl_weight=2.0, pl_interval=2)

STYLEGAN3 = dataclasses.replace(
    STYLEGAN2,
    preset="stylegan3_t_64",
    model=models.stylegan3.Config(
        resolution=16, channels=1, z_dim=8, w_dim=8, channel_base=128, channel_max=16, num_layers=4, margin=4
    ),
)
TURNING = dataclasses.replace(STYLEGAN3, model=dataclasses.replace(STYLEGAN3.model, variant="r", channel_max=8))

R3GAN = dataclasses.replace(
    DCGAN,
    preset="r3gan",
    model=models.r3gan.Config(resolution=16, z_dim=8, width=8, max_width=16, blocks=1, group=4),
    loss="relativistic",
    r1_gamma=1.0,
    r2_gamma=1.0,
)
CGAN = dataclasses.replace(
    DCGAN,
    preset="cgan",
    model=models.cgan.Config(resolution=16, z_dim=8, width=8, max_width=16, class_weight=1.0, c_dim=NUM_CLASSES),
    conditional=True,
)
PENALTIES = {
    "r1": {"r1_gamma": 1.0},
    "r1 and r2": {"r1_gamma": 1.0, "r2_gamma": 2.0, "loss": "hinge"},
    "gp": {"gp_weight": 10.0, "loss": "wasserstein"},
    "r1, lazy": {"r1_gamma": 1.0, "penalty_interval": 3},
}
SNGAN = dataclasses.replace(
    DCGAN,
    preset="sngan",
    model=models.sngan.Config(resolution=16, z_dim=8, width=4, d_width=4, max_width=8, c_dim=NUM_CLASSES),
    conditional=True,
    loss="hinge",
)
SAGAN = dataclasses.replace(SNGAN, model=dataclasses.replace(SNGAN.model, attention=8, g_spectral_norm=True))
LAPGAN = dataclasses.replace(
    DCGAN,
    preset="lapgan",
    model=models.lapgan.Config(resolution=16, base_z_dim=8, hidden=16, width=4, c_dim=NUM_CLASSES),
    conditional=True,
)
PIX2PIX = dataclasses.replace(
    DCGAN,
    preset="pix2pix",
    model=models.pix2pix.Config(resolution=32, width=4, max_width=8, d_width=4),
    batch_size=4,
    lr_decay=0.5,
)
EDGES = dataclasses.replace(PIX2PIX, model=dataclasses.replace(PIX2PIX.model, source="edges", channels=1))
CYCLEGAN = dataclasses.replace(
    DCGAN,
    preset="cyclegan",
    model=models.cyclegan.Config(resolution=32, channels=1, width=4, blocks=1, d_width=4, pool_size=6),
    loss="least_squares",
    batch_size=4,
)
FAMILIES = {
    "stylegan3": STYLEGAN3,
    "stylegan3_r": TURNING,
    "r3gan": R3GAN,
    "cgan": CGAN,
    "sngan": SNGAN,
    "sagan": SAGAN,
    "lapgan": LAPGAN,
}
SRGAN = dataclasses.replace(
    DCGAN,
    preset="srgan",
    model=models.srgan.Config(resolution=32, channels=1, scale=2, width=4, blocks=1, d_width=2),
    batch_size=4,
)
RRDB = dataclasses.replace(SRGAN, model=dataclasses.replace(SRGAN.model, variant="rrdb", growth=2))
PRETRAINED = dataclasses.replace(SRGAN, pretrain_kimg=0.016)
GAN3D = dataclasses.replace(
    DCGAN, preset="gan3d", model=models.gan3d.Config(resolution=16, z_dim=8, width=4, c_dim=6), conditional=True
)
POINTS = dataclasses.replace(DCGAN, preset="ring", model=models.points.Config(z_dim=8, hidden=(16, 16)))
FAMILIES |= {"gan3d": GAN3D, "pix2pix": PIX2PIX, "edges": EDGES, "cyclegan": CYCLEGAN, "srgan": SRGAN, "rrdb": RRDB}
FAMILIES |= {"points": POINTS}


def _of_sides(config, *sides):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, resolution=sides))


RECTANGLES = {
    "vanilla": _of_sides(MLP, 7, 10),
    "dcgan": _of_sides(DCGAN, 12, 16),
    "stylegan2": _of_sides(PATHS, 12, 16),
    "r3gan": _of_sides(R3GAN, 12, 16),
    "cgan": _of_sides(CGAN, 12, 20),
    "sngan": _of_sides(SNGAN, 12, 16),
    "sagan": _of_sides(SAGAN, 12, 16),
    "pix2pix": _of_sides(PIX2PIX, 32, 48),
    "edges": _of_sides(EDGES, 32, 48),
    "cyclegan": _of_sides(CYCLEGAN, 32, 44),
    "srgan": _of_sides(SRGAN, 32, 48),
    "upsample_gan": dataclasses.replace(
        DCGAN,
        preset="upsample_gan",
        model=models.upsample_gan.Config(resolution=(16, 24), channels=1, z_dim=8, width=4, d_width=2),
    ),
}


@functools.cache
def toy(resolution, channels, kind):
    return load(DataConfig("toy"), resolution=resolution, channels=channels, kind=kind)


def weights(trainer):
    nets = {"G": trainer.G, "D": trainer.D, "G_ema": trainer.G_ema}
    return {f"{net}.{k}": v.clone() for net, module in nets.items() for k, v in module.state_dict().items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def collapse_after(monkeypatch, nimg):
    """Let readings say that G draws one image from then on."""

    def read(self, at, means, read=Health.read):
        return read(self, at, means) | {PREFIX + "diversity": 0.05 if at > nimg else 0.8}

    monkeypatch.setattr(Health, "read", read)
