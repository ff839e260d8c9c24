"""Layers of PyTorch: convolutions, and what follows them in an nn.Sequential."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gan_engine import layers, ops
from gan_engine.activated import is_pytorchs, normed
from gan_engine.patch.probe import difference
from gan_engine.patch.rule import Layer, Rule
from gan_engine.system.names import counted


def convolved(layer: nn.Module) -> Iterator[Layer | str]:
    """nn.Conv2d and nn.ConvTranspose2d, and their subclasses that compute the same"""
    if isinstance(layer, layers.Conv2d | layers.ConvTranspose2d):
        return
    kind = type(layer)
    if isinstance(layer, nn.Conv2d) and kind.forward is nn.Conv2d.forward:
        if kind._conv_forward is not nn.Conv2d._conv_forward:
            yield "its convolution is its own"
        elif isinstance(layer.padding, str):
            yield f"its padding is the word {layer.padding!r}"
        else:
            yield Layer("convolution", {"_conv_forward": layers.Conv2d._conv_forward}, _images(layer))
    elif isinstance(layer, nn.ConvTranspose2d) and kind.forward is nn.ConvTranspose2d.forward:
        yield Layer("transposed convolution", {"forward": layers.ConvTranspose2d.forward}, _images(layer))


def _images(layer: Any) -> Any:
    reach = max(d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size))
    return lambda: [((torch.randn(2, layer.in_channels, reach + 5, reach + 6),), {})]


def in_a_row(layer: nn.Module) -> Iterator[Layer | str]:
    """The children of an nn.Sequential, of which some pairs run in one pass; each pair is compared by itself"""
    if not isinstance(layer, nn.Sequential) or type(layer).forward is not nn.Sequential.forward:
        return
    children = list(layer)
    good = frozenset(i for i in range(len(children) - 1) if _is_right(children[i], children[i + 1]))
    if not good:
        return

    def forward(self, input):
        parts, i, x = list(self), 0, input
        while i < len(parts):
            pair = parts[i : i + 2]  # of one layer, if the layer behind it was taken away
            join = _joined(*pair) if i in good and len(pair) == 2 and _are_images(x) else None
            x = parts[i](x) if join is None else join(*pair, x)
            i += 1 if join is None else 2
        return x

    norms = tuple(children[i] for i in good if isinstance(children[i], nn.BatchNorm2d))
    note = f"{counted(len(good), 'pair')} of a layer and its activation in one pass"
    yield Layer(note, {"forward": forward}, list, norms)


def normalised(layer: nn.Module) -> Iterator[Layer | str]:
    """nn.BatchNorm2d that no pair of `in_a_row` covers"""
    if type(layer) is nn.BatchNorm2d and is_pytorchs(layer, nn.BatchNorm2d.forward):
        yield "no ReLU, and no leaky ReLU of slope 0.2, is behind it in an nn.Sequential"


Join = Callable[[Any, nn.Module, Tensor], Tensor]
_CONVOLUTIONS = (nn.Conv2d.forward, layers.Conv2d.forward)
_WITH_BIAS = (nn.Conv2d._conv_forward, layers.Conv2d._conv_forward)


def _is_right(first: Any, second: nn.Module) -> bool:
    join = _joined(first, second)
    if join is None:
        return False
    pair = nn.Sequential(first, second)
    images = (
        _images(first) if isinstance(first, nn.Conv2d) else lambda: [((torch.randn(3, first.num_features, 5, 4),), {})]
    )
    return difference(pair, Layer("", {"forward": lambda self, x: join(self[0], self[1], x)}, images)) is None


def _joined(first: Any, second: nn.Module) -> Join | None:
    """What computes a layer and the activation behind it in one pass"""
    if not is_pytorchs(second, nn.ReLU.forward, nn.LeakyReLU.forward):
        return None
    if isinstance(first, nn.BatchNorm2d) and is_pytorchs(first, nn.BatchNorm2d.forward):
        return _normed if isinstance(second, nn.ReLU) or second.negative_slope == 0.2 else None
    if isinstance(first, nn.Conv2d) and is_pytorchs(first, *_CONVOLUTIONS) and first.bias is not None:
        return _biased if type(first)._conv_forward in _WITH_BIAS else None
    return None


def _are_images(x: Any) -> bool:
    """True for [N, C, H, W]. A convolution also takes one image [C, H, W], and torch.fx passes what is no tensor."""
    return isinstance(x, Tensor) and x.ndim == 4


def _normed(norm: Any, act: nn.Module, x: Tensor) -> Tensor:
    return normed(norm, x, act="relu" if isinstance(act, nn.ReLU) else "lrelu")


def _biased(conv: Any, act: Any, x: Tensor) -> Tensor:
    y = conv._conv_forward(x, conv.weight, None)
    slope = 0.0 if isinstance(act, nn.ReLU) else act.negative_slope
    return ops.bias_act(y, conv.bias, act="lrelu" if slope else "relu", alpha=slope, gain=1)


RULES: tuple[Rule, ...] = (convolved, in_a_row, normalised)
