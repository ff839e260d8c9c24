"""`op` of rosinality's stylegan2-pytorch: `from gan_engine.compat.rosinality import FusedLeakyReLU, upfirdn2d, ...`"""

from typing import Any

from torch import Tensor

from gan_engine.compat.arguments import LeakyReLU, fir, leaky, numbers
from gan_engine.compat.stylegan import conv2d_gradfix

__all__ = ["FusedLeakyReLU", "conv2d_gradfix", "fused_leaky_relu", "upfirdn2d"]


def fused_leaky_relu(
    input: Tensor, bias: Tensor | None = None, negative_slope: float = 0.2, scale: float = 2**0.5
) -> Tensor:
    """y = scale * leaky_relu(input + bias, negative_slope), the bias along dimension 1

    Their code for CPUs has the slope 0.2 whatever is asked for; here it is what is asked for.
    """
    return leaky(input, bias, negative_slope, scale)


class FusedLeakyReLU(LeakyReLU):
    """y = scale * leaky_relu(x + bias, negative_slope)"""

    def __init__(self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__(channel, bias, negative_slope, scale)


def upfirdn2d(input: Tensor, kernel: Tensor, up: Any = 1, down: Any = 1, pad: Any = (0, 0)) -> Tensor:
    """gan_engine.ops.upfirdn2d with the gain in the filter

    `pad` is (before, after) of both axes, or (x0, x1, y0, y1).
    """
    sides = list(pad)
    return fir(input, kernel, up, down, numbers(sides * 2 if len(sides) == 2 else sides))
