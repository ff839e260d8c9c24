"""The conditional GAN (Mirza and Osindero 2014, arXiv:1411.1784) with convolutions. Both networks read classes.

G reads an embedding of c beside z. D reads the classes by one of three methods:

    concat      as maps beside the image, one for each class; the map of c is 1, the others are 0 (the paper's method)
    projection  logit = logit(features) + <embedding of c, features> (Miyato and Koyama 2018, arXiv:1802.05637, eq. 4)
    none        D is not told the class and has to name it, as in the auxiliary classifier GAN (Odena et al. 2017,
                arXiv:1610.09585)

`class_weight` gives D a classifier beside its logit. Both networks lower its cross-entropy, D on real images and G on
generated ones. D must not be told the class for that, so `class_weight` does not go with concat.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gan_engine.activated import biased, normed
from gan_engine.layers import ClassEmbedding, ClassProjection, Conv2d, UpsampleConv2d, check_class
from gan_engine.models.checks import Channels, NoiseSize, Sides, check_at_least, check_choice, check_sizes
from gan_engine.models.declaration import Family
from gan_engine.models.doublings import doublings, start
from gan_engine.ops import bias_act
from gan_engine.system import fields

Method = Literal["concat", "projection", "none"]


FAMILY = Family(needs_classes=True)


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks, and how the classes enter the discriminator."""

    resolution: Sides = 32
    """Side of the images in pixels: a power of two from 16 to 256.
    HEIGHTxWIDTH: two numbers from 3 to 16, both times one power of two, such as 48x64 or 96x64."""
    channels: Channels = 1
    z_dim: NoiseSize = 100
    width: int = 64
    """Feature maps at half the resolution of the images. They double with each halving, down to 4x4."""
    max_width: int = 256
    """Limit of the feature maps of a layer."""
    embed_dim: int = 32
    """Dimensions of the generator's class embedding."""
    method: Method = "projection"
    """How D reads the class: as maps beside the image, by an inner product with its features, or not at all."""
    class_weight: float = 0
    """Weight of the cross-entropy of an auxiliary classifier in D, for both networks. 0: no classifier."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        check_sizes(self, 16, 256, "z_dim", "width", "max_width", "embed_dim")
        check_choice(self, method=Method)
        check_at_least(self, 0, "class_weight")
        if self.class_weight and self.method == "concat":
            raise ValueError("class_weight: want method projection or none, got concat, which tells D the class")
        if not self.class_weight and self.method == "none":
            raise ValueError("method: want class_weight > 0 beside none, got 0: nothing would tell D the classes")

    @property
    def widths(self) -> list[int]:
        """Feature maps at the start (4x4 in squares), at its double, ... up to half the resolution."""
        return [min(self.width << i, self.max_width) for i in reversed(range(doublings(self.resolution)))]


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W] in [-1, 1]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.embed = ClassEmbedding(config.c_dim, config.embed_dim) if config.c_dim else None
        z_dim = config.z_dim + (config.embed_dim if config.c_dim else 0)
        self.start = start(config.resolution)
        self.linear = nn.Linear(z_dim, widths[0] * math.prod(self.start), bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(UpsampleConv2d(i, o, 3, bias=False) for i, o in pairwise(widths))
        self.to_rgb = UpsampleConv2d(widths[-1], config.channels, 3, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.channels))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        if self.embed is not None:
            z = self.embed(z, c)
        x = self.linear(z).unflatten(1, (-1, *self.start))
        for norm, conv in zip(self.norms, (*self.convs, self.to_rgb), strict=True):
            x = conv(normed(norm, x, act="relu"))
        return bias_act(x, self.bias, act="tanh")


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N]

    D has no norms, and is piecewise linear.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        maps = config.c_dim if config.method == "concat" else 0
        widths = [config.channels + maps, *reversed(config.widths)]
        self.convs = nn.ModuleList(Conv2d(i, o, 4, 2, 1, bias=False) for i, o in pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths[1:])
        features = widths[-1] * math.prod(start(config.resolution))
        self.logit = nn.Linear(features, 1)
        self.embed = self.classifier = None
        if config.c_dim and config.method == "projection":
            self.embed = ClassProjection(config.c_dim, widths[-1])
        if config.c_dim and config.class_weight:
            self.classifier = nn.Linear(features, config.c_dim)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        return self._logits(self._features(img, c), c)

    def logits_and_classes(self, img: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """logits [N], and the logits of the auxiliary classifier [N, c_dim], from one pass"""
        x = self._features(img, c)
        return self._logits(x, c), self.classifier(x.flatten(1))

    def _features(self, img: Tensor, c: Tensor | None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = img
        if c is not None and self.config.method == "concat":
            maps = c.to(img.dtype)[:, :, None, None].expand(-1, -1, *img.shape[2:])
            x = torch.cat([img, maps], dim=1)
        for conv, bias in zip(self.convs, self.biases, strict=True):
            x = biased(conv, x, bias, act="lrelu")
        return x

    def _logits(self, x: Tensor, c: Tensor | None) -> Tensor:
        logits = self.logit(x.flatten(1)).squeeze(1)
        return logits if self.embed is None else logits + self.embed(x, c)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The convolutions with their biases. --freeze-d counts from the image on."""
        return list(zip(self.convs, self.biases, strict=True))
