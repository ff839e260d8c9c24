"""Example of a plug-in: a loss, a family with a preset, an objective for this family, and data. It trains in seconds.

python -m gan_engine.train spots --plugin docs/examples/plugin.py --loss pearson --kimg 2 --out runs/spots-1
python -m gan_engine.generate runs/spots-1 --plugin docs/examples/plugin.py --out spots.png
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from gan_engine import config, plugins
from gan_engine.data import ImageSet
from gan_engine.losses.adversarial import Adversarial
from gan_engine.losses.objective import Batch, GanObjective

# Pearson's chi^2: equation 8 of Mao et al. 2017 with a = -1, b = 1, c = 0. Both functions are (fake, real) -> [N].
plugins.register_loss(
    "pearson",
    Adversarial(
        generator=lambda fake, real: fake.square() / 2,
        discriminator=lambda fake, real: ((fake + 1).square() + (real - 1).square()) / 2,
        paper="Mao et al. 2017, arXiv:1611.04076, equation 8",
    ),
)


@dataclass(frozen=True)
class Config:
    """Sizes of the two networks. Each field is a flag of the preset."""

    resolution: int = 16
    """Side of the images in pixels."""
    channels: int = 1
    """1 for grey images, 3 for colour."""
    z_dim: int = 8
    """Dimensions of the noise z."""
    hidden: int = 64
    """Width of the hidden layers."""
    c_dim = 0  # no classes


class Generator(nn.Module):
    """(z [N, z_dim], c=None) -> img [N, C, H, W] in [-1, 1]."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.shape = (config.channels, config.resolution, config.resolution)
        self.layers = nn.Sequential(
            *(nn.Linear(config.z_dim, config.hidden), nn.ReLU()),
            *(nn.Linear(config.hidden, config.channels * config.resolution**2), nn.Tanh()),
        )

    def forward(self, z: Tensor, c: None = None) -> Tensor:
        return self.layers(z).unflatten(1, self.shape)


class Discriminator(nn.Module):
    """(img [N, C, H, W], c=None) -> logits [N], higher is more real."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Sequential(nn.Linear(config.channels * config.resolution**2, config.hidden), nn.LeakyReLU(0.2))
        self.logit = nn.Linear(config.hidden, 1)

    def forward(self, img: Tensor, c: None = None) -> Tensor:
        return self.logit(self.first(img.flatten(1))).squeeze(1)

    def blocks_from_image(self) -> list[tuple[nn.Module, ...]]:
        """The blocks that --freeze-d counts. A family without this method cannot be frozen."""
        return [(self.first,)]


def spots() -> config.Config:
    """Bright spots on black, 16x16: the example of a plug-in."""
    return config.Config(preset="spots", model=Config(), data="spots", batch_size=32, lr=1e-3, kimg=20)


plugins.register_family(sys.modules[__name__], spots)


class SpotsObjective(GanObjective):
    """GanObjective with one more term: G lowers the mean brightness of its images, because the background is black."""

    def generator(self, batch: Batch) -> dict[str, Tensor]:
        img = self.G(batch.z, batch.c)
        fake = self.D(img, batch.c).float()
        real = self.D(batch.real_img, batch.c).float() if self.loss.generator_reads_real else None
        return {"G": self.loss.generator(fake, real), "dark": 0.1 * (img.float().flatten(1).mean(1) + 1)}


plugins.register_objective("spots", SpotsObjective)


def load_spots(root: Path, *, resolution: int, channels: int | None) -> ImageSet:
    """1,024 images uint8 [N, C, R, R] with one spot each; `root` is not used."""
    x = torch.linspace(-1, 1, resolution)
    centre = torch.rand(1024, 2, 1, 1, generator=torch.Generator().manual_seed(0)) - 0.5
    distance = (x[:, None] - centre[:, :1]).square() + (x - centre[:, 1:]).square()
    return ImageSet("spots", (255 * (-10 * distance).exp()).byte().repeat(1, channels or 1, 1, 1))


plugins.register_data("spots", load_spots)
