"""Modules and checks shared by the families.

Equalised learning rate (Karras et al. 2018, arXiv:1710.10196, section 4.1): weights are drawn from N(0, 1). They are
scaled by 1 / sqrt(fan in) in the forward pass, so that Adam changes all of them by the same share of their size.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from gan_engine.activated import biased
from gan_engine.convolutions import Conv2d as Conv2d
from gan_engine.convolutions import ConvTranspose2d as ConvTranspose2d
from gan_engine.ops import (
    bias_act,
    convolution,
    downsample_conv2d,
    filter2d,
    modulated_conv2d,
    norm_act,
    setup_filter,
    upsample_conv2d,
)


def check_class(c: Tensor | None, c_dim: int) -> None:
    """Refuse a c that does not fit a network of `c_dim` classes (0: a network without classes)."""
    got = 0 if c is None else c.shape[-1]
    if got != c_dim:
        want = f"c [N, {c_dim}]" if c_dim else "no c (the network has no classes)"
        raise ValueError(f"want {want}, got {'none' if c is None else f'c {list(c.shape)}'}")


class Weights(nn.Module):
    """The weight and bias of `layer` under the same names, in a module that has a call of its own.

    Code that replaces layers relies on what nn.Linear and nn.Conv2d do: nn.Linear takes one argument, and the stride
    and padding of nn.Conv2d give the size of its images. A module that does something else must not be a subclass.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight = layer.weight
        self.register_parameter("bias", layer.bias)
        self.out_channels, self.in_channels = layer.weight.shape[:2]

    def extra_repr(self) -> str:
        return f"weight={list(self.weight.shape)}, bias={self.bias is not None}"


class ClassEmbedding(Weights):
    """y [N, z_dim + embed_dim] = (z [N, z_dim], weight c [N, c_dim]): a generator reads an embedding of c beside z"""

    def __init__(self, c_dim: int, embed_dim: int) -> None:
        super().__init__(nn.Linear(c_dim, embed_dim, bias=False))

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return torch.cat([z, F.linear(c, self.weight).to(z.dtype)], dim=1)


class ClassProjection(Weights):
    """y [N] = <weight c [N, c_dim], x [N, C, ...] summed over its pixels>, which a discriminator adds to its logits

    Equation 4 of Miyato and Koyama 2018, arXiv:1802.05637.
    """

    def __init__(self, c_dim: int, features: int) -> None:
        super().__init__(nn.Linear(c_dim, features, bias=False))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        pixels = list(range(2, x.ndim))
        return (F.linear(c, self.weight) * (x.sum(pixels) if pixels else x)).sum(1)


def as_filter(f: Tensor | None) -> Tensor | None:
    """A filter from `setup_filter`, in float32 again if the network that holds it has another dtype."""
    return None if f is None else f.float()


class EqualizedLinear(nn.Module):
    """y [..., O] = act(x [..., I] @ (weight * lr_multiplier / sqrt(I))^T + bias * lr_multiplier)

    `lr_multiplier` below 1 lets the layer learn more slowly than the others, as 0.01 does in StyleGAN's mapping network
    (Karras et al. 2019, arXiv:1812.04948, appendix C). Its weights start larger by 1 / lr_multiplier.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        bias_init: float = 0,
        act: str = "linear",
        lr_multiplier: float = 1,
    ) -> None:
        super().__init__()
        self.act, self.lr_multiplier = act, lr_multiplier
        self.scale = lr_multiplier / in_features**0.5
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = x @ (self.weight * self.scale).to(x.dtype).t()
        bias = None if self.bias is None else self.bias * self.lr_multiplier
        return bias_act(y, bias, dim=-1, act=self.act)


class EqualizedConv2d(nn.Module):
    """y [N, O, H', W'] = act(conv(x [N, I, H, W], weight / sqrt(I k^2)) + bias)

    `resample` "up" doubles x before the convolution, and "down" halves its result. Both use the filter `taps`. "up"
    repeats the nearest neighbours if there is no filter, and "down" takes means.
    """

    f: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        act: str = "linear",
        gain: float | None = None,
        clamp: float | None = None,
        resample: str | None = None,
        taps: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if resample not in (None, "up", "down"):
            raise ValueError(f"EqualizedConv2d: resample must be None, 'up' or 'down', got {resample!r}")
        self.resample = resample
        self.register_buffer("f", None if taps is None else setup_filter(taps), persistent=False)
        self.scale = (in_channels * kernel_size**2) ** -0.5
        if gain is not None and not bias and act == "linear" and clamp is None:
            self.scale, gain = self.scale * gain, None  # in the weight it costs no pass over y
        self.after: dict[str, Any] = {"act": act, "gain": gain, "clamp": clamp}
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight, f = self.weight * self.scale, as_filter(self.f)
        if self.resample == "up":
            mode = "nearest" if f is None else "fir"
            return upsample_conv2d(x, weight, self.bias, mode=mode, f=f, **self.after)
        if self.resample == "down":
            mode = "mean" if f is None else "fir"
            return downsample_conv2d(x, weight, self.bias, mode=mode, f=f, **self.after)
        x = convolution.conv2d(x, weight.to(x.dtype), padding=weight.shape[2] // 2)
        return bias_act(x, self.bias, **self.after)


class Blur(nn.Module):
    """y [N, C, H, W] = x [N, C, H, W] filtered with `taps` along both axes, whose sum is made 1"""

    f: Tensor

    def __init__(self, taps: Sequence[float] = (1, 3, 3, 1)) -> None:
        super().__init__()
        self.register_buffer("f", setup_filter(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return filter2d(x, as_filter(self.f))


class BiasAct(nn.Module):
    """y [N, O, ...] = act(layer(x) + bias [O]) with gain 1, for a convolution or nn.Linear without a bias of its own

    `name` is what the layer is called in a state_dict.
    """

    def __init__(self, layer: Any, *, act: str = "lrelu", name: str = "layer") -> None:
        super().__init__()
        self.act, self.name = act, name
        self.add_module(name, layer)
        features = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return biased(getattr(self, self.name), x, self.bias, act=self.act)


def dense(widths: Sequence[int], *, last: str) -> nn.Sequential:
    """Linear layers from widths[0] to widths[-1] features with leaky ReLUs; `last` is the activation of the last."""
    acts = ["lrelu"] * (len(widths) - 2) + [last]
    layers = (nn.Linear(i, o, bias=False) for i, o in pairwise(widths))
    return nn.Sequential(*(BiasAct(layer, act=act, name="linear") for layer, act in zip(layers, acts, strict=True)))


class UpsampleConv2d(Weights):
    """y [N, O, 2 H, 2 W] = conv(double(x [N, I, H, W])), nn.Conv2d behind nearest neighbours, in one convolution"""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return upsample_conv2d(x, self.weight, self.bias)


class DownsampleConv2d(Weights):
    """y [N, O, H / 2, W / 2] = means of 2x2 of conv(x [N, I, H, W]), nn.Conv2d before means, in one convolution"""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, bias: bool = True) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, kernel_size, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        return downsample_conv2d(x, self.weight, self.bias)


class ModulatedConv2d(nn.Module):
    """y [N, O, H', W'] = act(modulated conv(x [N, I, H, W], styles) + noise + bias), styles = affine(w [N, w_dim])

    `up` is the factor of the image's size, and `taps` the filter behind it.

    This is the layer of StyleGAN2 (Karras et al. 2020, arXiv:1912.04958, figure 2c). `demodulate=False`, `noise=False`
    and kernel_size 1 make it StyleGAN2's layer to colours. Noise that is not given is drawn in each call. Its strength
    is learnt and starts at 0. `after` are the options act, alpha, gain and clamp of `modulated_conv2d`.
    """

    f: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        w_dim: int,
        demodulate: bool = True,
        noise: bool = True,
        up: int = 1,
        taps: Sequence[float] = (1, 3, 3, 1),
        **after: Any,
    ) -> None:
        super().__init__()
        self.demodulate, self.up, self.after = demodulate, up, after
        self.register_buffer("f", setup_filter(taps) if up > 1 else None, persistent=False)
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(())) if noise else None
        # Demodulation cancels any factor. Otherwise the styles are scaled for the equalised learning rate.
        self.scale = 1.0 if demodulate else (in_channels * kernel_size**2) ** -0.5

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """noise [N or 1, 1, H', W']"""
        if self.noise_strength is not None and noise is None:
            size = [side * self.up for side in x.shape[2:]]
            noise = torch.randn((x.shape[0], 1, *size), dtype=torch.float32, device=x.device)
        styles = self.affine(w)
        if self.scale != 1:
            styles = styles * self.scale
        return modulated_conv2d(
            x,
            self.weight,
            styles,
            demodulate=self.demodulate,
            noise=noise,
            noise_strength=self.noise_strength,
            bias=self.bias,
            up=self.up,
            f=as_filter(self.f),
            **self.after,
        )


class InstanceNorm2d(nn.Module):
    """y [N, C, H, W] = act(weight * (x - mean) / sqrt(var + eps) + bias), of each image and channel, with gain 1

    `norm_act` computes it (Ulyanov et al. 2016, arXiv:1607.08022). `act`: linear, relu or lrelu.
    """

    def __init__(self, features: int, *, act: str = "linear") -> None:
        super().__init__()
        self.act = act
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        if has_torch_function_unary(x):  # a tensor that is PyTorch's to take or to refuse
            y = F.instance_norm(x, weight=self.weight, bias=self.bias)
            return bias_act(y, act=self.act, gain=1)
        return norm_act(x, self.weight, self.bias, norm="instance", act=self.act)


def doubling(in_channels: int, out_channels: int, transposed: int | None = None) -> nn.Module:
    """x [N, I, H, W] -> [N, O, 2 H, 2 W] without a bias: a 3x3 convolution behind nearest neighbours

    `transposed` is the size of a transposed convolution, 3 or 4, that takes its place.
    """
    if transposed is None:
        return UpsampleConv2d(in_channels, out_channels, 3, bias=False)
    return ConvTranspose2d(in_channels, out_channels, transposed, 2, 1, output_padding=transposed % 2, bias=False)


class UpsampleBlock(nn.Module):
    """y [N, O, 2 H, 2 W] = dropout(relu(norm(double(x [N, I, H, W])))), the norm of each image and channel

    `doubling` explains `transposed`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, dropout: float = 0, transposed: int | None = None
    ) -> None:
        super().__init__()
        self.conv = doubling(in_channels, out_channels, transposed)
        self.norm = InstanceNorm2d(out_channels, act="relu")
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.norm(self.conv(x)))
