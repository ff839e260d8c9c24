"""StyleGAN3 (Karras et al. 2021, "Alias-Free Generative Adversarial Networks", arXiv:2106.12423), configs T and R.

Every feature map of G stands for a continuous image of a known bandwidth. A layer lets no frequency through that its
grid cannot hold, so an image moves with the Fourier features that G starts from, by fractions of a pixel too. Variant t
is equivariant to translation. Variant r is equivariant to rotation too: its convolutions are 1x1, and its filters are
symmetric about their centre. The mapping network is that of StyleGAN2 without mixing of styles; D is StyleGAN2's.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gan_engine.layers import EqualizedLinear, as_filter
from gan_engine.models.checks import Channels, NoiseSize, Resolution, check_at_least, check_choice
from gan_engine.models.declaration import Family
from gan_engine.models.style_networks import Discriminator as Discriminator
from gan_engine.models.style_networks import Mapping, Sizes, half_dtype, no_autocast, truncated
from gan_engine.ops import convolution, filtered_lrelu, modulated_conv2d, scale_bias_act, setup_filter
from gan_engine.ops.alias_free_fir import kaiser_beta
from gan_engine.ops.kernel_op import layout, wide
from gan_engine.ops.modulated_conv2d import demodulation
from gan_engine.system import fields

FIRST_CUTOFF = 2.0  # of the Fourier features, in periods per image: the grid of 4x4 that StyleGAN2 starts from
FIRST_STOPBAND = 2**2.1
LAST_STOPBAND = 2**0.3  # as a multiple of half the resolution
TAPS = 6  # taps of a filter for each sample of the coarser grid
# Half-life of the running mean square of a layer's input, in generated images. A step generates for D and for G, so
# these are about two for each image of a run.
MAGNITUDE_HALF_LIFE = 20_000
OUTPUT_SCALE = 0.25  # factor of the colours, which otherwise begin far beyond [-1, 1]

Variant = Literal["t", "r"]

FAMILY = Family(styles=True, translates=True)


class Band(NamedTuple):
    """What the output of a layer can hold. Frequencies are in periods per image."""

    cutoff: float
    """f_c: the bandwidth of the signal."""
    half_width: float
    """f_h: half of the transition band, from f_c - f_h to f_c + f_h."""
    rate: int
    """s: samples per image, a power of two."""
    size: int
    """Samples along a side, with the margin."""
    width: int
    """Feature maps."""


@dataclass(frozen=True)
class Config(Sizes):
    """Sizes of the two networks. The defaults are config T of the paper, but for the resolution."""

    resolution: Resolution = 64
    """Side of the images in pixels: a power of two from 8 to 1024."""
    channels: Channels = 3
    variant: Variant = "t"
    """t: equivariant to translation. r: to translation and rotation, with 1x1 convolutions, radial filters and twice
    the feature maps in G."""
    z_dim: NoiseSize = 512
    w_dim: int = 512
    """Dimensions of w, and of the embeddings of classes in both networks."""
    mapping_layers: int = 2
    """Layers between z and w, and between the class and its projection in D."""
    mapping_lr: float = 0.01
    """Learning rate of the mapping layers, as a share of the learning rate of all other layers."""
    channel_base: int = 32768
    """Feature maps of a layer: channel_base / (2 * its cutoff), in D channel_base / resolution, at most channel_max."""
    channel_max: int = 512
    """Limit of the feature maps of a layer."""
    num_layers: int = 14
    """Layers of G between the Fourier features and the colours."""
    num_critical: int = 2
    """The last of these layers whose bandwidth is all that the pixels can hold, for sharp details."""
    margin: int = 10
    """Samples around the image, on every grid but the last, which keep its borders away."""
    mbstd_group: int = 4
    """Largest group of images over which D computes the standard deviation. A pass is split into equal groups."""
    half_resolutions: int = 4
    """Number of resolutions, the highest ones, that compute in half precision if --precision says so."""
    clamp: float | None = 256
    """Limit of the absolute values in these resolutions. float16 needs a limit, bfloat16 does not."""
    c_dim: fields.Suppress[int] = 0  # number of classes, set from the data

    def __post_init__(self) -> None:
        self.check()
        check_choice(self, variant=Variant)
        check_at_least(self, 0, "margin")
        check_at_least(self, 1, "num_critical")
        if self.num_layers <= self.num_critical:
            raise ValueError(f"num_layers: want more than num_critical = {self.num_critical}, got {self.num_layers}")

    @property
    def d_architecture(self) -> str:
        """D adds up feature maps."""
        return "residual"

    @property
    def num_ws(self) -> int:
        """Number of copies of w that G reads: for the Fourier features, for every layer, and for the colours."""
        return self.num_layers + 2

    @property
    def bands(self) -> list[Band]:
        """The bands behind each of the layers, and behind the colours (section 3.2, figure 4c)

        Cutoff and stopband f_t grow geometrically, up to the first critical layer:
        f_c[i] = 2 (s / 4)^e and f_t[i] = 2^2.1 (2^0.3 s / 2 / 2^2.1)^e with e = min(i / (N - critical), 1), s the
        resolution. s[i] is 2 f_t[i] rounded up to a power of two, at most s. f_h[i] = max(s[i] / 2, f_t[i]) - f_c[i].
        """
        widen = 2 if self.variant == "r" else 1
        bands = []
        for i in range(self.num_layers + 1):
            e = min(i / (self.num_layers - self.num_critical), 1)
            cutoff = FIRST_CUTOFF * (self.resolution / 2 / FIRST_CUTOFF) ** e
            stopband = FIRST_STOPBAND * (LAST_STOPBAND * self.resolution / 2 / FIRST_STOPBAND) ** e
            rate = 1 << math.ceil(math.log2(min(2 * stopband, self.resolution)))
            size = rate if i >= self.num_layers - 1 else rate + 2 * self.margin
            width = min(round(widen * self.channel_base / (2 * cutoff)), widen * self.channel_max)
            half_width = max(rate / 2, stopband) - cutoff
            bands.append(Band(cutoff, half_width, rate, size, self.channels if i == self.num_layers else width))
        return bands


def lowpass(taps: int, cutoff: float, half_width: float, rate: float, *, radial: bool = False) -> Tensor:
    """h(t) = 2 f_c sinc(2 f_c t) kaiser(t), sampled `taps` times at `rate`, with sum 1: [taps] or radial [taps, taps]

    The filter passes frequencies below f_c - f_h, stops those above f_c + f_h, and has a gain of 1/2 at f_c. Kaiser's
    formulas give the window from f_h: A = 2.285 pi (taps - 1) 4 f_h / rate + 7.95 is the attenuation in dB, and beta
    follows from A (Kaiser 1974; appendix C of the paper). A `radial` filter is symmetric about its centre: it has
    jinc(2 f_c r), whose frequency response is a disc, in place of the sinc (appendix C). One tap is [1].
    """
    if taps == 1:
        return setup_filter([1.0])
    attenuation = 2.285 * math.pi * (taps - 1) * 4 * half_width / rate + 7.95
    window = np.kaiser(taps, kaiser_beta(attenuation))
    t = (np.arange(taps) - (taps - 1) / 2) / rate
    if not radial:
        return setup_filter(np.sinc(2 * cutoff * t) * window)
    r = torch.from_numpy(np.hypot(*np.meshgrid(t, t)).clip(min=1e-9))
    jinc = torch.special.bessel_j1(2 * math.pi * cutoff * r) / r
    return setup_filter(jinc * torch.from_numpy(np.outer(window, window)), separable=False)


class FourierFeatures(nn.Module):
    """x [N, C, S, S] = mix(sin(2 pi (f R (p - t) + phase))), R and t of w [N, w_dim]   # section 3.1, appendix F

    Frequencies f [C, 2] are uniform in the disc of radius f_c, and phases uniform in a period; both are fixed. p are
    the places of samples: the image is [-1/2, 1/2]^2. A learnt affine function of w rotates and translates p.
    """

    freqs: Tensor
    phases: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.band = config.bands[0]
        width = self.band.width
        radius, angle = self.band.cutoff * torch.rand(width).sqrt(), 2 * math.pi * torch.rand(width)
        self.register_buffer("freqs", torch.stack([radius * angle.cos(), radius * angle.sin()], 1))
        self.register_buffer("phases", torch.rand(width))
        self.weight = nn.Parameter(torch.randn(width, width))
        self.affine = EqualizedLinear(config.w_dim, 4)  # cosine and sine of the rotation, and the translation
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias[0] = 1

    def forward(self, w: Tensor, translation: Tensor | None = None) -> Tensor:
        t = self.affine(w)
        cos, sin, x0, y0 = (t / t[:, :2].square().sum(1, keepdim=True).sqrt()).unbind(1)
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # [N, 2, 2]
        freqs = self.freqs @ rotation  # [N, C, 2]
        offset = torch.stack([x0, y0], 1) if translation is None else torch.stack([x0, y0], 1) + translation
        phases = self.phases - (freqs @ offset[:, :, None]).squeeze(2)  # [N, C]
        p = (torch.arange(self.band.size, device=w.device, dtype=w.dtype) + 0.5 - self.band.size / 2) / self.band.rate
        along_x, along_y = freqs[:, :, :1] * p, freqs[:, :, 1:] * p + phases[:, :, None]  # [N, C, S]
        x = (2 * math.pi * (along_y[:, :, :, None] + along_x[:, :, None, :])).sin()
        return convolution.conv2d(x, (self.weight * len(self.weight) ** -0.5)[:, :, None, None])


class SynthesisLayer(nn.Module):
    """(x [N, I, S, S], w [N, w_dim]) -> [N, O, S', S'] = filtered_lrelu(modulated conv(x / sqrt(magnitude), w))

    The last layer, of index num_layers, gives colours: its 1x1 convolution has no demodulation and no activation.
    `magnitude` [] is the running mean square of x; training updates it (section 3.1).
    """

    magnitude: Tensor
    fu: Tensor
    fd: Tensor

    def __init__(self, config: Config, index: int) -> None:
        super().__init__()
        before, after = config.bands[max(index - 1, 0)], config.bands[index]
        self.colours = index == config.num_layers
        self.half = config.is_half(after.rate)
        self.clamp = config.clamp if self.half else None
        self.out_size = after.size
        kernel = 1 if self.colours or config.variant == "r" else 3
        self.affine = EqualizedLinear(config.w_dim, before.width, bias_init=1)
        self.weight = nn.Parameter(torch.randn(after.width, before.width, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.width))
        self.scale = (before.width * kernel**2) ** -0.5
        self.register_buffer("magnitude", torch.ones(()))
        if self.colours:
            return
        fine = 2 * max(before.rate, after.rate)  # the grid of the leaky ReLU
        self.up, self.down = fine // before.rate, fine // after.rate
        radial = config.variant == "r" and index < config.num_layers - config.num_critical
        fu = lowpass(TAPS * self.up, before.cutoff, before.half_width, fine)
        fd = lowpass(TAPS * self.down, after.cutoff, after.half_width, fine, radial=radial)
        self.register_buffer("fu", fu, persistent=False)
        self.register_buffer("fd", fd, persistent=False)
        # The middle of x comes to lie on the middle of the output. All sizes are even, so both paddings are whole.
        convolved = before.size + kernel - 1
        taps = len(fu) + len(fd) - 2
        start = ((after.size - 1) * self.down - (convolved - 1) * self.up + taps) // 2
        stop = (after.size - 1) * self.down + 1 - convolved * self.up + taps - start
        self.padding = [start, stop, start, stop]

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        if self.training:
            self._update(x.detach())
        styles, gain = self.affine(w), self.magnitude.rsqrt()
        if self.colours:
            styles = styles * (self.scale * gain)
            return modulated_conv2d(x, self.weight, styles, demodulate=False, bias=self.bias, clamp=self.clamp)
        # Demodulation takes these two factors back. float16 needs them.
        weight = self.weight * (self.weight.detach().square().mean([1, 2, 3], keepdim=True) + 1e-8).rsqrt()
        styles = styles * (styles.detach().square().mean(1, keepdim=True) + 1e-8).rsqrt()
        d = demodulation(weight * self.scale, styles, wide(x.dtype))
        x = scale_bias_act(x, styles * gain)
        # All of what the convolution knows beyond the borders goes on to the filter.
        x = convolution.conv2d(x, (weight * self.scale).to(x.dtype), padding=weight.shape[2] - 1)
        x = scale_bias_act(x, d)
        filters = {"up": self.up, "down": self.down, "padding": self.padding}
        return filtered_lrelu(x, as_filter(self.fu), as_filter(self.fd), self.bias, **filters, clamp=self.clamp)

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        square = x.to(self.magnitude.dtype).square().mean()
        self.magnitude.lerp_(square, 1 - 0.5 ** (len(x) / MAGNITUDE_HALF_LIFE))


class Synthesis(nn.Module):
    """ws [N, num_ws, w_dim] -> img [N, C, H, W]"""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.input = FourierFeatures(config)
        self.layers = nn.ModuleList(SynthesisLayer(config, i) for i in range(config.num_layers + 1))

    def forward(self, ws: Tensor, *, translation: Tensor | None = None) -> Tensor:
        """translation [N, 2]: how far the images move right and down, as a share of their side; None is not at all"""
        if ws.ndim != 3 or ws.shape[1:] != (self.config.num_ws, self.config.w_dim):
            raise ValueError(f"want ws [N, {self.config.num_ws}, {self.config.w_dim}], got {list(ws.shape)}")
        dtype = self.input.weight.dtype
        half = half_dtype(ws, dtype)
        with no_autocast(ws):
            first, *w = ws.to(dtype).unbind(1)
            x = self.input(first, translation).contiguous(memory_format=layout(self.layers[0].weight))
            for layer, style in zip(self.layers, w, strict=True):
                x = layer(x.to(half if layer.half else dtype), style)
            return x.to(dtype) * OUTPUT_SCALE


class Generator(nn.Module):
    """(z [N, z_dim], c [N, c_dim] or None) -> img [N, C, H, W], the images of the data in [-1, 1]

    Nothing bounds the images: a pixel may lie outside. In eval mode an image is a function of z and c.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.mapping = Mapping(config)
        self.synthesis = Synthesis(config)

    def forward(
        self, z: Tensor, c: Tensor | None = None, *, truncation: float = 1, cutoff: int | None = None
    ) -> Tensor:
        return self.synthesis(self.ws(z, c, truncation=truncation, cutoff=cutoff))

    def ws(self, z: Tensor, c: Tensor | None = None, *, truncation: float = 1, cutoff: int | None = None) -> Tensor:
        """ws [N, num_ws, w_dim]; `truncated` says what truncation and cutoff do. Each class has its own mean."""
        ws = self.mapping(z, c)[:, None].expand(-1, self.config.num_ws, -1)
        return ws if truncation == 1 else truncated(ws, self.mapping.mean(c), truncation, cutoff)
