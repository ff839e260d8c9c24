"""Small networks of StyleGAN2, and losses that need two orders of their gradients."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from gan_engine import models
from gan_engine.models.stylegan2 import Config

SMALL = Config(resolution=32, z_dim=8, w_dim=8, mapping_layers=2, channel_base=256, channel_max=16)
SKIP_AND_RESIDUAL = pytest.mark.parametrize("architecture", ["skip", "residual"])


def build(config=SMALL, **changes):
    torch.manual_seed(0)
    return models.build(dataclasses.replace(config, **changes))


def of(architecture, **changes):
    return build(architecture=architecture, d_architecture=architecture, **changes)


def autocast(dtype):
    return torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None)


def r1(D, img):
    """A loss of D with |gradient by the image|^2 in it."""
    img = img.detach().requires_grad_()
    logits = D(img)
    (g,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    return (F.softplus(-logits) + g.square().sum([1, 2, 3])).mean()


def path_length(G, ws):
    """The variance of |gradient of a random projection of the image by ws|."""
    img = G.synthesis(ws)
    generator = torch.Generator(img.device).manual_seed(0)
    y = torch.randn(img.shape, generator=generator, device=img.device, dtype=img.dtype) / img.shape[2]
    (g,) = torch.autograd.grad((img * y).sum(), ws, create_graph=True)
    lengths = (g.square().sum(2).mean(1) + 1e-12).sqrt()
    return (lengths - 0.1).square().mean()
