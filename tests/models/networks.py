"""Small generators of every family, as training might have left them."""

import dataclasses

import torch
from torch import nn

from gan_engine import models
from tests.training.runs import DCGAN, FAMILIES, MLP, NUM_CLASSES, STYLEGAN2

UPSAMPLE = dataclasses.replace(
    DCGAN, model=models.upsample_gan.Config(resolution=16, z_dim=8, width=8, d_width=4, c_dim=NUM_CLASSES)
)
CLASSES = dataclasses.replace(DCGAN, model=dataclasses.replace(DCGAN.model, c_dim=NUM_CLASSES))
RUNS = {"dcgan": DCGAN, "dcgan with classes": CLASSES, "upsample_gan": UPSAMPLE, "vanilla": MLP, "stylegan2": STYLEGAN2}
RUNS |= FAMILIES


def build(name):
    """G of a run in eval mode, none of whose weights and statistics is what it begins with, and its arguments."""
    config = RUNS[name].model
    torch.manual_seed(0)
    G = models.build(config)[0].eval()
    with torch.no_grad():
        for p in G.parameters():
            if p.max() == p.min():
                p.normal_(0.5, 0.3)
        for module in G.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.5, 2)
    c = (torch.eye(config.c_dim)[[0, 1, 2]],) if config.c_dim else ()
    if not models.capabilities(config).from_noise:
        side = config.resolution // getattr(config, "scale", 1)
        return G, (torch.rand(3, config.source_channels, side, side),)
    return G, (torch.randn(3, config.z_dim), *c)
