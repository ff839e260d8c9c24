"""`modulated_conv2d` of the networks of StyleGAN2 and StyleGAN2-ADA."""

from torch import Tensor

from gan_engine.compat.arguments import integer, modulated


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> Tensor:
    """gan_engine.ops.modulated_conv2d without an activation

    Args:
        x: [N, I, H, W].
        weight: [O, I, kh, kw].
        styles: [N, I].
        noise: added to y: [N, 1, H', W'] or [H', W'].
        up, down, padding, resample_filter: as in gan_engine.ops.modulated_conv2d.
        demodulate: whether to divide the weights of each output by their norm.
        flip_weight: True correlates; False convolves.
        fused_modconv: taken, and not read: no weight is made for each image.
    """
    options = {"up": integer(up), "down": integer(down), "padding": integer(padding), "flip_weight": flip_weight}
    return modulated(x, weight, styles, resample_filter, noise=noise, demodulate=demodulate, **options)
