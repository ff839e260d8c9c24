"""The deep convolutional GAN of Radford et al. 2016, arXiv:1511.06434.

Both networks can read classes c. The generator reads an embedding of c beside z. The discriminator adds the projection
of its last features on an embedding of c (Miyato and Koyama 2018, arXiv:1802.05637, equation 4).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_engine.activated import biased, normed
from gan_engine.layers import ClassEmbedding, ClassProjection, Conv2d, ConvTranspose2d, Weights, check_class
from gan_engine.models.checks import Channels, NoiseSize, Sides, check_sizes
from gan_engine.models.declaration import Family
from gan_engine.models.doublings import doublings, start
from gan_engine.system import fields

FAMILY = Family()


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks."""

    resolution: Sides = 32
    """Side of the images in pixels: a power of two from 16 to 256.
    HEIGHTxWIDTH: two numbers from 3 to 16, both times one power of two, such as 48x64 or 96x64."""
    channels: Channels = 1
    z_dim: NoiseSize = 100
    width: int = 64
    """Feature maps at half the resolution of the images. They double with each halving, down to 4x4."""
    max_width: int = 512
    """Limit of the feature maps of a layer."""
    embed_dim: int = 32
    """Dimensions of the generator's class embedding."""
    d_norm: bool = True
    """Batch norms in the discriminator. Turn them off for a gradient penalty, which looks at single images."""
    d_spectral_norm: bool = False
    """Divide the discriminator's weights by their spectral norms (Miyato et al. 2018, arXiv:1802.05957)."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        check_sizes(self, 16, 256, "z_dim", "width", "max_width", "embed_dim")

    @property
    def widths(self) -> list[int]:
        """Feature maps at the start (4x4 in squares), at its double, ... up to half the resolution."""
        return [min(self.width << i, self.max_width) for i in reversed(range(doublings(self.resolution)))]


class Block(nn.Module):
    """y = act(norm(layer(x))), or y = act(layer(x) + b) without a norm; gain 1"""

    def __init__(self, layer: nn.Module, features: int, *, act: str, norm: bool = True) -> None:
        super().__init__()
        self.act = act
        self.layer = layer
        self.norm = nn.BatchNorm2d(features) if norm else None
        self.bias = nn.Parameter(torch.zeros(features)) if self.norm is None else None

    def forward(self, x: Tensor) -> Tensor:
        if self.norm is None:
            return biased(self.layer, x, self.bias, act=self.act)
        return normed(self.norm, self.layer(x), act=self.act)


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W] in [-1, 1]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.embed = ClassEmbedding(config.c_dim, config.embed_dim) if config.c_dim else None
        z_dim = config.z_dim + (config.embed_dim if config.c_dim else 0)
        blocks = [Block(ConvTranspose2d(z_dim, widths[0], start(config.resolution), bias=False), widths[0], act="relu")]
        for i, o in pairwise(widths):
            blocks.append(Block(ConvTranspose2d(i, o, 4, 2, 1, bias=False), o, act="relu"))
        last = ConvTranspose2d(widths[-1], config.channels, 4, 2, 1, bias=False)
        self.blocks = nn.Sequential(*blocks, Block(last, config.channels, act="tanh", norm=False))
        self.apply(_init)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        if self.embed is not None:
            z = self.embed(z, c)
        return self.blocks(z[:, :, None, None])


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels, *reversed(config.widths)]
        blocks = []
        for i, o in pairwise(widths):
            # The paper has no norm in the layer that reads the image.
            blocks.append(Block(Conv2d(i, o, 4, 2, 1, bias=False), o, act="lrelu", norm=config.d_norm and bool(blocks)))
        self.blocks = nn.Sequential(*blocks)
        self.logit = Conv2d(widths[-1], 1, start(config.resolution), bias=False)
        self.embed = ClassProjection(config.c_dim, widths[-1]) if config.c_dim else None
        self.apply(_init)
        if config.d_spectral_norm:
            for layer in [module for module in self.modules() if isinstance(module, Conv2d)]:
                spectral_norm(layer)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = self.blocks(img)
        logits = self.logit(x).flatten()
        return logits if self.embed is None else logits + self.embed(x, c)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The convolutions with their norms, except the convolution of the logit. --freeze-d counts from the image."""
        return [(block,) for block in self.blocks]


def _init(module: nn.Module) -> None:
    """Weights N(0, 0.02^2), scales of the norms N(1, 0.02^2), biases 0 (section 4 of the paper and its code)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | Weights):
        nn.init.normal_(module.weight, 0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1, 0.02)
