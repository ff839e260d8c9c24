"""Scale per image and channel, bias, noise, activation, gain and clamp in one pass over memory."""

import torch
import torch.nn.functional as F
from torch import Tensor

import gan_engine.ops.scale_bias_act_kernels  # noqa: F401  (defines the operators)
from gan_engine import backends
from gan_engine.ops.affine import AffineArguments, affine, affine_options
from gan_engine.ops.kernel_op import check_tensors, layout, wide
from gan_engine.ops.limits import clamped


def scale_bias_act(
    x: Tensor,
    scale: Tensor | None = None,
    b: Tensor | None = None,
    *,
    noise: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """y = clamp(gain * act(x * scale[n, c] + b[c] + noise[n, 0, h, w], alpha), -clamp, clamp)

    A style-based generator has this before and behind each convolution (Karras et al. 2020, arXiv:1912.04958,
    figure 2): modulation before it; demodulation, noise, bias and activation behind it.

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16, any strides.
        scale: [N, C]; None multiplies by 1.
        b: [C]; None adds nothing.
        noise: [N, 1, H, W] or [1, 1, H, W]; None adds nothing.
        act: linear, relu or lrelu.
        alpha: the slope of lrelu below 0, default 0.2; the other activations ignore it.
        gain: factor behind the activation, default sqrt(2) for relu and lrelu, 1 for linear, as in `bias_act`.
        clamp: limit of |y|, at least 0; None is no limit.
        backend: see gan_engine.backends.

    scale, b and noise are in the dtype of x or in float32.

    Returns:
        y: the shape and dtype of x; channels_last if x is, else contiguous. Half precision is computed in float32 and
            rounded once.

    The gradient is PyTorch's where the slope is not defined: alpha at 0, and 1 at |y| = clamp. Saved for the gradient:
    one bit an element each for slope and clamp, and x if there is a scale.

    Raises:
        ValueError: an activation that is not piecewise linear, shapes that do not fit, a negative clamp.
        TypeError: a dtype other than those above.

    Gradients: every order in x, scale, b and noise.
    """
    check_tensors("scale_bias_act", x, scale=scale, b=b, noise=noise)
    if x.ndim != 4:
        raise ValueError(f"scale_bias_act: x must be [N, C, H, W], got {list(x.shape)}")
    alpha, gain, limit = affine_options("scale_bias_act", x, x.shape, scale, b, noise, act, alpha, gain, clamp)
    backend = backends.choose("scale_bias_act", x, backend)
    if backend == "reference":
        return scale_bias_act_ref(x, scale, b, noise, alpha, gain, limit)
    arguments = AffineArguments(layout(x) == torch.channels_last, alpha, gain, limit, backend)
    return affine(x, None, scale, b, noise, arguments)


def scale_bias_act_ref(
    x: Tensor, scale: Tensor | None, b: Tensor | None, noise: Tensor | None, alpha: float, gain: float, clamp: float
) -> Tensor:
    """The definition of `scale_bias_act` in PyTorch's own operators; alpha, gain and clamp as in `affine_options`."""
    dtype = wide(x.dtype)
    y = x.to(dtype)
    if scale is not None:
        y = y * scale.to(dtype)[:, :, None, None]
    if b is not None:
        y = y + b.to(dtype)[:, None, None]
    if noise is not None:
        y = y + noise.to(dtype)
    if alpha != 1:
        y = F.leaky_relu(y, alpha)
    if gain != 1:
        y = y * gain
    if clamp >= 0:
        y = clamped(y, clamp)
    return y.to(x.dtype).contiguous(memory_format=layout(x))


backends.register("scale_bias_act")
