"""StyleGAN3's generator in plain PyTorch and SciPy, as its paper states it, with the names of published files."""

import math

import numpy as np
import scipy.signal
import scipy.special
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.dialects.stylegan import FullyConnectedLayer
from benchmarks.dialects.stylegan_ops import upfirdn2d


def design(taps, cutoff, width, rate, *, radial):
    """A low-pass filter of Kaiser's window; `width` of the transition band. Radial: jinc in the place of sinc."""
    if not radial:
        return torch.tensor(scipy.signal.firwin(taps, cutoff, width=width, fs=rate), dtype=torch.float32)
    x = (np.arange(taps) - (taps - 1) / 2) / rate
    r = np.sqrt(x[:, None] ** 2 + x[None] ** 2)
    f = scipy.special.j1(2 * np.pi * cutoff * r) / (np.pi * r)
    window = np.kaiser(taps, scipy.signal.kaiser_beta(scipy.signal.kaiser_atten(taps, width / (rate / 2))))
    f = f * window[:, None] * window
    return torch.tensor(f / f.sum(), dtype=torch.float32)


class SynthesisInput(nn.Module):
    def __init__(self, w_dim, channels, size, rate, bandwidth):
        super().__init__()
        self.size, self.sampling_rate = np.array([size, size]), rate
        self.affine = FullyConnectedLayer(w_dim, 4)
        self.affine.weight.data *= 0.2
        self.affine.bias.data = torch.tensor([1.0, 0.3, 0.1, -0.2])
        self.weight = nn.Parameter(torch.randn(channels, channels))
        freqs = torch.randn(channels, 2)
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", freqs / freqs.norm(dim=1, keepdim=True) * bandwidth * torch.rand(channels, 1))
        self.register_buffer("phases", torch.rand(channels) - 0.5)

    def forward(self, w):
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        R, T = torch.eye(3).repeat(len(w), 1, 1), torch.eye(3).repeat(len(w), 1, 1)
        R[:, 0, 0], R[:, 0, 1], R[:, 1, 0], R[:, 1, 1] = t[:, 0], -t[:, 1], t[:, 1], t[:, 0]
        T[:, 0, 2], T[:, 1, 2] = -t[:, 2], -t[:, 3]
        side = (torch.arange(self.size[0]) + 0.5 - self.size[0] / 2) / self.sampling_rate
        y, x = torch.meshgrid(side, side, indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)])  # [3, S, S]
        moved = torch.einsum("nij,jyx->niyx", R @ T, points)[:, :2]
        angles = torch.einsum("ci,niyx->ncyx", self.freqs, moved) + self.phases[:, None, None]
        mix = self.weight / math.sqrt(len(self.weight))
        return torch.einsum("oc,ncyx->noyx", mix, (2 * math.pi * angles).sin())


class SynthesisLayer(nn.Module):
    def __init__(self, w_dim, before, after, *, kernel, colours, radial, fp16, conv_clamp):
        """`before`, `after`: channels, size, rate, cutoff and half width of the transition band of a layer"""
        super().__init__()
        (i, in_size, in_rate, in_cutoff, in_half), (o, out_size, out_rate, cutoff, half) = before, after
        self.is_torgb, self.use_fp16, self.conv_clamp, self.out_size = colours, fp16, conv_clamp, np.array([out_size])
        self.affine = FullyConnectedLayer(w_dim, i, bias_init=1)
        self.weight = nn.Parameter(torch.randn(o, i, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(o))
        self.register_buffer("magnitude_ema", torch.rand([]) + 0.5)
        self.register_buffer("up_filter", None)
        self.register_buffer("down_filter", None)
        if colours:
            return
        fine = 2 * max(in_rate, out_rate)
        self.up_factor, self.down_factor = fine // in_rate, fine // out_rate
        self.up_filter = design(6 * self.up_factor, in_cutoff, 2 * in_half, fine, radial=False)
        self.down_filter = design(6 * self.down_factor, cutoff, 2 * half, fine, radial=radial)
        taps = len(self.up_filter) + len(self.down_filter) - 2
        low = ((out_size - 1) * self.down_factor - (in_size + kernel - 2) * self.up_factor + taps) // 2  # same middle
        high = (out_size - 1) * self.down_factor + 1 + taps - low - (in_size + kernel - 1) * self.up_factor
        self.padding = [low, high, low, high]

    def forward(self, x, w):
        n, k, styles = len(x), self.weight.shape[-1], self.affine(w)
        weight = self.weight
        if self.is_torgb:
            styles = styles / math.sqrt(weight[0].numel())
            weight = weight[None] * styles[:, None, :, None, None]
        else:
            weight = weight / weight.square().mean([1, 2, 3], keepdim=True).sqrt()
            weight = weight[None] * (styles / styles.square().mean().sqrt())[:, None, :, None, None]
            weight = weight / (weight.square().sum([2, 3, 4], keepdim=True) + 1e-8).sqrt()
        weight = weight / self.magnitude_ema.sqrt()
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), weight.flatten(0, 1), padding=k - 1, groups=n)
        y = y.reshape(n, -1, *y.shape[2:]) + self.bias[None, :, None, None]
        if self.is_torgb:
            return y.clamp(-self.conv_clamp, self.conv_clamp)
        up, down = (f.outer(f) if f.ndim == 1 else f for f in (self.up_filter, self.down_filter))
        y = upfirdn2d(y, up, up=self.up_factor, padding=self.padding, gain=self.up_factor**2)
        y = (F.leaky_relu(y, 0.2) * 2**0.5).clamp(-self.conv_clamp, self.conv_clamp)
        return upfirdn2d(y, down, down=self.down_factor)


class SynthesisNetwork(nn.Module):
    def __init__(self, resolution, w_dim, base, most, *, rotates, layers, critical, margin, fp16_res, conv_clamp):
        super().__init__()
        self.num_layers, self.num_critical, self.margin_size, self.output_scale = layers, critical, margin, 0.25
        e = np.minimum(np.arange(layers + 1) / (layers - critical), 1)
        cutoffs = 2 * (resolution / 2 / 2) ** e
        stopbands = 2**2.1 * (resolution / 2 * 2**0.3 / 2**2.1) ** e
        rates = 2 ** np.ceil(np.log2(np.minimum(2 * stopbands, resolution)))
        halves = np.maximum(rates / 2, stopbands) - cutoffs
        sizes = rates + 2 * margin
        sizes[-2:] = resolution
        more = 2 if rotates else 1
        widths = np.rint(np.minimum(more * base / 2 / cutoffs, more * most))
        widths[-1] = 3
        bands = [(int(w), int(s), int(r), c, h) for w, s, r, c, h in zip(widths, sizes, rates, cutoffs, halves)]
        self.input = SynthesisInput(w_dim, *bands[0][:4])
        self.layer_names = []
        for i, after in enumerate(bands):
            colours = i == layers
            layer = SynthesisLayer(
                w_dim, bands[max(i - 1, 0)], after, kernel=1 if rotates or colours else 3, colours=colours,
                radial=rotates and i < layers - critical, fp16=bool(after[2] * 2**fp16_res > resolution),
                conv_clamp=conv_clamp,
            )  # fmt: skip
            self.layer_names.append(f"L{i}_{after[1]}_{after[0]}")
            self.add_module(self.layer_names[-1], layer)

    def forward(self, ws):
        x = self.input(ws[:, 0])
        for i, name in enumerate(self.layer_names):
            x = getattr(self, name)(x, ws[:, i + 1])
        return x * self.output_scale


class MappingNetwork(nn.Module):
    def __init__(self, z_dim, c_dim, w_dim, layers=2):
        super().__init__()
        self.num_layers = layers
        if c_dim:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        for i in range(layers):
            read = z_dim + (w_dim if c_dim else 0) if i == 0 else w_dim
            setattr(self, f"fc{i}", FullyConnectedLayer(read, w_dim, activation="lrelu", lr_multiplier=0.01))
        self.register_buffer("w_avg", torch.randn(w_dim))

    def forward(self, z, c=None):
        parts = [z] if c is None else [z, self.embed(c)]
        x = torch.cat([part / (part.square().mean(1, keepdim=True) + 1e-8).sqrt() for part in parts], 1)
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x


class Generator(nn.Module):
    def __init__(
        self, resolution=32, base=128, most=12, z_dim=16, c_dim=0, w_dim=16, *, rotates=False, layers=6, critical=2,
        margin=10, fp16_res=4, conv_clamp=256,
    ):  # fmt: skip
        super().__init__()
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim)
        options = {"layers": layers, "critical": critical, "margin": margin, "fp16_res": fp16_res}
        self.synthesis = SynthesisNetwork(
            resolution, w_dim, base, most, rotates=rotates, conv_clamp=conv_clamp, **options
        )

    def forward(self, z, c=None, psi=1):
        w = self.mapping.w_avg.lerp(self.mapping(z, c), psi)
        return self.synthesis(w[:, None].repeat(1, len(self.synthesis.layer_names) + 1, 1))
