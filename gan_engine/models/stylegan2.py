"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) with the changes of its ADA follow-up (2006.06676).

A mapping network turns z into w. The synthesis network starts from a constant, and w is its only input: every
convolution is modulated by a style, an affine function of a copy of w. Mixing of styles, noise inputs and truncation
are as in StyleGAN (Karras et al. 2019, arXiv:1812.04948).

The `half_resolutions` highest resolutions compute in the dtype of autocast, where it is on. Everything else computes in
the dtype of the weights, so that styles, demodulation, colours and logits lose no digits.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from gan_engine.layers import EqualizedConv2d, ModulatedConv2d, as_filter
from gan_engine.models.checks import Channels, NoiseSize, Sides
from gan_engine.models.declaration import Family
from gan_engine.models.style_networks import TAPS, Mapping, Sizes, half_dtype, no_autocast, truncated
from gan_engine.models.style_networks import Discriminator as Discriminator
from gan_engine.ops import setup_filter, upsample2d
from gan_engine.ops.kernel_op import layout
from gan_engine.system import fields

Architecture = Literal["skip", "residual"]
Noise = Literal["random", "const", "none"]


FAMILY = Family(styles=True, translates=True)


@dataclass(frozen=True)
class Config(Sizes):
    """Sizes of the two networks. The defaults are config F of the paper. Config E has half its `channel_base`."""

    resolution: Sides = 64
    """Side of the images in pixels: a power of two from 8 to 1024.
    HEIGHTxWIDTH: two numbers from 3 to 16, both times one power of two, such as 48x64 or 96x64."""
    channels: Channels = 3
    z_dim: NoiseSize = 512
    w_dim: int = 512
    """Dimensions of w, and of the embeddings of classes in both networks."""
    mapping_layers: int = 8
    """Layers between z and w, and between the class and its projection in D."""
    mapping_lr: float = 0.01
    """Learning rate of the mapping layers, as a share of the learning rate of all other layers."""
    channel_base: int = 32768
    """Feature maps at a resolution: channel_base / resolution, but at most channel_max."""
    channel_max: int = 512
    """Limit of the feature maps of a layer."""
    architecture: Architecture = "skip"
    """Architecture of G (figure 7 of the paper).
    skip: the colours of all resolutions are added up. residual: feature maps are added up."""
    d_architecture: Architecture = "residual"
    """Architecture of D. skip: D reads the image at every resolution. residual: feature maps are added up."""
    style_mixing: float = 0.9
    """Share of the images that are trained with two w: one w up to a random layer, the other w after it."""
    mbstd_group: int = 4
    """Largest group of images over which D computes the standard deviation. A pass is split into equal groups."""
    half_resolutions: int = 4
    """Number of resolutions, the highest ones, that compute in half precision if --precision says so."""
    clamp: float | None = 256
    """Limit of the absolute values in these resolutions. float16 needs a limit, bfloat16 does not."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        self.check()
        for name in ("architecture", "d_architecture"):
            if getattr(self, name) not in get_args(Architecture):
                raise ValueError(f"{name}: want skip or residual, got {getattr(self, name)!r}")
        if not 0 <= self.style_mixing <= 1:
            raise ValueError(f"style_mixing: want 0 to 1, got {self.style_mixing}")

    @property
    def num_ws(self) -> int:
        """Number of copies of w that G reads: two for each resolution."""
        return 2 * len(self.resolutions)


class SynthesisBlock(nn.Module):
    """(x [N, I, H / 2, W / 2], img or None, ws) -> x [N, O, H, W], img [N, C, H, W] or None

    Two modulated convolutions; the first doubles. The block of 4x4 has the second alone, and its x is 4x4 too.
    `resolution` is nominal: rectangles begin with other sides than 4x4.
    """

    def __init__(self, config: Config, resolution: int) -> None:
        super().__init__()
        first, last = resolution == 4, resolution == config.nominal
        i, o = config.width(resolution // 2), config.width(resolution)
        residual = config.architecture == "residual" and not first
        self.half = config.is_half(resolution)
        clamp = config.clamp if self.half else None
        layer = {"w_dim": config.w_dim, "clamp": clamp}
        self.conv0 = None if first else ModulatedConv2d(i, o, 3, up=2, taps=TAPS, act="lrelu", **layer)
        # Each of two branches is multiplied by sqrt(1/2), which keeps the variance of their sum: lrelu has the gain 1.
        self.conv1 = ModulatedConv2d(o, o, 3, act="lrelu", gain=1 if residual else None, **layer)
        self.skip = None
        if residual:
            self.skip = EqualizedConv2d(i, o, 1, bias=False, gain=0.5**0.5, resample="up", taps=TAPS)
        self.to_rgb = None
        if last or config.architecture == "skip":
            self.to_rgb = ModulatedConv2d(o, config.channels, 1, demodulate=False, noise=False, **layer)
        self.register_buffer("f", setup_filter(TAPS), persistent=False)
        for name in ("noise1",) if first else ("noise0", "noise1"):
            self.register_buffer(name, torch.randn(1, 1, *config.sides(resolution)))

    def forward(self, x: Tensor, img: Tensor | None, ws: list[Tensor], noise: Noise) -> tuple[Tensor, Tensor | None]:
        """ws: w [N, w_dim] of the two convolutions and of the colours"""
        y = x
        if self.conv0 is not None:
            y = self.conv0(y, ws[0], _noise(self.noise0, noise))
        y = self.conv1(y, ws[1], _noise(self.noise1, noise))
        if self.skip is not None:
            y = y + self.skip(x)
        if self.to_rgb is not None:
            rgb = self.to_rgb(y, ws[2]).to(ws[2].dtype)
            img = rgb if img is None else upsample2d(img, as_filter(self.f)) + rgb
        return y, img


def _noise(const: Tensor, noise: Noise) -> Tensor | None:
    """The noise that a layer adds. None lets the layer draw noise."""
    return None if noise == "random" else const if noise == "const" else torch.zeros_like(const)


class Synthesis(nn.Module):
    """ws [N, num_ws, w_dim] -> img [N, C, H, W]

    The colours of a resolution read the same w as the first convolution of the next resolution.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.const = nn.Parameter(torch.randn(1, config.width(4), *config.sides(4)))
        self.blocks = nn.ModuleList(SynthesisBlock(config, resolution) for resolution in config.resolutions)

    def forward(self, ws: Tensor, *, noise: Noise | None = None, translation: Tensor | None = None) -> Tensor:
        """The images of ws

        Args:
            noise: drawn for this pass ("random"), always the same ("const"), or "none". None: random in training only.
            translation: [N, 2], how far the constant moves right and down, as a share of the image; None is not at all.
                The constant stands for the periodic image of its frequencies. The paper does not move it.
        """
        noise = noise or ("random" if self.training else "const")
        if noise not in get_args(Noise):
            raise ValueError(f"noise: want random, const or none, got {noise!r}")
        if ws.ndim != 3 or ws.shape[1:] != (self.config.num_ws, self.config.w_dim):
            raise ValueError(f"want ws [N, {self.config.num_ws}, {self.config.w_dim}], got {list(ws.shape)}")
        dtype = self.const.dtype
        half = half_dtype(ws, dtype)
        with no_autocast(ws):
            w = ws.to(dtype).unbind(1)
            x = self.const.expand(ws.shape[0], -1, -1, -1) if translation is None else _moved(self.const, translation)
            x = x.contiguous(memory_format=layout(self.const))
            img = None
            for i, block in enumerate(self.blocks):
                of_block = [w[max(2 * i - 1, 0)], w[2 * i], w[2 * i + 1]]
                x, img = block(x.to(half if block.half else dtype), img, of_block, noise)
        return img


def _moved(const: Tensor, translation: Tensor) -> Tensor:
    """[N, C, H, W]: const [1, C, H, W] moved by translation [N, 2], through the frequencies of its H and W samples"""
    x, y = (_moving(n, shift, const) for n, shift in zip((const.shape[3], const.shape[2]), translation.unbind(1)))
    return torch.einsum("nij,cjk,nlk->ncil", y, const[0], x)


def _moving(n: int, shift: Tensor, like: Tensor) -> Tensor:
    """[N, n, n], which moves n periodic samples by shift [N] of their period; the frequency n / 2 counts half"""
    place = torch.arange(n, device=like.device, dtype=like.dtype)
    off = (place[:, None] - place - n * shift.to(like.dtype)[:, None, None]) * (2 * torch.pi / n)
    total = 1 + sum(2 * (k * off).cos() for k in range(1, (n + 1) // 2))
    return (total + (n // 2 * off).cos() if n % 2 == 0 else total) / n


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W], the images of the data in [-1, 1]

    Nothing bounds the images: a pixel may lie outside. Path length regularisation is computed from G.ws and
    G.synthesis. Training mixes styles and draws noise; in eval mode an image is a function of z and c.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = Synthesis(config)

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        *,
        truncation: float = 1,
        cutoff: int | None = None,
        noise: Noise | None = None,
    ) -> Tensor:
        return self.synthesis(self.ws(z, c, truncation=truncation, cutoff=cutoff), noise=noise)

    def ws(self, z: Tensor, c: Tensor | None = None, *, truncation: float = 1, cutoff: int | None = None) -> Tensor:
        """ws [N, num_ws, w_dim], with styles mixed in training (arXiv:1812.04948, section 3.1)

        `truncated` says what truncation and cutoff do. Each class has its own mean.
        """
        w = self.mapping(z, c)
        layer = torch.arange(self.config.num_ws, device=w.device)[:, None]
        ws = w[:, None].expand(-1, len(layer), -1)
        if self.training and self.config.style_mixing > 0:
            other = self.mapping(torch.randn_like(z), c)
            mixed = torch.rand(len(z), 1, 1, device=w.device) < self.config.style_mixing
            crossover = torch.randint(1, len(layer), (len(z), 1, 1), device=w.device)
            ws = torch.where(mixed & (layer >= crossover), other[:, None], ws)
        return ws if truncation == 1 else truncated(ws, self.mapping.mean(c), truncation, cutoff)
