"""Convolution with weights that a style scales for each image, without making a weight for each image."""

from typing import Any

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.convolution import conv2d
from gan_engine.ops.kernel_op import check_tensors, layout, wide
from gan_engine.ops.resample_conv2d import before_fir, fir_downsample_conv2d
from gan_engine.ops.scale_bias_act import scale_bias_act
from gan_engine.ops.upfirdn2d_act import upfirdn2d_act
from gan_engine.ops.weight_squares import weight_squares


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    up: int = 1,
    down: int = 1,
    f: Tensor | None = None,
    padding: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(conv(x, w[n]) + noise * noise_strength + bias, alpha), -clamp, clamp)

    with w[n, o, i] = weight[o, i] * styles[n, i]. `demodulate` divides w[n, o] by its norm,
    sqrt(sum of w[n, o]^2 over i and the kernel + 1e-8) (Karras et al. 2020, arXiv:1912.04958, equations 1 and 3). The
    styles scale x and y, not the weight, so that all images share a weight. On a GPU, a 1x1 weight with at most 4
    outputs, as for colours, takes the styles if nothing is demodulated, and is one matrix product for each image.

    Args:
        x: [N, I, H, W], float32, float64, bfloat16 or float16; convolutions are faster in channels_last.
        weight: [O, I, kh, kw].
        styles: [N, I].
        demodulate: whether to divide by the norm.
        noise: [N, 1, H', W'] or [1, 1, H', W'], as large as y.
        noise_strength: [], factor of the noise; None is 1.
        bias: [O].
        act, alpha, gain, clamp: as in `scale_bias_act`.
        up, down: factors of the image size; at least one is 1. `up` puts zeros behind every pixel and filters with f
            and a gain of up^2, before the convolution. `down` filters behind it, and keeps every down-th pixel.
        f: [taps] or [taps, taps], from `setup_filter`; None is [1].
        padding: zeros around the upsampled x; None is half of the kernel size, which keeps H * up and W * up.
        backend: see gan_engine.backends.

    All tensors but x are in the dtype of x or in float32.

    Returns:
        y: [N, O, H', W'] in the dtype of x; channels_last if x is. Large styles overflow in float16, which ends at
            65504. `demodulate` prevents it: weight and styles are divided by their largest elements first.

    Raises:
        ValueError: shapes that do not fit, and what `scale_bias_act` refuses.

    Gradients: every order in x, weight, styles, noise, noise_strength and bias.
    """
    _check(x, weight, styles, noise, noise_strength, bias, f, up, down)
    chosen = backends.choose("modulated_conv2d", x, backend)
    backend = backends.handed_on(backend, chosen)
    if demodulate and x.dtype == torch.float16:
        weight, styles = _in_range(weight, styles)
    d = None  # [N, O]
    if demodulate:
        d = demodulation(weight, styles, wide(x.dtype), backend="reference" if chosen == "reference" else None)
    if noise is not None and noise_strength is not None:
        noise = noise.to(wide(x.dtype)) * noise_strength.to(wide(x.dtype))
    options: dict[str, Any] = {
        "noise": noise,
        "act": act,
        "alpha": alpha,
        "gain": gain,
        "clamp": clamp,
        "backend": backend,
    }
    if chosen in ("cuda", "triton") and d is None and up == down == 1 and not padding and _makes_pixels(weight):
        return scale_bias_act(_product(x, weight, styles), None, bias, **options)
    x = scale_bias_act(x, styles, backend=backend)
    return _conv_scale_bias_act(x, weight, d, bias, up, down, f, padding, options)


def _check(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None,
    noise_strength: Tensor | None,
    bias: Tensor | None,
    f: Tensor | None,
    up: int,
    down: int,
) -> None:
    others = {"noise": noise, "noise_strength": noise_strength, "bias": bias, "f": f}
    check_tensors("modulated_conv2d", x, weight=weight, styles=styles, **others)
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            "modulated_conv2d: want x [N, I, H, W] and weight [O, I, kh, kw], "
            f"got x {list(x.shape)} and weight {list(weight.shape)}"
        )
    if styles.shape != x.shape[:2]:
        raise ValueError(f"modulated_conv2d: styles must be [N, I] = {list(x.shape[:2])}, got {list(styles.shape)}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"modulated_conv2d: bias must be [O] = {list(weight.shape[:1])}, got {list(bias.shape)}")
    if noise_strength is not None and noise is None:
        raise ValueError("modulated_conv2d: noise_strength needs noise, got None")
    if min(up, down) != 1 or (f is not None and up == down):
        raise ValueError(
            f"modulated_conv2d: up or down must be 1, and f belongs to the other; got up {up}, down {down}"
        )


def _makes_pixels(weight: Tensor) -> bool:
    """True for a 1x1 weight whose few outputs are the colours of an image"""
    return weight.shape[0] <= 4 and tuple(weight.shape[2:]) == (1, 1)


def _product(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
    """conv(x, w[n]) for a 1x1 weight: a matrix product for each image

    The small factor takes the styles, so that x is read once. A pass over x of its own would read and write it before.
    """
    n, i, h, w = x.shape
    dtype = wide(x.dtype)
    factors = (weight[:, :, 0, 0].to(dtype) * styles.to(dtype)[:, None]).to(x.dtype)  # [N, O, I]
    if layout(x) == torch.channels_last:
        y = x.permute(0, 2, 3, 1).reshape(n, h * w, i) @ factors.transpose(1, 2)
        return y.reshape(n, h, w, len(weight)).permute(0, 3, 1, 2)
    return (factors @ x.reshape(n, i, h * w)).reshape(n, len(weight), h, w)


def _in_range(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """weight[o] and styles[n] divided by their largest elements, and the weight also by sqrt(I kh kw), for float16

    Demodulation takes these factors back. They change nothing, so no gradient flows through them.
    """
    weight = weight / (weight.detach().abs().amax([1, 2, 3], keepdim=True) * weight[0].numel() ** 0.5 + 1e-8)
    styles = styles / (styles.detach().abs().amax(1, keepdim=True) + 1e-8)
    return weight, styles


def _conv_scale_bias_act(
    x: Tensor,
    weight: Tensor,
    d: Tensor | None,
    bias: Tensor | None,
    up: int,
    down: int,
    f: Tensor | None,
    padding: int | None,
    options: dict[str, Any],
) -> Tensor:
    """scale_bias_act(conv(x, weight), d, bias, **options), upsampled before the convolution or downsampled behind it

    The styles are in x and d, so the convolution has one weight for all images.
    """
    padding = int(weight.shape[-1]) // 2 if padding is None else padding
    if up > 1:
        x, fir = before_fir(x, weight, f, up=up, padding=padding)
        return upfirdn2d_act(x, f, d, bias, **fir, fir_gain=up**2, **options)
    if down > 1:
        x = fir_downsample_conv2d(x, weight, f, down=down, padding=padding, backend=options["backend"])
    else:
        x = conv2d(x, weight.to(x.dtype), padding=padding)
    return scale_bias_act(x, d, bias, **options)


def demodulation(weight: Tensor, styles: Tensor, dtype: torch.dtype, *, backend: str | None = None) -> Tensor:
    """d [N, O] = (sum of (weight[o, i] * styles[n, i])^2 over i and the kernel + 1e-8)^-1/2, in `dtype`

    The sums are the matrix product of styles^2 and the sums of squares of the weight.
    """
    with torch.autocast(styles.device.type, enabled=False):  # autocast would round the factors of the product
        q = weight_squares(weight.to(dtype) if dtype == torch.float64 else weight, backend=backend)  # [O, I]
        return (styles.to(dtype).square() @ q.t().to(dtype) + 1e-8).rsqrt()


backends.register("modulated_conv2d", kernels_of="scale_bias_act")
