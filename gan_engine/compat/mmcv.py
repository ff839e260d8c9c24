"""`mmcv.ops` from mmcv 2.0 on: `from gan_engine.compat.mmcv import bias_act, fused_bias_leakyrelu, upfirdn2d, ...`

`upfirdn2d` of mmcv 1 has the arguments of gan_engine.compat.rosinality.upfirdn2d. `use_custom_op=False` asks for the
definition.
"""

import math
from typing import Any

from torch import Tensor

from gan_engine.compat import stylegan
from gan_engine.compat.arguments import LeakyReLU
from gan_engine.compat.basicsr import fused_leaky_relu as fused_bias_leakyrelu
from gan_engine.compat.stylegan.conv2d_gradfix import conv2d, conv_transpose2d

__all__ = [
    "FusedBiasLeakyReLU",
    "bias_act",
    "conv2d",
    "conv_transpose2d",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "fused_bias_leakyrelu",
    "upfirdn2d",
    "upsample2d",
]


class FusedBiasLeakyReLU(LeakyReLU):
    """y = scale * leaky_relu(x + bias, negative_slope)"""

    def __init__(self, num_channels: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__(num_channels, True, negative_slope, scale)


def _impl(use_custom_op: bool) -> str:
    return "cuda" if use_custom_op else "ref"


def bias_act(
    input: Tensor,
    bias: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    use_custom_op: bool = True,
) -> Tensor:
    """As `bias_act` of gan_engine.compat.stylegan"""
    return stylegan.bias_act.bias_act(input, bias, dim, act, alpha, gain, clamp, _impl(use_custom_op))


def upfirdn2d(
    input: Tensor,
    filter: Tensor | None,
    up: Any = 1,
    down: Any = 1,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """As `upfirdn2d` of gan_engine.compat.stylegan"""
    impl = _impl(use_custom_op)
    return stylegan.upfirdn2d.upfirdn2d(input, filter, up, down, padding, flip_filter, gain, impl)


def filter2d(
    input: Tensor,
    filter: Tensor | None,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """As `filter2d` of gan_engine.compat.stylegan"""
    return stylegan.upfirdn2d.filter2d(input, filter, padding, flip_filter, gain, _impl(use_custom_op))


def upsample2d(
    input: Tensor,
    filter: Tensor | None,
    up: Any = 2,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """As `upsample2d` of gan_engine.compat.stylegan"""
    return stylegan.upfirdn2d.upsample2d(input, filter, up, padding, flip_filter, gain, _impl(use_custom_op))


def downsample2d(
    input: Tensor,
    filter: Tensor | None,
    down: Any = 2,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1,
    use_custom_op: bool = True,
) -> Tensor:
    """As `downsample2d` of gan_engine.compat.stylegan"""
    return stylegan.upfirdn2d.downsample2d(input, filter, down, padding, flip_filter, gain, _impl(use_custom_op))


def filtered_lrelu(
    input: Tensor,
    filter_up: Tensor | None = None,
    filter_down: Tensor | None = None,
    bias: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Any = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    use_custom_op: bool = True,
) -> Tensor:
    """As `filtered_lrelu` of gan_engine.compat.stylegan"""
    options = up, down, padding, gain, slope, clamp, flip_filter
    return stylegan.filtered_lrelu.filtered_lrelu(input, filter_up, filter_down, bias, *options, _impl(use_custom_op))
