"""Functions with the names and arguments of StyleGAN's `torch_utils.ops`, in PyTorch's operators."""

import torch
import torch.nn.functional as F
from torch import Tensor

_ACTS = {"linear": lambda x, alpha: x, "relu": lambda x, alpha: F.relu(x), "lrelu": lambda x, a: F.leaky_relu(x, a)}


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = _ACTS[act](x, 0.2 if alpha is None else alpha)
    gain = (1 if act == "linear" else 2**0.5) if gain is None else gain
    x = x if gain == 1 else x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def setup_filter(f):
    f = torch.as_tensor(f, dtype=torch.float32)
    f = f.outer(f) if f.ndim == 1 else f
    return f / f.sum()


def _sides(padding) -> list[int]:
    sides = [padding, padding] if isinstance(padding, int) else list(padding)
    return sides if len(sides) == 4 else [sides[0], sides[0], sides[1], sides[1]]


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    n, c, h, w = x.shape
    sides = _sides(padding)
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    x = F.pad(x, [max(p, 0) for p in sides])
    x = x[:, :, max(-sides[2], 0) : x.shape[2] - max(-sides[3], 0), max(-sides[0], 0) : x.shape[3] - max(-sides[1], 0)]
    f = (f * gain).to(x.dtype)
    f = f if flip_filter else f.flip([0, 1])
    return F.conv2d(x, f[None, None].repeat(c, 1, 1, 1), groups=c)[:, :, ::down, ::down]


def _around(padding, sides) -> list[int]:
    return [a + b for a, b in zip(_sides(padding), sides)]


def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    h, w = f.shape
    sides = _around(padding, ((w + up - 1) // 2, (w - up) // 2, (h + up - 1) // 2, (h - up) // 2))
    return upfirdn2d(x, f, up, 1, sides, flip_filter, gain * up**2, impl)


def downsample2d(x, f, down=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    h, w = f.shape
    sides = _around(padding, ((w - down + 1) // 2, (w - down) // 2, (h - down + 1) // 2, (h - down) // 2))
    return upfirdn2d(x, f, 1, down, sides, flip_filter, gain, impl)


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    k, taps = w.shape[-1], 1 if f is None else f.shape[-1]
    low, high = padding, padding
    if up > 1:
        low, high = low + (taps + up - 1) // 2, high + (taps - up) // 2
    if down > 1:
        low, high = low + (taps - down + 1) // 2, high + (taps - down) // 2
    if up == down == 1:
        return F.conv2d(x, w if flip_weight else w.flip([2, 3]), padding=padding, groups=groups)
    if k == 1 and down > 1:
        return F.conv2d(upfirdn2d(x, f, 1, down, [low, high] * 2, flip_filter), w, groups=groups)
    if k == 1 and up > 1:
        return upfirdn2d(F.conv2d(x, w, groups=groups), f, up, 1, [low, high] * 2, flip_filter, up**2)
    if down > 1:
        x = upfirdn2d(x, f, 1, 1, [low, high, low, high], flip_filter)
        return F.conv2d(x, w if flip_weight else w.flip([2, 3]), stride=down, groups=groups)
    o, i = w.shape[:2]
    w = w.flip([2, 3]) if flip_weight else w
    w = w.reshape(groups, o // groups, i, k, k).transpose(1, 2).reshape(groups * i, o // groups, k, k)
    x = F.conv_transpose2d(x, w, stride=up, groups=groups)
    return upfirdn2d(x, f, 1, 1, [low + 1 - k, high + up - k] * 2, flip_filter, up**2)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up=1,
    down=1,
    padding=0,
    resample_filter: Tensor | None = None,
    demodulate=True,
    flip_weight=True,
    fused_modconv=True,
):
    (n, i, h, w), (o, _, k, _) = x.shape, weight.shape
    if demodulate or fused_modconv:
        weights = weight * styles[:, None, :, None, None]
        d = (weights.square().sum([2, 3, 4]) + 1e-8).rsqrt()
    given = {"up": up, "down": down, "padding": padding, "flip_weight": flip_weight}
    if fused_modconv:  # a group for each image
        weights = weights * d[:, :, None, None, None] if demodulate else weights
        x, weights = x.reshape(1, n * i, h, w), weights.reshape(n * o, i, k, k)
        x = conv2d_resample(x, weights.to(x.dtype), resample_filter, groups=n, **given)
        x = x.reshape(n, o, *x.shape[2:])
        return x if noise is None else x + noise
    x = conv2d_resample(x * styles[:, :, None, None], weight.to(x.dtype), resample_filter, **given)
    if demodulate:
        x = x * d[:, :, None, None]
    return x if noise is None else x + noise
