"""The 3D-GAN of Wu et al. 2016, arXiv:1610.07584: volumes of voxels from noise.

A volume is [1, R, R, R] in [-1, 1] with y upwards, and a voxel is occupied where it is above 0. The paper has [0, 1],
which differs by the scale only. The paper's discriminator has batch norms; this one has none, so it can be penalised.

Both networks can read classes c, as in dcgan. The generator reads an embedding of c beside z. The discriminator adds
the projection of its last features on an embedding of c (Miyato and Koyama 2018, arXiv:1802.05637, equation 4).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from gan_engine.activated import normed
from gan_engine.layers import BiasAct, ClassEmbedding, ClassProjection, Weights, check_class
from gan_engine.models.checks import NoiseSize, Resolution, check_sizes
from gan_engine.models.declaration import Family
from gan_engine.pictures import volumes
from gan_engine.system import fields

FAMILY = Family(picture=volumes.render)


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks. The paper has a resolution of 64 and a width of 64."""

    resolution: Resolution = 32
    """Side of the volumes in voxels: a power of two from 16 to 128."""
    z_dim: NoiseSize = 200
    width: int = 32
    """Feature maps at half the resolution of the volumes. They double with each halving, down to 4x4x4."""
    embed_dim: int = 32
    """Dimensions of the generator's class embedding."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data
    channels: ClassVar[int] = 1
    data_kind: ClassVar[str] = "voxels"

    def __post_init__(self) -> None:
        check_sizes(self, 16, 128, "z_dim", "width", "embed_dim")

    @property
    def widths(self) -> list[int]:
        """Feature maps at 4x4x4, 8x8x8, ... up to half the resolution."""
        return [self.width << i for i in range(self.resolution.bit_length() - 4, -1, -1)]


def _init(module: nn.Module) -> None:
    """Weights N(0, 0.02^2), as in dcgan."""
    if isinstance(module, nn.Conv3d | nn.ConvTranspose3d | Weights):
        nn.init.normal_(module.weight, 0, 0.02)


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> volumes [N, 1, R, R, R] in [-1, 1]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed = ClassEmbedding(config.c_dim, config.embed_dim) if config.c_dim else None
        widths = config.widths
        z_dim = config.z_dim + (config.embed_dim if config.c_dim else 0)
        layers = [nn.ConvTranspose3d(z_dim, widths[0], 4, bias=False), nn.BatchNorm3d(widths[0])]
        for i, o in pairwise(widths):
            layers += [nn.ConvTranspose3d(i, o, 4, 2, 1, bias=False), nn.BatchNorm3d(o)]
        last = nn.ConvTranspose3d(widths[-1], 1, 4, 2, 1, bias=False)
        self.layers = nn.ModuleList([*layers, BiasAct(last, act="tanh", name="conv")])
        self.apply(_init)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        if self.embed is not None:
            z = self.embed(z, c)
        x = z[:, :, None, None, None]
        *pairs, last = self.layers
        for conv, norm in zip(pairs[::2], pairs[1::2], strict=True):
            x = normed(norm, conv(x), act="relu")
        return last(x)


class Discriminator(nn.Module):
    """(volumes [N, 1, R, R, R], c [N, c_dim] or None) -> logits [N]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [1, *reversed(config.widths)]
        self.layers = nn.Sequential(
            *(BiasAct(nn.Conv3d(i, o, 4, 2, 1, bias=False), name="conv") for i, o in pairwise(widths))
        )
        self.logit = nn.Conv3d(widths[-1], 1, 4, bias=False)
        self.embed = ClassProjection(config.c_dim, widths[-1]) if config.c_dim else None
        self.apply(_init)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        x = self.layers(img)
        logits = self.logit(x).flatten()
        return logits if self.embed is None else logits + self.embed(x, c)

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The convolutions, except the convolution of the logit. --freeze-d counts from the image on."""
        return [(layer,) for layer in self.layers]
