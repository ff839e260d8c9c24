"""`filtered_lrelu`, composed of `upfirdn2d` and `bias_act`: slower than one pass would be."""

import math
from typing import Any

from torch import Tensor

from gan_engine.compat.arguments import backend_of, fir
from gan_engine.compat.stylegan.bias_act import bias_act


def filtered_lrelu(
    x: Tensor,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    b: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Any = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> Tensor:
    """y = down(filter(clamp(gain * leaky_relu(filter(up(x + b), fu), slope)), fd))

    (Karras et al. 2021, arXiv:2106.12423). The first filter has a gain of up^2. `padding` is that of the upsampled
    image. y is [N, C, (H * up + y0 + y1 - (taps of fu - 1) - (taps of fd - 1) + down - 1) // down, likewise W].
    """
    backend = backend_of(impl)
    y = bias_act(x, b, impl=impl)
    y = fir(y, fu, up, 1, padding, flip_filter, int(up) ** 2, backend)
    y = bias_act(y, None, 1, "lrelu", slope, gain, clamp, impl)
    return fir(y, fd, 1, down, 0, flip_filter, 1, backend)
