"""The Laplacian pyramid of conditional GANs (Denton et al. 2015, arXiv:1506.05751), from coarse to fine.

A pyramid holds an image at several sizes. Each image is the next larger one, filtered and halved: I[k-1] = down(I[k]).
The first level is a GAN of the smallest images. Every other level draws the details that the level below it lacks:

    low[k] = up(I[k-1])          I[k] = low[k] + G[k](z[k], low[k])          D[k](I[k] - low[k], low[k])

low[k] is made of a real image in training, and is the same for D[k] and G[k]. The levels therefore depend on each other
only when images are drawn. They can be trained side by side or alone. A level reads its noise as one more map of its
size, and the class as another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gan_engine.layers import BiasAct, Conv2d, as_filter, check_class
from gan_engine.models.checks import Channels, Resolution, check_at_least, check_channels, check_types
from gan_engine.models.declaration import Family
from gan_engine.ops import downsample2d, setup_filter, upsample2d
from gan_engine.system import fields

FAMILY = Family(objective="pyramid", penalties=False, augmentation=False)


@dataclass(frozen=True)
class Config:
    """Sizes of the networks of all levels."""

    resolution: Resolution = 32
    """Side of the images in pixels: a multiple of 4 times 2^(levels - 1)."""
    channels: Channels = 1
    levels: int = 3
    """Levels of the pyramid. Each has half the resolution of the next."""
    level: int | None = None
    """Resolution of the only level to train. None: train all levels."""
    base_z_dim: int = 100
    """Dimensions of the noise of the first level. The other levels have one number for each pixel."""
    hidden: int = 512
    """Units in each of the two hidden layers of the first level, which is fully connected."""
    width: int = 32
    """Feature maps of the other levels, which are convolutional."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "levels", "base_z_dim", "hidden", "width")
        step = 4 << (self.levels - 1)
        if self.resolution < step or self.resolution % step:
            raise ValueError(f"resolution: want a multiple of {step} for {self.levels} levels, got {self.resolution}")
        check_channels(self)
        if self.level is not None and self.level not in self.sizes:
            raise ValueError(f"level: want one of {', '.join(map(str, self.sizes))} or None, got {self.level}")

    @property
    def sizes(self) -> list[int]:
        """Resolutions of the levels, the smallest first."""
        return [self.resolution >> i for i in range(self.levels - 1, -1, -1)]

    @property
    def z_dims(self) -> list[int]:
        """Dimensions of the noise of each level."""
        return [self.base_z_dim, *(size**2 for size in self.sizes[1:])]

    @property
    def z_dim(self) -> int:
        """Dimensions of z, the noise of all levels side by side."""
        return sum(self.z_dims)


def _dense(i: int, o: int, **act: str) -> BiasAct:
    return BiasAct(nn.Linear(i, o, bias=False), **act)


def _conv(i: int, o: int, stride: int = 1, **act: str) -> BiasAct:
    return BiasAct(Conv2d(i, o, 5, stride, 2, bias=False), **act)


def _class_map(config: Config, size: int) -> nn.Module | None:
    return nn.Sequential(nn.Linear(config.c_dim, size**2), nn.Unflatten(1, (1, size, size))) if config.c_dim else None


class Pyramid(nn.Module):
    """img [N, C, H, W] -> (I[k], low[k]) of every level, the smallest image first; its low is None"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.levels = config.levels
        self.register_buffer("f", setup_filter((1, 3, 3, 1)), persistent=False)

    def forward(self, img: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        images = [img]
        for _ in range(self.levels - 1):
            images.insert(0, self.down(images[0]))
        return list(zip(images, [None, *map(self.up, images[:-1])], strict=True))

    # The filter reads zeros outside the image. Shifted by 1 they are black; otherwise they would be grey.

    def down(self, img: Tensor) -> Tensor:
        return downsample2d(img + 1, as_filter(self.f)) - 1

    def up(self, img: Tensor) -> Tensor:
        return upsample2d(img + 1, as_filter(self.f)) - 1


class BaseGenerator(nn.Module):
    """(z [N, base_z_dim], low = None, c) -> img [N, C, H, W] in [-1, 1]"""

    def __init__(self, config: Config, size: int) -> None:
        super().__init__()
        self.shape = (config.channels, size, size)
        self.layers = nn.Sequential(
            _dense(config.base_z_dim + config.c_dim, config.hidden),
            _dense(config.hidden, config.hidden),
            _dense(config.hidden, config.channels * size**2, act="tanh"),
        )

    def forward(self, z: Tensor, low: None, c: Tensor | None) -> Tensor:
        x = z if c is None else torch.cat([z, c.to(z.dtype)], dim=1)
        return self.layers(x).unflatten(1, self.shape)


class DetailGenerator(nn.Module):
    """(z [N, H W], low [N, C, H, W], c) -> img [N, C, H, W], the sum of low and details"""

    def __init__(self, config: Config, size: int) -> None:
        super().__init__()
        self.class_map = _class_map(config, size)
        self.layers = nn.Sequential(
            _conv(config.channels + 1 + bool(config.c_dim), config.width),
            _conv(config.width, config.width),
            _conv(config.width, config.channels, act="linear"),
        )

    def forward(self, z: Tensor, low: Tensor, c: Tensor | None) -> Tensor:
        maps = [low, z.unflatten(1, (1, *low.shape[2:]))]
        if self.class_map is not None:
            maps.append(self.class_map(c).to(low.dtype))
        return low + self.layers(torch.cat(maps, dim=1))


class BaseDiscriminator(nn.Module):
    """(img [N, C, H, W], low = None, c) -> logits [N]"""

    def __init__(self, config: Config, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _dense(config.channels * size**2 + config.c_dim, config.hidden),
            _dense(config.hidden, config.hidden),
            nn.Linear(config.hidden, 1),
        )

    def forward(self, img: Tensor, low: None, c: Tensor | None) -> Tensor:
        x = img.flatten(1)
        return self.layers(x if c is None else torch.cat([x, c.to(x.dtype)], dim=1)).squeeze(1)


class DetailDiscriminator(nn.Module):
    """(img, low [N, C, H, W], c) -> logits [N]; D reads the details img - low, and low"""

    def __init__(self, config: Config, size: int) -> None:
        super().__init__()
        self.class_map = _class_map(config, size)
        self.layers = nn.Sequential(
            _conv(2 * config.channels + bool(config.c_dim), config.width, 2),
            _conv(config.width, config.width, 2),
            nn.Flatten(),
            nn.Linear(config.width * (size // 4) ** 2, 1),
        )

    def forward(self, img: Tensor, low: Tensor, c: Tensor | None) -> Tensor:
        maps = [img - low, low]
        if self.class_map is not None:
            maps.append(self.class_map(c).to(low.dtype))
        return self.layers(torch.cat(maps, dim=1)).squeeze(1)


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W], close to [-1, 1]; the levels run one after the other"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.pyramid = Pyramid(config)
        base, *others = config.sizes
        self.levels = nn.ModuleList([BaseGenerator(config, base), *(DetailGenerator(config, n) for n in others)])

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        img = None
        for level, part in zip(self.levels, z.split(self.config.z_dims, dim=1), strict=True):
            img = level(part, None if img is None else self.pyramid.up(img), c)
        return img


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N], the sum of the logits of all levels

    Training uses the logits of each level by themselves; see gan_engine.losses.pyramid.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.pyramid = Pyramid(config)
        base, *others = config.sizes
        levels = [BaseDiscriminator(config, base), *(DetailDiscriminator(config, n) for n in others)]
        self.levels = nn.ModuleList(levels)

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        return sum(level(*pair, c) for level, pair in zip(self.levels, self.pyramid(img), strict=True))
