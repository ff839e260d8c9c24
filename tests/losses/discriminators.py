"""Small discriminators of each usual shape, with the shapes of images for them."""

import torch
from torch import nn

from benchmarks.discriminators import R3GAN, ResNet, convolutions, dcgan
from gan_engine.layers import DownsampleConv2d, EqualizedConv2d, EqualizedLinear, UpsampleConv2d


def seeded(make, *args, **kwargs):
    torch.manual_seed(0)
    return make(*args, **kwargs)


def of_our_layers() -> nn.Sequential:
    return nn.Sequential(
        EqualizedConv2d(3, 4, 3, act="lrelu", clamp=1),
        EqualizedConv2d(4, 32, 3, act="lrelu", resample="down"),
        EqualizedConv2d(32, 32, 3, act="lrelu", resample="up", taps=[1, 3, 3, 1]),
        EqualizedConv2d(32, 8, 3, act="lrelu", resample="down", taps=[1, 3, 3, 1]),
        DownsampleConv2d(8, 6, 1),
        UpsampleConv2d(6, 6, 3),
        nn.Flatten(),
        EqualizedLinear(6 * 16, 5, act="lrelu"),
        EqualizedLinear(5, 1),
        nn.Flatten(0),
    )


DISCRIMINATORS = {
    "convolutions": (lambda: convolutions(8, 3), (8, 12, 12)),
    "dcgan": (lambda: dcgan(4), (3, 64, 64)),
    "dcgan spectral norm": (lambda: dcgan(4, spectral_norm=True).eval(), (3, 64, 64)),
    "resnet": (lambda: ResNet(4), (3, 8, 8)),
    "r3gan": (lambda: R3GAN((8, 8), group=4), (3, 8, 8)),
    "our layers": (of_our_layers, (3, 8, 8)),
}
