"""Layers of the networks of StyleGAN2-ADA and StyleGAN3's "stylegan2", by their attributes and arguments."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gan_engine import ops
from gan_engine.compat.arguments import filter_for, fitting, in_layout_of, modulated
from gan_engine.ops import convolution
from gan_engine.ops.resample_conv2d import fir_downsample_conv2d
from gan_engine.patch.rule import Layer, Rule, arguments_of, has

_LINEAR = ("linear", "relu", "lrelu")  # activations that follow a modulated convolution in one pass


def styled(layer: nn.Module) -> Iterator[Layer | str]:
    """y = act(modulated conv(x, affine(w)) + noise * noise_strength + bias)"""
    wanted = (
        "affine",
        "weight",
        "bias",
        "up",
        "padding",
        "activation",
        "act_gain",
        "conv_clamp",
        "use_noise",
        "resolution",
    )
    if arguments_of(layer) != ("x", "w", "noise_mode", "fused_modconv", "gain") or not has(layer, *wanted):
        return
    if layer.activation not in _LINEAR:
        yield f"the activation {layer.activation} does not join the convolution"
        return

    original = type(layer).forward

    def forward(self, x, w, noise_mode="random", fused_modconv=True, gain=1):
        if noise_mode not in ("random", "const", "none"):
            return original(self, x, w, noise_mode, fused_modconv, gain)  # which knows what that is
        noise = None
        if self.use_noise and noise_mode != "none":
            size = [x.shape[0], 1, self.resolution, self.resolution]
            noise = torch.randn(size, device=x.device) if noise_mode == "random" else self.noise_const
            noise = noise * self.noise_strength
        return modulated(
            x,
            self.weight,
            self.affine(w),
            getattr(self, "resample_filter", None),
            noise=noise,
            bias=self.bias,
            act=self.activation,
            gain=self.act_gain * float(gain),
            clamp=None if self.conv_clamp is None else self.conv_clamp * float(gain),
            up=self.up,
            down=1,
            padding=self.padding,
            flip_weight=self.up == 1,
        )

    def prepare(trial):
        trial.resolution = 4 * trial.up
        if trial.use_noise:
            trial.noise_const = trial.noise_const[: trial.resolution, : trial.resolution]

    def inputs():
        x, w = _x(layer.weight.shape[1], 4), torch.randn(2, layer.affine.weight.shape[1])
        modes = ("random", 1, 1), ("none", 1, 1e4), ("const", 0.5, 1e4)  # large numbers reach the clamp
        return [((scale * x, w), {"noise_mode": mode, "gain": gain}) for mode, gain, scale in modes]

    note = "modulated convolution, noise, bias and activation in one layer"
    yield Layer(note, {"forward": forward}, inputs, prepare=prepare)


def to_rgb(layer: nn.Module) -> Iterator[Layer | str]:
    """y = clamp(modulated conv(x, affine(w) * weight_gain) + bias), without demodulation"""
    wanted = "affine", "weight", "bias", "weight_gain", "conv_clamp"
    if arguments_of(layer) != ("x", "w", "fused_modconv") or not has(layer, *wanted):
        return

    def forward(self, x, w, fused_modconv=True):
        styles = self.affine(w) * self.weight_gain
        options = {"up": 1, "down": 1, "padding": 0, "demodulate": False, "clamp": self.conv_clamp}
        return modulated(x, self.weight, styles, None, noise=None, bias=self.bias, flip_weight=True, **options)

    def inputs():
        x, w = _x(layer.weight.shape[1], 4), torch.randn(2, layer.affine.weight.shape[1])
        return [((scale * x, w), {}) for scale in (1, 1e4)]

    yield Layer("modulated convolution and bias in one layer", {"forward": forward}, inputs)


def convolved(layer: nn.Module) -> Iterator[Layer | str]:
    """y = act(conv(x, weight * weight_gain) + bias), upsampled before or downsampled behind"""
    wanted = "weight", "bias", "up", "down", "padding", "weight_gain", "activation", "act_gain", "conv_clamp"
    if arguments_of(layer) != ("x", "gain") or not has(layer, *wanted) or layer.weight.ndim != 4:
        return
    if max(layer.up, layer.down) > 2 or layer.padding != layer.weight.shape[2] // 2 or min(layer.up, layer.down) > 1:
        yield "it changes the size by more than 2, or pads in another way"
        return

    def forward(self, x, gain=1):
        act_gain, clamp = self.act_gain * float(gain), self.conv_clamp
        clamp = None if clamp is None else clamp * float(gain)
        scale = self.weight_gain
        if self.bias is None and self.activation == "linear" and clamp is None:
            scale, act_gain = scale * act_gain, 1  # in the weight it costs no pass over y
        weight, bias = fitting(self.weight * scale, x), None if self.bias is None else fitting(self.bias, x)
        after: Any = {"act": self.activation, "gain": act_gain, "clamp": clamp}
        f = filter_for(x, getattr(self, "resample_filter", None))
        if self.up > 1:
            weight = weight if weight.shape[2:].numel() == 1 else weight.flip([2, 3])
            return in_layout_of(ops.upsample_conv2d(x, weight, bias, mode="fir", f=f, **after), x, weight)
        if self.down > 1 and x.shape[2] % 2 == x.shape[3] % 2 == 0:
            return ops.downsample_conv2d(x, weight, bias, mode="fir", f=f, **after)
        if self.down > 1:  # of a side that the operator does not halve
            y = fir_downsample_conv2d(x, weight, f, down=self.down, padding=self.padding)
        else:
            y = convolution.conv2d(x, weight.to(x.dtype), padding=self.padding)
        return y if bias is None and act_gain == 1 and self.activation == "linear" else ops.bias_act(y, bias, **after)

    def inputs():
        x = _x(layer.weight.shape[1], 6)
        return [((scale * x,), {"gain": gain}) for gain in (1, 0.5) for scale in (1, 1e4)]

    yield Layer("convolution, resampling, bias and activation in one layer", {"forward": forward}, inputs)


def connected(layer: nn.Module) -> Iterator[Layer | str]:
    """y [N, O] = act(x [N, I] @ (weight * weight_gain)^T + bias * bias_gain)"""
    wanted = "weight", "bias", "weight_gain", "bias_gain", "activation"
    if arguments_of(layer) != ("x",) or not has(layer, *wanted) or layer.weight.ndim != 2:
        return
    if layer.activation == "linear":
        yield "one matrix product with its bias, which PyTorch joins"
        return

    def forward(self, x):
        y = x @ (self.weight * self.weight_gain).to(x.dtype).t()
        bias = None if self.bias is None else fitting(self.bias * self.bias_gain, x)
        return ops.bias_act(y, bias, act=self.activation)

    x = torch.randn(3, layer.weight.shape[1])
    yield Layer("bias and activation in one pass", {"forward": forward}, lambda: [((x,), {})])


def _x(channels: int, side: int) -> Tensor:
    return torch.randn(2, channels, side, side)


RULES: tuple[Rule, ...] = (styled, to_rgb, convolved, connected)
