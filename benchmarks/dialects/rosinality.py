"""StyleGAN2 in the names of rosinality's code."""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.dialects import stylegan_ops
from benchmarks.dialects.stylegan import minibatch_std

TAPS = [1, 3, 3, 1]


def upfirdn2d(input: Tensor, kernel: Tensor, up=1, down=1, pad=(0, 0)):
    return stylegan_ops.upfirdn2d(input, kernel, up, down, [pad[0], pad[1], pad[0], pad[1]])


def fused_leaky_relu(input: Tensor, bias: Tensor | None = None, negative_slope=0.2, scale=2**0.5):
    bias = 0 if bias is None else bias.reshape(1, -1, *(1,) * (input.ndim - 2))
    return F.leaky_relu(input + bias, negative_slope) * scale


class FusedLeakyReLU(nn.Module):
    def __init__(self, channel, negative_slope=0.2, scale=2**0.5):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channel))
        self.negative_slope, self.scale = negative_slope, scale

    def forward(self, input):
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)


class Upsample(nn.Module):
    def __init__(self, kernel, factor=2):
        super().__init__()
        self.factor = factor
        self.register_buffer("kernel", stylegan_ops.setup_filter(kernel) * factor**2)
        p = self.kernel.shape[0] - factor
        self.pad = (p + 1) // 2 + factor - 1, p // 2

    def forward(self, input):
        return upfirdn2d(input, self.kernel, up=self.factor, down=1, pad=self.pad)


class Blur(nn.Module):
    def __init__(self, kernel, pad, upsample_factor=1):
        super().__init__()
        self.register_buffer("kernel", stylegan_ops.setup_filter(kernel) * upsample_factor**2)
        self.pad = pad

    def forward(self, input):
        return upfirdn2d(input, self.kernel, pad=self.pad)


class EqualConv2d(nn.Module):
    def __init__(self, i, o, kernel_size, stride=1, padding=0, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i, kernel_size, kernel_size))
        self.scale, self.stride, self.padding = 1 / math.sqrt(i * kernel_size**2), stride, padding
        self.bias = nn.Parameter(torch.zeros(o)) if bias else None

    def forward(self, input):
        return F.conv2d(input, self.weight * self.scale, self.bias, self.stride, self.padding)


class EqualLinear(nn.Module):
    def __init__(self, i, o, bias_init=0, lr_mul=1.0, activation=None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(o, i) / lr_mul)
        self.bias = nn.Parameter(torch.full([o], float(bias_init)))
        self.activation, self.scale, self.lr_mul = activation, lr_mul / math.sqrt(i), lr_mul

    def forward(self, input):
        if self.activation:
            return fused_leaky_relu(F.linear(input, self.weight * self.scale), self.bias * self.lr_mul)
        return F.linear(input, self.weight * self.scale, bias=self.bias * self.lr_mul)


class ModulatedConv2d(nn.Module):
    def __init__(self, i, o, kernel_size, style_dim, demodulate=True, upsample=False):
        super().__init__()
        self.eps, self.in_channel, self.out_channel = 1e-8, i, o
        self.kernel_size, self.upsample, self.demodulate = kernel_size, upsample, demodulate
        if upsample:
            p = len(TAPS) - 2 - (kernel_size - 1)
            self.blur = Blur(TAPS, ((p + 1) // 2 + 1, p // 2 + 1), upsample_factor=2)
        self.scale = 1 / math.sqrt(i * kernel_size**2)
        self.weight = nn.Parameter(torch.randn(1, o, i, kernel_size, kernel_size))
        self.modulation = EqualLinear(style_dim, i, bias_init=1)

    def forward(self, input, style):
        n, i, h, w = input.shape
        o, k = self.out_channel, self.kernel_size
        weight = self.scale * self.weight * self.modulation(style).view(n, 1, i, 1, 1)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + self.eps)
        input = input.reshape(1, n * i, h, w)
        if self.upsample:
            weight = weight.transpose(1, 2).reshape(n * i, o, k, k)
            out = F.conv_transpose2d(input, weight, stride=2, groups=n)
            return self.blur(out.view(n, o, *out.shape[2:]))
        out = F.conv2d(input, weight.view(n * o, i, k, k), padding=k // 2, groups=n)
        return out.view(n, o, *out.shape[2:])


class NoiseInjection(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image, noise=None):
        if noise is None:
            n, _, h, w = image.shape
            noise = image.new_empty(n, 1, h, w).normal_()
        return image + self.weight * noise


class StyledConv(nn.Module):
    def __init__(self, i, o, kernel_size, style_dim, upsample=False):
        super().__init__()
        self.conv = ModulatedConv2d(i, o, kernel_size, style_dim, upsample=upsample)
        self.noise = NoiseInjection()
        self.activate = FusedLeakyReLU(o)

    def forward(self, input, style, noise=None):
        return self.activate(self.noise(self.conv(input, style), noise=noise))


class ToRGB(nn.Module):
    def __init__(self, i, style_dim, upsample=True):
        super().__init__()
        if upsample:
            self.upsample = Upsample(TAPS)
        self.conv = ModulatedConv2d(i, 3, 1, style_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, input, style, skip=None):
        out = self.conv(input, style) + self.bias
        return out if skip is None else out + self.upsample(skip)


class Generator(nn.Module):
    Styled, ToRGB = StyledConv, ToRGB

    def __init__(self, resolution=64, base=16384, most=512, style_dim=512, layers=8):
        super().__init__()
        widths = [min(base >> n, most) for n in range(2, resolution.bit_length())]
        mapping = (EqualLinear(style_dim, style_dim, lr_mul=0.01, activation="fused_lrelu") for _ in range(layers))
        self.style = nn.Sequential(*mapping)
        self.input = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        Styled, ToRGB = self.Styled, self.ToRGB
        self.conv1, self.to_rgb1 = Styled(widths[0], widths[0], 3, style_dim), ToRGB(widths[0], style_dim, False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for i, o in pairwise(widths):
            self.convs += [Styled(i, o, 3, style_dim, upsample=True), Styled(o, o, 3, style_dim)]
            self.to_rgbs.append(ToRGB(o, style_dim))
        self.num_ws = 2 * len(widths)

    def ws(self, z):
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        return self.style(z)[:, None].repeat(1, self.num_ws, 1)

    def synthesis(self, ws):
        out = self.conv1(self.input.repeat(len(ws), 1, 1, 1), ws[:, 0])
        skip = self.to_rgb1(out, ws[:, 1])
        for n, to_rgb in enumerate(self.to_rgbs):
            out = self.convs[2 * n](out, ws[:, 2 * n + 1])
            out = self.convs[2 * n + 1](out, ws[:, 2 * n + 2])
            skip = to_rgb(out, ws[:, 2 * n + 3], skip)
        return skip

    def forward(self, z):
        return self.synthesis(self.ws(z))


class ConvLayer(nn.Sequential):
    def __init__(self, i, o, kernel_size, downsample=False, activate=True):
        layers = []
        if downsample:
            p = len(TAPS) - 2 + kernel_size - 1
            layers.append(Blur(TAPS, ((p + 1) // 2, p // 2)))
        stride, padding = (2, 0) if downsample else (1, kernel_size // 2)
        layers.append(EqualConv2d(i, o, kernel_size, stride, padding, bias=False))
        super().__init__(*layers, *([FusedLeakyReLU(o)] if activate else []))


class ResBlock(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.conv1, self.conv2 = ConvLayer(i, i, 3), ConvLayer(i, o, 3, downsample=True)
        self.skip = ConvLayer(i, o, 1, downsample=True, activate=False)

    def forward(self, input):
        return (self.conv2(self.conv1(input)) + self.skip(input)) / math.sqrt(2)


class Discriminator(nn.Module):
    def __init__(self, resolution=64, base=16384, most=512):
        super().__init__()
        widths = [min(base >> n, most) for n in range(resolution.bit_length() - 1, 1, -1)]
        blocks = (ResBlock(i, o) for i, o in pairwise(widths))
        self.convs = nn.Sequential(ConvLayer(3, widths[0], 1), *blocks)
        self.final_conv = ConvLayer(widths[-1] + 1, widths[-1], 3)
        linear = EqualLinear(widths[-1] * 16, widths[-1], activation="fused_lrelu")
        self.final_linear = nn.Sequential(linear, EqualLinear(widths[-1], 1))

    def forward(self, input):
        return self.final_linear(self.final_conv(minibatch_std(self.convs(input))).flatten(1))
