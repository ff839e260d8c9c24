"""`filtered_lrelu` on the operator of that name."""

import math
from typing import Any

import torch
from torch import Tensor

from gan_engine import ops
from gan_engine.compat.arguments import backend_of, filter_for, fir, fitting, number, numbers
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

    A filter in float64 keeps its digits for an x in float64: four operators run then. A filter [taps, taps] that is an
    outer product runs as two passes of taps for other x.
    """
    backend = backend_of(impl)
    if any(f is not None and f.dtype == x.dtype == torch.float64 for f in (fu, fd)):
        y = bias_act(x, b, impl=impl)
        y = fir(y, fu, up, 1, padding, flip_filter, int(up) ** 2, backend)
        y = bias_act(y, None, 1, "lrelu", slope, gain, clamp, impl)
        return fir(y, fd, 1, down, 0, flip_filter, 1, backend)
    sizes: dict[str, Any] = {"up": numbers(up), "down": numbers(down), "padding": numbers(padding)}
    options: dict[str, Any] = {"gain": float(gain), "slope": float(slope), "clamp": number(clamp)}
    fu, fd, b = filter_for(x, fu), filter_for(x, fd), None if b is None else fitting(b, x)
    return ops.filtered_lrelu(x, fu, fd, b, **sizes, **options, flip_filter=bool(flip_filter), backend=backend)
