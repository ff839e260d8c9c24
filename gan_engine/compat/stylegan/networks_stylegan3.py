"""`modulated_conv2d` of the networks of StyleGAN3."""

from torch import Tensor

from gan_engine import ops
from gan_engine.compat.stylegan.conv2d_gradfix import conv2d
from gan_engine.ops.modulated_conv2d import demodulation


def modulated_conv2d(
    x: Tensor,
    w: Tensor,
    s: Tensor,
    demodulate: bool = True,
    padding: int = 0,
    input_gain: Tensor | None = None,
) -> Tensor:
    """y = conv(x, w[n]) with w[n, o, i] = w[o, i] * s[n, i] * input_gain

    `demodulate` divides w by the root mean square of each output, s by one root mean square over the whole batch, and
    w[n] by its norm before `input_gain` (Karras et al. 2021, arXiv:2106.12423).

    Args:
        x: [N, I, H, W].
        w: [O, I, kh, kw].
        s: [N, I].
        demodulate: whether to divide by the norms.
        padding: zeros around x.
        input_gain: [], [I] or [N, I].
    """
    d = None
    if demodulate:
        w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
        s = s * s.square().mean().rsqrt()
        d = demodulation(w, s, s.dtype)
    if input_gain is not None:
        s = s * input_gain
    y = conv2d(ops.scale_bias_act(x, s), w.to(x.dtype), padding=padding)
    return ops.scale_bias_act(y, d) if demodulate else y
