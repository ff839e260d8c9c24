"""StyleGAN2 in the names of StyleGAN2-ADA."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.dialects import stylegan_ops as ops
from benchmarks.dialects.stylegan_ops import bias_act, conv2d_resample, modulated_conv2d, setup_filter

TAPS = [1, 3, 3, 1]


class FullyConnectedLayer(nn.Module):
    def __init__(self, in_features, out_features, activation="linear", lr_multiplier=1, bias_init=0):
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init) / lr_multiplier))
        self.weight_gain, self.bias_gain = lr_multiplier / in_features**0.5, lr_multiplier

    def forward(self, x):
        w, b = (self.weight * self.weight_gain).to(x.dtype), (self.bias * self.bias_gain).to(x.dtype)
        if self.activation == "linear":
            return torch.addmm(b[None], x, w.t())
        return bias_act(x @ w.t(), b, act=self.activation)


class Conv2dLayer(nn.Module):
    def __init__(self, i, o, kernel_size, bias=True, activation="linear", up=1, down=1, conv_clamp=None):
        super().__init__()
        self.activation, self.up, self.down, self.conv_clamp = activation, up, down, conv_clamp
        self.register_buffer("resample_filter", setup_filter(TAPS))
        self.padding, self.weight_gain = kernel_size // 2, (i * kernel_size**2) ** -0.5
        self.act_gain = 1 if activation == "linear" else 2**0.5
        self.weight = nn.Parameter(torch.randn(o, i, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(o)) if bias else None

    def forward(self, x, gain=1):
        w, b = (self.weight * self.weight_gain).to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        options = {"up": self.up, "down": self.down, "padding": self.padding, "flip_weight": self.up == 1}
        x = conv2d_resample(x, w, self.resample_filter, **options)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, b, act=self.activation, gain=self.act_gain * gain, clamp=clamp)


class SynthesisLayer(nn.Module):
    def __init__(self, i, o, w_dim, resolution, up=1, conv_clamp=None):
        super().__init__()
        self.resolution, self.up, self.use_noise, self.activation = resolution, up, True, "lrelu"
        self.conv_clamp, self.padding, self.act_gain = conv_clamp, 1, 2**0.5
        self.register_buffer("resample_filter", setup_filter(TAPS))
        self.affine = FullyConnectedLayer(w_dim, i, bias_init=1)
        self.weight = nn.Parameter(torch.randn(o, i, 3, 3))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(o))

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        noise = None
        if noise_mode == "random":
            noise = torch.randn([len(x), 1, self.resolution, self.resolution], device=x.device) * self.noise_strength
        elif noise_mode == "const":
            noise = self.noise_const * self.noise_strength
        noise = None if noise is None else noise.to(x.dtype)
        options = {"up": self.up, "padding": self.padding, "resample_filter": self.resample_filter}
        styles = self.affine(w)
        options |= {"flip_weight": self.up == 1, "fused_modconv": fused_modconv}
        x = modulated_conv2d(x=x, weight=self.weight, styles=styles, noise=noise, **options)
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        return bias_act(x, self.bias.to(x.dtype), act=self.activation, gain=self.act_gain * gain, clamp=clamp)


class ToRGBLayer(nn.Module):
    def __init__(self, i, o, w_dim, conv_clamp=None):
        super().__init__()
        self.conv_clamp, self.weight_gain = conv_clamp, i**-0.5
        self.affine = FullyConnectedLayer(w_dim, i, bias_init=1)
        self.weight = nn.Parameter(torch.randn(o, i, 1, 1))
        self.bias = nn.Parameter(torch.zeros(o))

    def forward(self, x, w, fused_modconv=True):
        styles = self.affine(w) * self.weight_gain
        x = modulated_conv2d(x=x, weight=self.weight, styles=styles, demodulate=False, fused_modconv=fused_modconv)
        return bias_act(x, self.bias.to(x.dtype), clamp=self.conv_clamp)


class SynthesisBlock(nn.Module):
    def __init__(self, i, o, w_dim, resolution, conv_clamp):
        super().__init__()
        self.register_buffer("resample_filter", setup_filter(TAPS))
        if i == 0:
            self.const = nn.Parameter(torch.randn(o, 4, 4))
        else:
            self.conv0 = SynthesisLayer(i, o, w_dim, resolution, up=2, conv_clamp=conv_clamp)
        self.conv1 = SynthesisLayer(o, o, w_dim, resolution, conv_clamp=conv_clamp)
        self.torgb = ToRGBLayer(o, 3, w_dim, conv_clamp)

    def forward(self, x, img, ws, fused_modconv=None, **layer_kwargs):
        w = iter(ws.unbind(1))
        if fused_modconv is None:
            fused_modconv = not self.training
        if hasattr(self, "const"):
            x = self.const[None].repeat(len(ws), 1, 1, 1)
        else:
            x = self.conv0(x, next(w), fused_modconv=fused_modconv, **layer_kwargs)
        x = self.conv1(x, next(w), fused_modconv=fused_modconv, **layer_kwargs)
        y = self.torgb(x, next(w), fused_modconv=fused_modconv)
        return x, y if img is None else ops.upsample2d(img, self.resample_filter) + y


class Generator(nn.Module):
    """forward(z): mapping and synthesis; synthesis(ws)"""

    def __init__(self, resolution=64, base=16384, most=512, z_dim=512, layers=8, conv_clamp=256):
        super().__init__()
        sides = [1 << n for n in range(2, resolution.bit_length())]
        widths = [min(base // side, most) for side in sides]
        self.num_ws = 2 * len(sides)
        options = {"activation": "lrelu", "lr_multiplier": 0.01}
        self.mapping = nn.Sequential(*(FullyConnectedLayer(z_dim, z_dim, **options) for _ in range(layers)))
        inner = zip([0, *widths], widths, sides)
        self.blocks = nn.ModuleList(SynthesisBlock(i, o, z_dim, side, conv_clamp) for i, o, side in inner)

    def synthesis(self, ws, **options):
        x = img = None
        for n, block in enumerate(self.blocks):
            start = max(2 * n - 1, 0)
            x, img = block(x, img, ws[:, start : start + (2 if n == 0 else 3)], **options)
        return img

    def ws(self, z):
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        return self.mapping(z)[:, None].repeat(1, self.num_ws, 1)

    def forward(self, z, **options):
        return self.synthesis(self.ws(z), **options)


class DiscriminatorBlock(nn.Module):
    def __init__(self, i, o, first, conv_clamp):
        super().__init__()
        options = {"activation": "lrelu", "conv_clamp": conv_clamp}
        if first:
            self.fromrgb = Conv2dLayer(3, i, 1, **options)
        self.conv0 = Conv2dLayer(i, i, 3, **options)
        self.conv1 = Conv2dLayer(i, o, 3, down=2, **options)
        self.skip = Conv2dLayer(i, o, 1, bias=False, down=2)

    def forward(self, x):
        x = self.fromrgb(x) if hasattr(self, "fromrgb") else x
        y = self.skip(x, gain=0.5**0.5)
        return y + self.conv1(self.conv0(x), gain=0.5**0.5)


def minibatch_std(x: Tensor, group: int = 4) -> Tensor:
    n, _, h, w = x.shape
    y = x.reshape(min(group, n), -1, *x.shape[1:])
    y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean([1, 2, 3])
    return torch.cat([x, y.reshape(-1, 1, 1, 1).repeat(min(group, n), 1, h, w)], 1)


class Discriminator(nn.Module):
    def __init__(self, resolution=64, base=16384, most=512, conv_clamp=256):
        super().__init__()
        sides = [1 << n for n in range(resolution.bit_length() - 1, 1, -1)]
        widths = [min(base // side, most) for side in sides]
        pairs = enumerate(pairwise(widths))
        self.blocks = nn.Sequential(*(DiscriminatorBlock(i, o, n == 0, conv_clamp) for n, (i, o) in pairs))
        self.conv = Conv2dLayer(widths[-1] + 1, widths[-1], 3, activation="lrelu", conv_clamp=conv_clamp)
        self.fc = FullyConnectedLayer(widths[-1] * 16, widths[-1], activation="lrelu")
        self.out = FullyConnectedLayer(widths[-1], 1)

    def forward(self, img):
        x = self.conv(minibatch_std(self.blocks(img)))
        return self.out(self.fc(x.flatten(1)))
