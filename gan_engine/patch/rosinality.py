"""Layers of rosinality's StyleGAN2, and of its descendants in BasicSR and mmagic, by their parameters.

The three agree in what a layer computes, and differ in names and in where factors lie. A modulated convolution has a
weight [1, O, I, k, k] and a child that maps the style to [N, I]. What its numbers do not say, such as the scale of the
weight, is found by comparison: each of the few possibilities is a candidate.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_engine.compat.arguments import fir, fitting, leaky, modulated
from gan_engine.ops import convolution
from gan_engine.patch.rule import Layer, Rule, arguments_of, by_position, has


class Modulated(NamedTuple):
    """A modulated convolution: what one of its candidates would compute."""

    scale: float  # of the styles, for that of the weight
    demodulate: bool
    up: int
    down: int
    style_dim: int
    modulation: str  # the name of the child that maps the style
    taps: str | None  # the name of the buffer of taps, with dots

    def __call__(self, layer: Any, x: Tensor, style: Tensor, **after: Any) -> Tensor:
        weight, f = layer.weight[0], None if self.taps is None else layer.get_buffer(self.taps)
        styles = getattr(layer, self.modulation)(style) * self.scale
        if self.up > 1:
            f = f / self.up**2  # their filter holds the gain
        options = {"demodulate": self.demodulate, "up": self.up, "down": self.down, "padding": weight.shape[2] // 2}
        after = {"noise": None} | after
        return modulated(x, weight, styles, f, flip_weight=self.up == 1, **options, **after)


def _weight(layer: nn.Module) -> Tensor | None:
    """The weight [1, O, I, k, k] of a modulated convolution; a hook may make it out of a parameter of another name."""
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        owned = list(layer.parameters(recurse=False))
        weight = owned[0] if len(owned) == 1 and hasattr(layer, "weight_orig") else None
    return weight if weight is not None and weight.ndim == 5 and weight.shape[0] == 1 else None


def possibilities(layer: nn.Module) -> Iterator[Modulated]:
    """What a layer with such a weight may compute."""
    weight = _weight(layer)
    if weight is None or len(arguments_of(layer)) < 2:
        return
    _, _, i, k, _ = weight.shape
    matrices = ((name, p) for name, child in layer.named_children() for p in child.parameters() if p.ndim == 2)
    name, matrix = next(((name, p) for name, p in matrices if p.shape[0] == i), ("", None))
    if matrix is None:
        return
    taps = next((n for n, b in layer.named_buffers() if b.ndim == 2 and b.shape[0] == b.shape[1]), None)
    for up, down in ((1, 1),) if taps is None else ((2, 1), (1, 2), (1, 1)):
        for scale in ((i * k * k) ** -0.5, 1.0):
            for demodulate in (True, False):
                yield Modulated(scale, demodulate, up, down, matrix.shape[1], name, taps)


def modulated_alone(layer: nn.Module) -> Iterator[Layer | str]:
    """y = modulated conv(x, modulation(style))"""
    for core in possibilities(layer):
        yield Layer("modulated convolution", {"forward": by_position(layer, core, 2)}, _inputs_of(layer, core, {}))


def _inputs_of(layer: nn.Module, core: Modulated, *options: dict[str, Any]) -> Any:
    weight = _weight(layer)
    assert weight is not None
    channels = weight.shape[2]
    return lambda: [((torch.randn(2, channels, 4, 4), torch.randn(2, core.style_dim)), dict(o)) for o in options]


class Activation(NamedTuple):
    """scale * leaky_relu(x + bias, slope) behind a convolution: the child with the bias, and its two numbers."""

    name: str
    slope: float
    scale: float


def _activation(layer: nn.Module) -> Activation | None:
    for name, child in layer.named_children():
        bias = child._parameters.get("bias")
        if (
            bias is not None
            and bias.ndim == 1
            and len(child._parameters) == 1
            and has(child, "negative_slope", "scale")
        ):
            return Activation(name, float(child.negative_slope), float(child.scale))
    return None


def styled(layer: nn.Module) -> Iterator[Layer | str]:
    """y = act(modulated conv(x, style) + strength * noise), with noise that is drawn if it is not given"""
    after = _activation(layer)
    convs = [(name, child) for name, child in layer.named_children() if _weight(child) is not None]
    strengths = [name for name, p in layer.named_parameters() if p.numel() == 1]
    if after is None or len(convs) != 1 or len(strengths) != 1 or arguments_of(layer)[2:3] != ("noise",):
        return
    name, conv = convs[0]
    if conv._forward_hooks:
        yield f"its part {name} has a hook"
        return
    owner, _, parameter = strengths[0].rpartition(".")
    covers = (*conv.modules(), *layer.get_submodule(after.name).modules(), layer.get_submodule(owner))
    covers = tuple(part for part in covers if part is not layer)
    for core in possibilities(conv):

        def forward(self, x, style, noise, core=core):
            conv = getattr(self, name)
            for hook in conv._forward_pre_hooks.values():  # such as one that scales the weight
                hook(conv, (x, style))
            if noise is None:
                side = [s * core.up // core.down for s in x.shape[2:]]
                noise = x.new_empty(x.shape[0], 1, *side).normal_()
            strength = getattr(self.get_submodule(owner), parameter).reshape(())
            options = {"act": "lrelu", "alpha": after.slope, "gain": after.scale}
            bias = fitting(getattr(self, after.name).bias, x)
            return core(conv, x, style, noise=noise, noise_strength=strength, bias=bias, **options)

        side = 4 * core.up // core.down
        inputs = _inputs_of(conv, core, {}, {"noise": torch.randn(1, 1, side, side)})
        note = "modulated convolution, noise, bias and activation in one layer"
        kept = {id(part) for part in getattr(conv, core.modulation).modules()}
        inside = tuple(part for part in covers if id(part) not in kept)
        yield Layer(note, {"forward": by_position(layer, forward, 3)}, inputs, inside)


def equalised(layer: nn.Module) -> Iterator[Layer | str]:
    """y = conv(x, weight * scale) + bias"""
    weight = layer._parameters.get("weight")
    if weight is None or weight.ndim != 4 or len(arguments_of(layer)) != 1 or not has(layer, "stride", "padding"):
        return
    if not isinstance(getattr(layer, "scale", None), float):
        return

    def forward(self, x):
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return convolution.conv2d(x, (self.weight * self.scale).to(x.dtype), bias, self.stride, self.padding)

    x = torch.randn(2, weight.shape[1], 9, 9)
    yield Layer("convolution", {"forward": by_position(layer, forward, 1)}, lambda: [((x,), {})])


def activation(layer: nn.Module) -> Iterator[Layer | str]:
    """y = scale * leaky_relu(x + bias, negative_slope)"""
    bias = layer._parameters.get("bias")
    if bias is None or bias.ndim != 1 or len(layer._parameters) != 1 or not has(layer, "negative_slope", "scale"):
        return

    def forward(self, x):
        return leaky(x, self.bias, self.negative_slope, self.scale)

    shapes = (2, len(bias), 3, 5), (4, len(bias))
    yield Layer(
        "bias and activation in one pass", {"forward": forward}, lambda: [((torch.randn(s),), {}) for s in shapes]
    )


def filtered(layer: nn.Module) -> Iterator[Layer | str]:
    """y = x upsampled, filtered and downsampled, with the padding `pad`"""
    buffers = [(name, b) for name, b in layer.named_buffers() if b.ndim == 2]
    pad = getattr(layer, "pad", None)
    if len(buffers) != 1 or any(True for _ in layer.parameters()) or not isinstance(pad, (tuple, list)):
        return
    if len(pad) != 2 or len(arguments_of(layer)) != 1:
        return
    for up, down in ((1, 1), (2, 1), (1, 2)):

        def forward(self, x, up=up, down=down):
            low, high = self.pad
            return fir(x, self.get_buffer(buffers[0][0]), up, down, [low, high, low, high])

        x = torch.randn(2, 3, 8, 8)
        yield Layer("FIR filter", {"forward": by_position(layer, forward, 1)}, lambda x=x: [((x,), {})])


RULES: tuple[Rule, ...] = (styled, modulated_alone, equalised, activation, filtered)
