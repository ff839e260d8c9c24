"""FIR filtering of images, then scale, bias, noise, activation, gain and clamp, as behind a convolution."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.affine import AffineArguments, affine, affine_options
from gan_engine.ops.fir import FirArguments, Padding, Pair, fir_arguments
from gan_engine.ops.kernel_op import check_tensors, layout, wide
from gan_engine.ops.scale_bias_act import scale_bias_act, scale_bias_act_ref
from gan_engine.ops.upfirdn2d import upfirdn2d, upfirdn2d_ref
from gan_engine.ops.upfirdn2d_act_kernels import in_one_pass


def upfirdn2d_act(
    x: Tensor,
    f: Tensor | None,
    scale: Tensor | None = None,
    b: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    up: Pair = 1,
    down: Pair = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    fir_gain: float = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(u * scale[n, c] + b[c] + noise[n, 0, h, w], alpha), -clamp, clamp), u = upfirdn2d(x, f)

    This stands behind the transposed convolution of an up-layer (Karras et al. 2020, arXiv:1912.04958, figure 2): the
    filter that removes the checkerboard, demodulation, noise, bias and activation. A CPU makes one pass over memory,
    and one for the gradient. The backend "cuda" makes one pass, and two for the gradient, in channels_last with a
    multiple of 8 channels, for 4 taps without a change of size. All else on a GPU is `upfirdn2d`, then
    `scale_bias_act`.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        f, up, down, padding, flip_filter: as in `upfirdn2d`.
        fir_gain: the gain of `upfirdn2d`, a factor on u.
        scale, b, noise, act, alpha, gain, clamp: as in `scale_bias_act`, for y.
        backend: see gan_engine.backends.

    Returns:
        y: [N, C, H', W'], the shape, dtype and layout of `upfirdn2d`. Half precision is computed in float32, and
            rounded once where there is one pass.

    Saved for the gradient: one bit an element each for slope and clamp, and x if there is a scale. A pixel of x that is
    not finite makes d_scale NaN on a CPU, even if f never reads the pixel.

    Raises:
        ValueError, TypeError, RuntimeError: what `upfirdn2d` and `scale_bias_act` refuse.

    Gradients: every order in x, scale, b and noise; none in f.
    """
    check_tensors("upfirdn2d_act", x, f=f, scale=scale, b=b, noise=noise)
    f, fir, pads = fir_arguments("upfirdn2d_act", x, f, up, down, padding, (0, 0, 0, 0), flip_filter, fir_gain)
    shape = (*x.shape[:2], *fir.size)
    options = affine_options("upfirdn2d_act", x, shape, scale, b, noise, act, alpha, gain, clamp)
    asked, backend = backend, backends.choose("upfirdn2d_act", x, backend)
    if backend == "reference":
        return upfirdn2d_act_ref(x, f, scale, b, noise, fir, pads, *options)
    last = layout(x) == torch.channels_last
    if x.numel() == 0 or not in_one_pass(backend, x, f, fir, last):
        backend = backends.handed_on(asked, backend)
        u = upfirdn2d(x, f, up=up, down=down, padding=padding, flip_filter=flip_filter, gain=fir_gain, backend=backend)
        return scale_bias_act(u, scale, b, noise=noise, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=backend)
    return affine(x, f, scale, b, noise, AffineArguments(last, *options, backend, fir, fir.transposed(f, x.shape[2:])))


def upfirdn2d_act_ref(
    x: Tensor,
    f: Tensor,
    scale: Tensor | None,
    b: Tensor | None,
    noise: Tensor | None,
    fir: FirArguments,
    padding: list[int],
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """The definition of `upfirdn2d_act` in PyTorch's own operators; alpha, gain and clamp as in `affine_options`."""
    options: dict = {
        "up": fir.up,
        "down": fir.down,
        "padding": padding,
        "flip_filter": fir.flip,
        "gain": fir.gain,
    }
    u = upfirdn2d_ref(x.to(wide(x.dtype)), f, **options)
    return scale_bias_act_ref(u, scale, b, noise, alpha, gain, clamp).to(x.dtype)


backends.register("upfirdn2d_act", kernels_of="scale_bias_act")
