"""StyleGAN2's generator in the names of mmagic, on mmcv's functions: a hook scales the weights before each call."""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.dialects import rosinality
from benchmarks.dialects.rosinality import TAPS, Blur, FusedLeakyReLU, NoiseInjection, Upsample


def equalized_lr(module: nn.Module) -> nn.Module:
    weight = module.weight
    del module.weight
    module.register_parameter("weight_orig", nn.Parameter(weight.data))
    module.weight = weight.data
    scale = weight[0].numel() ** -0.5 if weight.ndim < 5 else weight[0, 0].numel() ** -0.5

    def scaled(module: nn.Module, inputs: tuple) -> None:
        module.weight = module.weight_orig * scale

    module.register_forward_pre_hook(scaled)
    return module


class EqualLinearActModule(nn.Module):
    def __init__(self, i, o, bias_init):
        super().__init__()
        self.linear = equalized_lr(nn.Linear(i, o, bias=False))
        self.bias = nn.Parameter(torch.full((o,), bias_init))

    def forward(self, x):
        return self.linear(x) + self.bias


class ModulatedConv2d(nn.Module):
    def __init__(self, i, o, kernel_size, style_channels, demodulate=True, upsample=False, eps=1e-8):
        super().__init__()
        self.out_channels, self.kernel_size, self.demodulate, self.upsample, self.eps = (
            o,
            kernel_size,
            demodulate,
            upsample,
            eps,
        )
        self.style_modulation = EqualLinearActModule(style_channels, i, 1.0)
        self.weight = nn.Parameter(torch.randn(1, o, i, kernel_size, kernel_size))
        if upsample:
            p = len(TAPS) - 2 - (kernel_size - 1)
            self.blur = Blur(TAPS, ((p + 1) // 2 + 1, p // 2 + 1), upsample_factor=2)
        equalized_lr(self)

    def forward(self, x, style, input_gain=None):
        n, c, h, w = x.shape
        weight = self.weight * self.style_modulation(style).view(n, 1, c, 1, 1)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + self.eps)
        if input_gain is not None:
            weight = weight * input_gain
        x = x.reshape(1, n * c, h, w)
        if self.upsample:
            weight = weight.transpose(1, 2).reshape(n * c, self.out_channels, *weight.shape[3:])
            x = F.conv_transpose2d(x, weight, stride=2, groups=n)
            return self.blur(x.reshape(n, self.out_channels, *x.shape[2:]))
        weight = weight.view(n * self.out_channels, c, *weight.shape[3:])
        x = F.conv2d(x, weight, padding=self.kernel_size // 2, groups=n)
        return x.view(n, self.out_channels, *x.shape[2:])


class ModulatedStyleConv(nn.Module):
    def __init__(self, i, o, kernel_size, style_channels, upsample=False):
        super().__init__()
        self.conv = ModulatedConv2d(i, o, kernel_size, style_channels, upsample=upsample)
        self.noise_injector = NoiseInjection()
        self.activate = FusedLeakyReLU(o)

    def forward(self, x, style, noise=None, add_noise=True):
        out = self.conv(x, style)
        if add_noise:
            out = self.noise_injector(out, noise=noise)
        return self.activate(out)


class ModulatedToRGB(nn.Module):
    def __init__(self, in_channels, style_channels, upsample=True):
        super().__init__()
        if upsample:
            self.upsample = Upsample(TAPS)
        self.conv = ModulatedConv2d(in_channels, 3, 1, style_channels, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x, style, skip=None):
        out = self.conv(x, style) + self.bias
        return out if skip is None else out + self.upsample(skip)


class Generator(rosinality.Generator):
    Styled, ToRGB = ModulatedStyleConv, ModulatedToRGB
