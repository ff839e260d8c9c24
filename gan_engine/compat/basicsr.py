"""`basicsr.ops`: `from gan_engine.compat.basicsr import FusedLeakyReLU, fused_leaky_relu, upfirdn2d`"""

from torch import Tensor

from gan_engine.compat.arguments import LeakyReLU, leaky
from gan_engine.compat.rosinality import upfirdn2d

__all__ = ["FusedLeakyReLU", "fused_leaky_relu", "upfirdn2d"]


def fused_leaky_relu(input: Tensor, bias: Tensor, negative_slope: float = 0.2, scale: float = 2**0.5) -> Tensor:
    """y = scale * leaky_relu(input + bias, negative_slope), the bias along dimension 1"""
    return leaky(input, bias, negative_slope, scale)


class FusedLeakyReLU(LeakyReLU):
    """y = scale * leaky_relu(x + bias, negative_slope)"""

    def __init__(self, channel: int, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__(channel, True, negative_slope, scale)
