"""The networks that the families of StyleGAN share: mapping z to w, and the discriminator.

StyleGAN3 (Karras et al. 2021, arXiv:2106.12423) has the mapping network and the discriminator of StyleGAN2 (Karras et
al. 2020, arXiv:1912.04958, with the changes of 2006.06676). Both read the sizes of a family by their names in `Sizes`.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from gan_engine.layers import EqualizedConv2d, EqualizedLinear, as_filter, check_class
from gan_engine.models.checks import check_at_least, check_sizes
from gan_engine.models.doublings import nominal, start
from gan_engine.ops import downsample2d, minibatch_stddev, pixel_norm, setup_filter
from gan_engine.system.resolution import Resolution

TAPS = (1, 3, 3, 1)  # taps of every filter around a change of size
W_MEAN_HALF_LIFE = 4400  # half-life of the running mean of w, in images: a factor of 0.995 for a batch of 32


class Sizes:
    """What the networks read of the Config of a family, which is a subclass. Its docstrings explain the fields."""

    channels: int
    z_dim: int
    w_dim: int
    mapping_layers: int
    mapping_lr: float
    channel_base: int
    channel_max: int
    mbstd_group: int
    half_resolutions: int
    clamp: float | None
    resolution: Resolution
    c_dim: int
    d_architecture: str

    def check(self) -> None:
        """Refuse fields that fit no network, by a ValueError."""
        check_sizes(self, 8, 1024, "z_dim", "w_dim", "mapping_layers", "channel_max", "mbstd_group")
        if self.channel_base < self.nominal:
            raise ValueError(f"channel_base: want at least resolution = {self.nominal}, got {self.channel_base}")
        if not self.mapping_lr > 0:
            raise ValueError(f"mapping_lr: want more than 0, got {self.mapping_lr}")
        check_at_least(self, 0, "half_resolutions")
        if self.clamp is not None and not self.clamp > 0:
            raise ValueError(f"clamp: want more than 0 or None, got {self.clamp}")

    @property
    def nominal(self) -> int:
        """The resolution of squares. Rectangles have the resolution of the square whose 4x4 doubles as often."""
        return nominal(self.resolution)

    @property
    def resolutions(self) -> list[int]:
        """4, 8, ... up to the nominal resolution."""
        return [1 << i for i in range(2, self.nominal.bit_length())]

    def sides(self, resolution: int) -> tuple[int, int]:
        """(H, W) of the feature maps at a resolution, which is nominal."""
        height, width = start(self.resolution)
        return height * resolution // 4, width * resolution // 4

    def width(self, resolution: int) -> int:
        """Feature maps of D, and of StyleGAN2's G, at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)

    def is_half(self, resolution: int) -> bool:
        """True if a resolution computes in half precision under autocast: one of the highest, and not 4x4."""
        return resolution > max(self.nominal >> self.half_resolutions, 4)


def half_dtype(x: Tensor, otherwise: torch.dtype) -> torch.dtype:
    """The dtype of the higher resolutions: the dtype of autocast if it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else otherwise


def no_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)


def _mapping_layers(config: Sizes, in_features: int) -> nn.Sequential:
    widths = [in_features] + [config.w_dim] * config.mapping_layers
    options = {"act": "lrelu", "lr_multiplier": config.mapping_lr}
    return nn.Sequential(*(EqualizedLinear(i, o, **options) for i, o in pairwise(widths)))


class Mapping(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> w [N, w_dim]

    z and an embedding of c are normalised by `pixel_norm` and concatenated. `w_mean` [c_dim or 1, w_dim] is the running
    mean of w, of each class its own; training updates it.
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.embed = EqualizedLinear(config.c_dim, config.w_dim) if config.c_dim else None
        self.layers = _mapping_layers(config, config.z_dim + (config.w_dim if config.c_dim else 0))
        self.register_buffer("w_mean", torch.zeros(max(1, config.c_dim), config.w_dim))

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, 0 if self.embed is None else len(self.w_mean))
        with no_autocast(z):
            x = pixel_norm(z.to(self.w_mean.dtype))
            if self.embed is not None:
                x = torch.cat([x, pixel_norm(self.embed(c.to(x.dtype)))], dim=1)
            w = self.layers(x)
            if self.training:
                self._update(w.detach(), c)
        return w

    def mean(self, c: Tensor | None = None) -> Tensor:
        """The mean of w [1, w_dim], or with classes [N, w_dim]."""
        return self.w_mean if c is None else c.to(self.w_mean.dtype) @ self.w_mean

    @torch.no_grad()
    def _update(self, w: Tensor, c: Tensor | None) -> None:
        member = w.new_ones(len(w), 1) if c is None else c.to(w.dtype)  # [N, classes]
        num = member.sum(0)[:, None]
        mean = member.t() @ w / num.clamp(min=1)
        self.w_mean.lerp_(mean, 1 - 0.5 ** (num / W_MEAN_HALF_LIFE))


def truncated(ws: Tensor, mean: Tensor, truncation: float, cutoff: int | None) -> Tensor:
    """The first `cutoff` of ws [N, num_ws, w_dim] (None: all) become mean [1 or N, w_dim] + truncation * (ws - mean)

    The result is fewer strange images and less variety (Karras et al. 2019, arXiv:1812.04948, appendix B).
    """
    if truncation == 1:
        return ws
    nearer = mean[:, None] + truncation * (ws - mean[:, None])
    if cutoff is None:
        return nearer
    return torch.where(torch.arange(ws.shape[1], device=ws.device)[:, None] < cutoff, nearer, ws)


class DiscriminatorBlock(nn.Module):
    """(x [N, I, H, W] or None, img [N, C, H, W]) -> x [N, O, H / 2, W / 2], img of that size or None

    Two convolutions; the second halves.
    """

    def __init__(self, config: Sizes, resolution: int) -> None:
        super().__init__()
        first = resolution == config.nominal
        i, o = config.width(resolution), config.width(resolution // 2)
        residual = config.d_architecture == "residual"
        self.half = config.is_half(resolution)
        layer = {"act": "lrelu", "clamp": config.clamp if self.half else None}
        self.from_rgb = EqualizedConv2d(config.channels, i, 1, **layer) if first or not residual else None
        self.conv0 = EqualizedConv2d(i, i, 3, **layer)
        self.conv1 = EqualizedConv2d(i, o, 3, resample="down", taps=TAPS, gain=1 if residual else None, **layer)
        self.skip = None
        if residual:
            self.skip = EqualizedConv2d(i, o, 1, bias=False, gain=0.5**0.5, resample="down", taps=TAPS)
        self.register_buffer("f", None if residual else setup_filter(TAPS), persistent=False)

    def forward(self, x: Tensor | None, img: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        x = None if x is None else x.to(dtype)
        if self.from_rgb is not None:
            y = self.from_rgb(img.to(dtype))
            x = y if x is None else x + y
        y = self.conv1(self.conv0(x))
        return (y, downsample2d(img, as_filter(self.f))) if self.skip is None else (y + self.skip(x), img)


class Discriminator(nn.Module):
    """(img [N, C, H, W], c [N, c_dim] or None) -> logits [N]

    A mapping network turns a class c into w. The logit is then <last features, w> / sqrt(w_dim) (Miyato and Koyama
    2018, arXiv:1802.05637; arXiv:2006.06676).
    """

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(DiscriminatorBlock(config, size) for size in reversed(config.resolutions[1:]))
        width = config.width(4)
        skip = config.d_architecture == "skip"
        self.from_rgb = EqualizedConv2d(config.channels, width, 1, act="lrelu") if skip else None
        self.conv = EqualizedConv2d(width + 1, width, 3, act="lrelu")
        self.linear = EqualizedLinear(width * math.prod(config.sides(4)), width, act="lrelu")
        self.logit = EqualizedLinear(width, config.w_dim if config.c_dim else 1)
        self.embed = EqualizedLinear(config.c_dim, config.w_dim) if config.c_dim else None
        self.mapping = _mapping_layers(config, config.w_dim) if config.c_dim else None

    def forward(self, img: Tensor, c: Tensor | None = None) -> Tensor:
        check_class(c, self.config.c_dim)
        dtype = self.logit.weight.dtype
        half = half_dtype(img, dtype)
        with no_autocast(img):
            img, x = img.to(dtype), None
            for block in self.blocks:
                x, img = block(x, img, half if block.half else dtype)
            x = x.to(dtype)
            if self.from_rgb is not None:
                x = x + self.from_rgb(img)
            x = self.conv(minibatch_stddev(x, group_size=self.config.mbstd_group))
            x = self.logit(self.linear(x.flatten(1)))
            if self.embed is None:
                return x.squeeze(1)
            w = self.mapping(pixel_norm(self.embed(c.to(dtype))))
            return (x * w).sum(1) / w.shape[1] ** 0.5

    def blocks_from_image(self) -> list[tuple[nn.Module | nn.Parameter, ...]]:
        """The blocks, one for each resolution down to 8x8. --freeze-d counts from the image on."""
        return [(block,) for block in self.blocks]
