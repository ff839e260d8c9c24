"""StyleGAN2's generator in the names of BasicSR: weights hold their scale, and layers the strength of their noise."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.dialects import rosinality, stylegan_ops
from benchmarks.dialects.rosinality import TAPS, FusedLeakyReLU, Upsample, upfirdn2d


class UpFirDnSmooth(nn.Module):
    def __init__(self, resample_kernel, upsample_factor, kernel_size):
        super().__init__()
        self.register_buffer("kernel", stylegan_ops.setup_filter(resample_kernel) * upsample_factor**2)
        p = len(resample_kernel) - upsample_factor - (kernel_size - 1)
        self.pad = (p + 1) // 2 + upsample_factor - 1, p // 2 + 1

    def forward(self, x):
        return upfirdn2d(x, self.kernel, pad=self.pad)


class EqualLinear(nn.Module):
    def __init__(self, in_channels, out_channels, bias_init_val=0):
        super().__init__()
        self.scale = 1 / math.sqrt(in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels).fill_(bias_init_val))

    def forward(self, x):
        return F.linear(x, self.weight * self.scale, self.bias)


class ModulatedConv2d(nn.Module):
    def __init__(self, i, o, kernel_size, num_style_feat, demodulate=True, sample_mode=None, eps=1e-8):
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size = i, o, kernel_size
        self.demodulate, self.sample_mode, self.eps = demodulate, sample_mode, eps
        if sample_mode == "upsample":
            self.smooth = UpFirDnSmooth(TAPS, 2, kernel_size)
        self.modulation = EqualLinear(num_style_feat, i, bias_init_val=1)
        self.weight = nn.Parameter(torch.randn(1, o, i, kernel_size, kernel_size) / math.sqrt(i * kernel_size**2))
        self.padding = kernel_size // 2

    def forward(self, x, style):
        b, c, h, w = x.shape
        weight = self.weight * self.modulation(style).view(b, 1, c, 1, 1)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4]) + self.eps).view(b, self.out_channels, 1, 1, 1)
        x = x.reshape(1, b * c, h, w)
        if self.sample_mode == "upsample":
            weight = weight.transpose(1, 2).reshape(b * c, self.out_channels, *weight.shape[3:])
            out = F.conv_transpose2d(x, weight, stride=2, groups=b)
            return self.smooth(out.view(b, self.out_channels, *out.shape[2:]))
        out = F.conv2d(x, weight.view(b * self.out_channels, c, *weight.shape[3:]), padding=self.padding, groups=b)
        return out.view(b, self.out_channels, *out.shape[2:])


class StyleConv(nn.Module):
    def __init__(self, i, o, kernel_size, num_style_feat, upsample=False):
        super().__init__()
        mode = "upsample" if upsample else None
        self.modulated_conv = ModulatedConv2d(i, o, kernel_size, num_style_feat, sample_mode=mode)
        self.weight = nn.Parameter(torch.zeros(1))
        self.activate = FusedLeakyReLU(o)

    def forward(self, x, style, noise=None):
        out = self.modulated_conv(x, style)
        if noise is None:
            b, _, h, w = out.shape
            noise = out.new_empty(b, 1, h, w).normal_()
        return self.activate(out + self.weight * noise)


class ToRGB(nn.Module):
    def __init__(self, in_channels, num_style_feat, upsample=True):
        super().__init__()
        self.upsample = Upsample(TAPS) if upsample else None
        self.modulated_conv = ModulatedConv2d(in_channels, 3, 1, num_style_feat, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x, style, skip=None):
        out = self.modulated_conv(x, style) + self.bias
        return out if skip is None else out + self.upsample(skip)


class Generator(rosinality.Generator):
    Styled, ToRGB = StyleConv, ToRGB
