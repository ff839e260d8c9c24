"""Convolution that doubles or halves an image on the way, without the image in between.

Nearest-neighbour doubling repeats every pixel twice in either direction: it is a transposed convolution of stride 2
with ones [2, 2], and two convolutions in a row are one, with the weight K = weight * ones [2, 2] of [k + 1, k + 1]. So

    conv(double(x), weight) = transposed conv(x, K),   halve(conv(x, weight)) = conv(x, K / 4), both of stride 2

take ((k + 1) / k)^2 / 4 of the multiplications, 1 / 2.25 for k = 3, and so do their gradients. K is a linear function
of the weight, a product with one constant matrix, which brings its gradients of every order along. It is made in
float32: in half precision it is rounded in place of a weight in float32, and beside one in half precision.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.bias_act import bias_act


def upsample_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(conv(double(x), weight) + bias, alpha), -clamp, clamp), double: nearest neighbours, factor 2

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k], k odd, in the dtype of x or in float32.
        bias: [O].
        act, alpha, gain, clamp, backend: as in `bias_act`.

    Returns:
        y: [N, O, 2 H, 2 W] in the dtype of x: the doubled image has (k - 1) / 2 zeros around it.

    Raises:
        ValueError: shapes that do not fit, and what `bias_act` refuses.

    Gradients: every order in x, weight and bias.
    """
    k = _check("upsample_conv2d", x, weight)
    backend = backends.choose("upsample_conv2d", x, backend)
    if backend == "reference":
        x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight.to(x.dtype), padding=k // 2)
    elif k == 1:  # a pixel's copies are alike also behind the convolution, which is four times cheaper before them
        x = F.interpolate(F.conv2d(x, weight.to(x.dtype)), scale_factor=2, mode="nearest")
    else:
        # A transposed convolution lays its weight the other way round.
        wide = widened(weight.transpose(0, 1).flip([2, 3]))
        x = F.conv_transpose2d(x, wide.to(x.dtype), stride=2, padding=k // 2)
    return bias_act(x, bias, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=backend)


def downsample_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(halve(conv(x, weight)) + bias, alpha), -clamp, clamp), halve: the means of 2x2 pixels

    Args:
        x: [N, I, H, W], H and W even.
        weight: [O, I, k, k], k odd, in the dtype of x or in float32.
        bias: [O].
        act, alpha, gain, clamp, backend: as in `bias_act`.

    Returns:
        y: [N, O, H / 2, W / 2] in the dtype of x: x has (k - 1) / 2 zeros around it.

    Raises:
        ValueError: shapes that do not fit, and what `bias_act` refuses.

    Gradients: every order in x, weight and bias.
    """
    k = _check("downsample_conv2d", x, weight)
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"downsample_conv2d: H and W of x must be even, got {list(x.shape[2:])}")
    backend = backends.choose("downsample_conv2d", x, backend)
    if backend == "reference":
        x = F.avg_pool2d(F.conv2d(x, weight.to(x.dtype), padding=k // 2), 2)
    elif k == 1:
        x = F.conv2d(F.avg_pool2d(x, 2), weight.to(x.dtype))
    else:
        x = F.conv2d(x, (widened(weight) * 0.25).to(x.dtype), stride=2, padding=k // 2)
    return bias_act(x, bias, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=backend)


def widened(weight: Tensor) -> Tensor:
    """K [O, I, k + 1, k + 1] = the full convolution of weight [O, I, k, k] with ones [2, 2], not in half precision"""
    o, i, k, _ = weight.shape
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    tap = torch.eye(k, k + 1, dtype=weight.dtype, device=weight.device)
    reach = tap + tap.roll(1, 1)  # [k, k + 1]: a tap of the weight reaches two of K
    return (weight.reshape(o, i, k * k) @ torch.kron(reach, reach)).reshape(o, i, k + 1, k + 1)


def _check(op: str, x: Tensor, weight: Tensor) -> int:
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"{op}: want x [N, I, H, W] and weight [O, I, k, k], got x {list(x.shape)} and weight {list(weight.shape)}"
        )
    k = weight.shape[2]
    if weight.shape[3] != k or k % 2 == 0:
        raise ValueError(f"{op}: the kernel must be k x k with k odd, got {list(weight.shape[2:])}")
    return k


for _op in ("upsample_conv2d", "downsample_conv2d"):
    backends.register(_op, kernels_of="bias_act")
