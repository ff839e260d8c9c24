"""The ops as their users would write them without this package, in chains of PyTorch calls.

Tests and benchmarks compare the ops with these functions. Each takes the arguments of the op of its name, without
`backend`.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.ops.alias_free_fir import kaiser_sinc
from gan_engine.ops.bias_act import ACTIVATIONS
from gan_engine.ops.fir import Padding, Pair, as_pair, as_sides
from gan_engine.ops.limits import clamped


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    if b is not None:
        x = x + b.reshape([-1 if i == dim % x.ndim else 1 for i in range(x.ndim)])
    spec = ACTIVATIONS[act]
    if act == "lrelu":
        x = F.leaky_relu(x, spec.alpha if alpha is None else alpha)
    elif act != "linear":
        functions: dict[str, Any] = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "swish": F.silu}
        x = (functions.get(act) or getattr(F, act))(x)
    gain = spec.gain if gain is None else gain
    if gain != 1:
        x = x * gain
    return x if clamp is None else clamped(x, clamp)


def scale_bias_act(
    x: Tensor, scale: Tensor | None = None, b: Tensor | None = None, *, noise: Tensor | None = None, **options: Any
) -> Tensor:
    if scale is not None:
        x = x * scale[:, :, None, None]
    if noise is not None:
        x = x + noise
    return bias_act(x, b, **options)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    demodulate: bool = True,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    bias: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    f: Tensor | None = None,
    padding: int | None = None,
    grouped: bool = False,
    **options: Any,
) -> Tensor:
    (n, i, h, w), (o, _, kh, kw) = x.shape, weight.shape
    padding = kw // 2 if padding is None else padding
    weights = weight * styles[:, None, :, None, None]  # [N, O, I, kh, kw]
    d = (weights.square().sum([2, 3, 4]) + 1e-8).rsqrt() if demodulate else None
    if grouped:
        if d is not None:
            weights = weights * d[:, :, None, None, None]
        x, weights = x.reshape(1, n * i, h, w), weights.reshape(n * o, i, kh, kw)
        x = _fir_conv2d(x, weights, f, up, down, padding, groups=n)
        x = x.reshape(n, o, *x.shape[2:])
    else:
        x = _fir_conv2d(x * styles[:, :, None, None], weight, f, up, down, padding)
        if d is not None:
            x = x * d[:, :, None, None]
    if noise is not None:
        x = x + (noise if noise_strength is None else noise * noise_strength)
    return bias_act(x, bias, **options)


def grouped_modulated_conv2d(*args: Tensor, **options: Any) -> Tensor:
    """One convolution with a group and a weight for each sample, as in the code of the paper."""
    return modulated_conv2d(*args, **options, grouped=True)


def convolution(x: Tensor, weight: Tensor, *, up: int = 1, **options: Any) -> Tensor:
    """The bare convolution, which every implementation of `modulated_conv2d` has to run."""
    if up > 1:
        return F.conv_transpose2d(x, weight.transpose(0, 1), stride=up, padding=1, output_padding=1)
    return F.conv2d(x, weight, padding=weight.shape[2] // 2)


def conv2d(x: Tensor, w: Tensor, b: Tensor | None = None, **options: Any) -> Tensor:
    return F.conv2d(x, w, b, **options)


def avg_pool2d(x: Tensor, **options: Any) -> Tensor:
    return F.avg_pool2d(x, **options)


def upsample_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, mode: str = "nearest", f: Tensor | None, **options: Any
) -> Tensor:
    if mode == "fir":
        x = _fir_conv2d(x, weight, f, 2, 1, weight.shape[2] // 2)
    else:
        x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=weight.shape[2] // 2)
    return bias_act(x, bias, **options)


def downsample_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, mode: str = "mean", f: Tensor | None, **options: Any
) -> Tensor:
    if mode == "fir":
        x = _fir_conv2d(x, weight, f, 1, 2, weight.shape[2] // 2)
    else:
        x = F.avg_pool2d(F.conv2d(x, weight, padding=weight.shape[2] // 2), 2)
    return bias_act(x, bias, **options)


def _fir_conv2d(
    x: Tensor, weight: Tensor, f: Tensor | None, up: int, down: int, padding: int, groups: int = 1
) -> Tensor:
    """The strided convolution, and the filter as a depthwise convolution"""
    (o, i, kh, kw), taps = weight.shape, 1 if f is None else f.shape[-1]
    after, before = (taps + up - down) // 2, (taps - up - down + 1) // 2
    if up > 1:
        weight = weight.reshape(groups, o // groups, i, kh, kw).transpose(1, 2).flip([3, 4])
        x = F.conv_transpose2d(x, weight.reshape(-1, o // groups, kh, kw), stride=up, groups=groups)
        return _depthwise(x, f, padding + after + 1 - kw, padding + before + up - kw, float(up**2))
    if down > 1:
        x = _depthwise(x, f, padding + after, padding + before, 1.0)
        return F.conv2d(x, weight, stride=down, groups=groups)
    return F.conv2d(x, weight, padding=padding, groups=groups)


def _depthwise(x: Tensor, f: Tensor | None, before: int, behind: int, gain: float) -> Tensor:
    x = F.pad(x, [before, behind, before, behind])
    if f is None:
        return x * gain
    f = (f.outer(f) if f.ndim == 1 else f).to(x.dtype) * gain
    return F.conv2d(x, f.flip([0, 1]).expand(x.shape[1], 1, *f.shape), groups=x.shape[1])


def upfirdn2d(
    x: Tensor,
    *,
    f: Tensor | None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1,
) -> Tensor:
    """Strided and transposed convolutions: no zeros are inserted."""
    c, (ux, uy), (dx, dy) = x.shape[1], as_pair(up), as_pair(down)
    x0, x1, y0, y1 = as_sides(padding)
    f = x.new_ones(1) if f is None else f.to(x.dtype)
    f = (f.outer(f) if f.ndim == 1 else f) * gain
    h, w = f.shape
    if ux == uy == 1:
        f = f if flip_filter else f.flip([0, 1])
        inside = [y0, x0] if x0 == x1 >= 0 and y0 == y1 >= 0 else 0
        x = x if inside else F.pad(x, [x0, x1, y0, y1])
        return F.conv2d(x, f.expand(c, 1, h, w), stride=(dy, dx), padding=inside, groups=c)
    f = f.flip([0, 1]) if flip_filter else f
    crop: int | list[int] = 0
    sides = [x0 - w + 1, x1 - w + ux, y0 - h + 1, y1 - h + uy]  # negative where the convolution makes too much
    if sides[0] == sides[1] <= 0 and sides[2] == sides[3] <= 0:
        crop, sides = [-sides[2], -sides[0]], [0, 0, 0, 0]
    y = F.conv_transpose2d(x, f.expand(c, 1, h, w), stride=(uy, ux), padding=crop, groups=c)
    return F.pad(y, sides)[:, :, ::dy, ::dx]


def upfirdn2d_act(
    x: Tensor,
    scale: Tensor | None = None,
    b: Tensor | None = None,
    *,
    f: Tensor | None,
    noise: Tensor | None = None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    fir_gain: float = 1,
    **options: Any,
) -> Tensor:
    x = upfirdn2d(x, f=f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=fir_gain)
    return scale_bias_act(x, scale, b, noise=noise, **options)


def filtered_lrelu(
    x: Tensor,
    b: Tensor | None = None,
    *,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
) -> Tensor:
    """Zeros between the pixels, and depthwise convolutions: one for each axis of a separable filter"""
    x = x if b is None else x + b[:, None, None].to(x.dtype)
    (ux, uy), (dx, dy), (n, c, h, w) = as_pair(up), as_pair(down), x.shape
    x = F.pad(x[:, :, :, None, :, None], [0, ux - 1, 0, 0, 0, uy - 1]).reshape(n, c, h * uy, w * ux)
    x = _convolved(F.pad(x, as_sides(padding)), fu, flip_filter, ux * uy)
    x = F.leaky_relu(x, slope) * gain
    x = x if clamp is None else clamped(x, clamp)
    return _convolved(x, fd, flip_filter, 1)[:, :, ::dy, ::dx]


def alias_free_activation(
    x: Tensor,
    alpha: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    act: Callable[[Tensor], Tensor] | None = None,
    log_scale: bool = False,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
) -> Tensor:
    """Depthwise convolutions, as BigVGAN has them; one for each axis of an image"""
    c, axes = x.shape[1], range(x.ndim - 2)
    fu, fd = (kaiser_sinc().to(x) if f is None else f.to(x.dtype) for f in (fu, fd))
    for axis in axes:
        sides, f = [0, 0] * (x.ndim - 2), fu.reshape([-1 if i == axis else 1 for i in axes])
        stride, crop = [2 if i == axis else 1 for i in axes], len(fu) // 2 - 1 + len(fu) // 4 * 2
        sides[-2 * axis - 2 : len(sides) - 2 * axis] = [len(fu) // 4] * 2
        size = 2 * x.shape[2 + axis]
        x = F.pad(x, sides, mode="replicate")
        f = f.expand(c, 1, *f.shape)
        convolve: Any = F.conv_transpose1d if len(axes) == 1 else F.conv_transpose2d
        x = (2 * convolve(x, f, stride=stride, groups=c)).narrow(2 + axis, crop, size)
    if act is None and alpha is not None:
        beta = alpha if beta is None else beta
        alpha, beta = (t.to(x.dtype).reshape(-1, *[1 for _ in axes]) for t in (alpha, beta))
        alpha, beta = (alpha.exp(), beta.exp()) if log_scale else (alpha, beta)
        x = x + 1.0 / (beta + 1e-9) * torch.sin(x * alpha).square()
    elif act is not None:
        x = act(x)
    for axis in axes:
        sides, f = [0, 0] * (x.ndim - 2), fd.reshape([-1 if i == axis else 1 for i in axes])
        stride = [2 if i == axis else 1 for i in axes]
        sides[-2 * axis - 2 : len(sides) - 2 * axis] = [len(fd) // 2 - 1, len(fd) // 2]
        convolve = F.conv1d if len(axes) == 1 else F.conv2d
        x = convolve(F.pad(x, sides, mode="replicate"), f.expand(c, 1, *f.shape), stride=stride, groups=c)
    return x


def _convolved(x: Tensor, f: Tensor | None, flip_filter: bool, gain: float) -> Tensor:
    if f is None:
        return x * gain
    f = (f if flip_filter else f.flip(*range(f.ndim))).to(x.dtype)
    c = x.shape[1]
    if f.ndim == 2:
        return F.conv2d(x, (f * gain).expand(c, 1, *f.shape), groups=c)
    x = F.conv2d(x, f[None, :].expand(c, 1, 1, -1), groups=c)
    return F.conv2d(x, (f * gain)[:, None].expand(c, 1, -1, 1), groups=c)


def strided_filtered_lrelu(
    x: Tensor,
    b: Tensor | None = None,
    *,
    fu: Tensor | None = None,
    fd: Tensor | None = None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    slope: float = 0.2,
    **after: Any,
) -> Tensor:
    """`filtered_lrelu` by strided and transposed convolutions, without zeros between the pixels

    `after` are the options gain and clamp of `bias_act`.
    """
    x = x if b is None else x + b[:, None, None].to(x.dtype)
    ux, uy = as_pair(up)
    x = upfirdn2d(x, f=fu, up=up, padding=padding, flip_filter=flip_filter, gain=ux * uy)
    x = bias_act(x, act="lrelu", alpha=slope, **after)
    return upfirdn2d(x, f=fd, down=down, flip_filter=flip_filter)


def sum_of_squares(x: Tensor) -> Tensor:
    x = x if x.dtype == torch.float64 else x.float()
    return x.square().flatten(1).sum(1) if x.ndim > 1 else x.square()


def weight_squares(x: Tensor) -> Tensor:
    return (x if x.dtype == torch.float64 else x.float()).square().sum([2, 3])


def mix(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    a, b = (weight.reshape([-1] + [1] * (x.ndim - 1)) for weight in (a, b))
    return a * x + b * y


def grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, align_corners=False)


def minibatch_stddev(x: Tensor, *, group_size: int | None = 4, num_channels: int = 1) -> Tensor:
    n, c, h, w = x.shape
    g = min(group_size or n, n)
    y = x.reshape(g, -1, num_channels, c // num_channels, h, w)
    y = y - y.mean(0)
    y = (y.square().mean(0) + 1e-8).sqrt().mean([2, 3, 4])
    return torch.cat([x, y.reshape(-1, num_channels, 1, 1).repeat(g, 1, h, w)], 1)


def pixel_norm(x: Tensor, *, dim: int = 1, eps: float = 1e-8) -> Tensor:
    return x * (x.square().mean(dim, keepdim=True) + eps).rsqrt()


def norm_act(
    x: Tensor, weight: Tensor, bias: Tensor, *, norm: str = "batch", act: str = "linear", alpha: float = 0.2
) -> Tensor:
    if norm == "batch":
        y = F.batch_norm(x, None, None, weight, bias, True)
    else:
        y = F.instance_norm(x, weight=weight, bias=bias)
    return {"linear": lambda: y, "relu": lambda: F.relu(y), "lrelu": lambda: F.leaky_relu(y, alpha)}[act]()
