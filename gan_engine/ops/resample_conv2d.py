"""Convolution that doubles or halves an image on the way, without the image in between.

Nearest-neighbour doubling repeats every pixel twice in either direction. It is a transposed convolution of stride 2
with ones [2, 2]. Two convolutions in a row are one convolution, with the wider weight K = weight * ones [2, 2] of
[k + 1, k + 1]:

    conv(double(x), weight) = transposed conv(x, K),   halve(conv(x, weight)) = conv(x, K / 4), both of stride 2

Both take ((k + 1) / k)^2 / 4 of the multiplications, 1 / 2.25 for k = 3, and so do their gradients. K is a linear
function of the weight, a product with one constant matrix, so it has gradients of every order. K is made in float32.
It is rounded once in half precision: instead of a float32 weight, or in addition to a weight in half precision.

The convolution has the stride if there is an FIR filter f (Karras et al. 2020, arXiv:1912.04958, section 2). The filter
runs at the larger size, behind a transposed convolution or before a strided one. Folded into the weight as well, f
would cost more multiplications than it saves.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import has_torch_function_unary

from gan_engine import backends
from gan_engine.ops.affine import ACTS
from gan_engine.ops.bias_act import bias_act
from gan_engine.ops.convolution import conv2d, conv_transpose2d, transposed
from gan_engine.ops.kernel_op import check_tensors
from gan_engine.ops.thresholds import TABLE
from gan_engine.ops.upfirdn2d import taps_of, upfirdn2d
from gan_engine.ops.upfirdn2d_act import upfirdn2d_act


def upsample_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mode: str = "nearest",
    f: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(conv(double(x), weight) + bias, alpha), -clamp, clamp)

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k], k odd, in the dtype of x or in float32.
        bias: [O].
        mode: how to double, "nearest": nearest neighbours, or "fir": a zero behind every pixel, then the filter f.
        f: [taps] or [taps, taps] of mode "fir", from `setup_filter`; its gain of 4 is added here.
        act, alpha, gain, clamp, backend: as in `bias_act`.

    Returns:
        y: [N, O, 2 H, 2 W] in the dtype of x: the doubled image has (k - 1) / 2 zeros around it.

    Raises:
        ValueError: shapes that do not fit, a mode without its filter, and what `bias_act` refuses.

    Gradients: every order in x, weight and bias.
    """
    k = _check("upsample_conv2d", x, weight, bias, mode, ("nearest", "fir"), f)
    asked, backend = backend, backends.choose("upsample_conv2d", x, backend)
    if mode == "fir":
        x, fir = before_fir(x, weight, f, up=2, padding=k // 2)
        if backend == "cpu" and act in ACTS and not has_torch_function_unary(x):
            options: dict[str, Any] = {"act": act, "alpha": alpha, "gain": gain, "clamp": clamp, "backend": backend}
            return upfirdn2d_act(x, f, None, bias, **fir, fir_gain=4, **options)
        x = upfirdn2d(x, f, **fir, gain=4, backend=backends.handed_on(asked, backend))
    else:
        x = _doubled_conv2d(x, weight, _of_the_convolution(asked, backend))
    inner = backends.inside(asked, backend)
    return bias_act(x, bias, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=inner)


def downsample_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    mode: str = "mean",
    f: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(halve(conv(x, weight)) + bias, alpha), -clamp, clamp)

    Args:
        x: [N, I, H, W], H and W even.
        weight: [O, I, k, k], k odd, in the dtype of x or in float32.
        bias: [O].
        mode: how to halve, "mean": the means of 2x2 pixels, or "fir": the filter f, then every second pixel.
        f: [taps] or [taps, taps] of mode "fir", from `setup_filter`.
        act, alpha, gain, clamp, backend: as in `bias_act`.

    Returns:
        y: [N, O, H / 2, W / 2] in the dtype of x: x has (k - 1) / 2 zeros around it.

    Raises:
        ValueError: shapes that do not fit, a mode without its filter, and what `bias_act` refuses.

    Gradients: every order in x, weight and bias.
    """
    k = _check("downsample_conv2d", x, weight, bias, mode, ("mean", "fir"), f)
    if x.shape[2] % 2 or x.shape[3] % 2:
        raise ValueError(f"downsample_conv2d: H and W of x must be even, got {list(x.shape[2:])}")
    asked, backend = backend, backends.choose("downsample_conv2d", x, backend)
    if mode == "fir":
        inner = backends.handed_on(asked, backend)
        x = fir_downsample_conv2d(x, weight, f, down=2, padding=k // 2, backend=inner)
    else:
        x = _halved_conv2d(x, weight, _of_the_convolution(asked, backend))
    inner = backends.inside(asked, backend)
    return bias_act(x, bias, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=inner)


def before_fir(x: Tensor, weight: Tensor, f: Tensor | None, *, up: int, padding: int) -> tuple[Tensor, dict[str, Any]]:
    """t and options: conv(x upsampled by `up` and filtered with f, weight) = upfirdn2d(t, f, **options, gain=up^2)

    x [N, I, H, W], weight [O, I, kh, kw]; the padding is that of the upsampled image, beside what keeps the filter
    centred. t has O channels. Gradients: every order in x and weight.
    """
    weight = weight.to(x.dtype)
    kh, kw = map(int, weight.shape[2:])
    fh, fw = taps_of(f)
    left, right = padding + (fw + up - 1) // 2, padding + (fw - up) // 2
    top, bottom = padding + (fh + up - 1) // 2, padding + (fh - up) // 2
    if (kh, kw) == (1, 1):  # fewer pixels pass the convolution before than behind
        return F.conv2d(x, weight), {"up": up, "padding": [left, right, top, bottom]}
    # The transposed convolution leaves a rim of k - 1, less the zeros behind the last pixel.
    sides = [left + 1 - kw, right + up - kw, top + 1 - kh, bottom + up - kh]
    return conv_transpose2d(x, transposed(weight), stride=up), {"padding": sides}


def fir_downsample_conv2d(
    x: Tensor, weight: Tensor, f: Tensor | None, *, down: int, padding: int, backend: str | None = None
) -> Tensor:
    """conv(x, weight), filtered and downsampled

    x [N, I, H, W], weight [O, I, kh, kw]; the padding is beside what keeps the filter centred. Returns [N, O,
    (H + 2 padding - kh) // down + 1, likewise W]. Gradients: every order in x and weight.
    """
    weight = weight.to(x.dtype)
    fh, fw = taps_of(f)
    left, right = padding + (fw - down + 1) // 2, padding + (fw - down) // 2
    top, bottom = padding + (fh - down + 1) // 2, padding + (fh - down) // 2
    if weight.shape[2:] == (1, 1):
        x = upfirdn2d(x, f, down=down, padding=[left, right, top, bottom], backend=backend)
        return F.conv2d(x, weight)
    x = upfirdn2d(x, f, padding=[left, right, top, bottom], backend=backend)
    return conv2d(x, weight, stride=down)


def widened(weight: Tensor) -> Tensor:
    """K [O, I, k + 1, k + 1] = the full convolution of weight [O, I, k, k] with ones [2, 2], not in half precision"""
    o, i, k, _ = weight.shape
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    tap = torch.eye(k, k + 1, dtype=weight.dtype, device=weight.device)
    reach = tap + tap.roll(1, 1)  # [k, k + 1]: a tap of the weight reaches two of K
    with torch.autocast(weight.device.type, enabled=False):
        return (weight.reshape(o, i, k * k) @ torch.kron(reach, reach)).reshape(o, i, k + 1, k + 1)


def _of_the_convolution(asked: str | None, chosen: str) -> str | None:
    """The request for the convolution inside of an op that was asked for `asked`, and runs on `chosen`."""
    if chosen == "reference":
        return "reference"
    return None if asked is None else "pytorch"


# The convolutions without a filter. "pytorch" is one strided convolution with the wider weight, whose own backend the
# chooser finds. "reference" is the definition: the image is doubled or halved beside the convolution.


def _defined(backend: str | None) -> Callable[..., Tensor]:
    """The convolution of the definition: PyTorch's where the call asks for it, else one that finds its kernel"""
    return F.conv2d if backend == "reference" else conv2d


def _doubled_conv2d(x: Tensor, weight: Tensor, backend: str | None) -> Tensor:
    """y [N, O, 2 H, 2 W] = conv(double(x [N, I, H, W]), weight [O, I, k, k])"""
    k = int(weight.shape[2])
    if backends.choose("doubled_conv2d", x, backend, k) == "reference":
        return _defined(backend)(F.interpolate(x, scale_factor=2, mode="nearest"), weight.to(x.dtype), padding=k // 2)
    if k == 1:  # a pixel's copies are alike also behind the convolution, which is four times cheaper before them
        return F.interpolate(F.conv2d(x, weight.to(x.dtype)), scale_factor=2, mode="nearest")
    return conv_transpose2d(x, widened(transposed(weight)).to(x.dtype), stride=2, padding=k // 2)


def _halved_conv2d(x: Tensor, weight: Tensor, backend: str | None) -> Tensor:
    """y [N, O, H / 2, W / 2] = halve(conv(x [N, I, H, W], weight [O, I, k, k]))"""
    k = int(weight.shape[2])
    if backends.choose("halved_conv2d", x, backend, k) == "reference":
        return F.avg_pool2d(_defined(backend)(x, weight.to(x.dtype), padding=k // 2), 2)
    if k == 1:
        return F.conv2d(F.avg_pool2d(x, 2), weight.to(x.dtype))
    return conv2d(x, (widened(weight) * 0.25).to(x.dtype), stride=2, padding=k // 2)


def _few_pixels(threshold: str) -> backends.Rule:
    """A rule: `arguments` is the kernel size k, and a 1x1 kernel needs no wider weight."""

    def no_gain(backend: str, x: Tensor, k: int | None) -> str | None:
        few = TABLE[threshold]
        if k is None or k == 1 or x.device.type != "cpu" or x.shape[0] * x.shape[2] * x.shape[3] >= few.number:
            return None
        return few.sentence

    return no_gain


def _check(
    op: str, x: Tensor, weight: Tensor, bias: Tensor | None, mode: str, modes: tuple[str, str], f: Tensor | None
) -> int:
    check_tensors(op, x, weight=weight, bias=bias, f=f)
    if mode not in modes:
        raise ValueError(f"{op}: mode must be {' or '.join(modes)}, got {mode!r}")
    if (f is None) == (mode == "fir"):
        raise ValueError(f"{op}: mode fir takes a filter f, and no other does, got mode {mode!r} with f {_size(f)}")
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1] != x.shape[1]:
        raise ValueError(
            f"{op}: want x [N, I, H, W] and weight [O, I, k, k], got x {list(x.shape)} and weight {list(weight.shape)}"
        )
    k = int(weight.shape[2])  # torch.jit.trace has a tensor for it
    if weight.shape[3] != k or k % 2 == 0:
        raise ValueError(f"{op}: the kernel size must be k x k with k odd, got {list(weight.shape[2:])}")
    return k


def _size(f: Tensor | None) -> list[int] | None:
    return None if f is None else list(f.shape)


for _op in ("upsample_conv2d", "downsample_conv2d"):
    backends.register(_op, kernels_of="bias_act")
for _op, _threshold in (("doubled_conv2d", "few pixels to double"), ("halved_conv2d", "few pixels to halve")):
    backends.register(_op, has=("pytorch",), no_gain=_few_pixels(_threshold))
