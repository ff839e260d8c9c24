"""The operators of other libraries in plain PyTorch, stated from their behaviour alone: zeros, pads, sums."""

import torch
import torch.nn.functional as F
from torch import Tensor

FUNCTIONS = {
    "linear": lambda x, alpha: x,
    "relu": lambda x, alpha: x.clamp(min=0),
    "lrelu": lambda x, alpha: torch.where(x > 0, x, alpha * x),
    "tanh": lambda x, alpha: x.tanh(),
    "sigmoid": lambda x, alpha: 1 / (1 + (-x).exp()),
    "elu": lambda x, alpha: torch.where(x > 0, x, x.exp() - 1),
    "selu": lambda x, alpha: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)),
    "softplus": lambda x, alpha: (1 + x.exp()).log(),
    "swish": lambda x, alpha: x / (1 + (-x).exp()),
}


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None) -> Tensor:
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    y = FUNCTIONS[act](x, 0.2 if alpha is None else alpha)
    y = y * ((2**0.5 if act in ("relu", "lrelu", "swish") else 1) if gain is None else gain)
    return y if clamp is None else y.clamp(-clamp, clamp)


def upfirdn2d(x, f=None, up=(1, 1), down=(1, 1), sides=(0, 0, 0, 0), flip_filter=False, gain=1.0) -> Tensor:
    """up and down: (x, y). sides: (x0, x1, y0, y1)."""
    n, c, h, w = x.shape
    f = (torch.ones(1) if f is None else f).to(x.dtype)
    f = f[:, None] * f if f.ndim == 1 else f
    u = x.new_zeros(n, c, h * up[1], w * up[0])
    rows, columns = torch.arange(h) * up[1], torch.arange(w) * up[0]
    u = u.index_put((torch.arange(n)[:, None, None, None], torch.arange(c)[:, None, None], rows[:, None], columns), x)
    u = F.pad(u, list(sides))
    taps_y, taps_x = f.shape
    height, width = u.shape[2] - taps_y + 1, u.shape[3] - taps_x + 1
    y = x.new_zeros(n, c, height, width)
    for i in range(taps_y):
        for j in range(taps_x):
            tap = f[i, j] if flip_filter else f[taps_y - 1 - i, taps_x - 1 - j]
            y = y + tap * u[:, :, i : i + height, j : j + width]
    return gain * y[:, :, :: down[1], :: down[0]]


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False) -> Tensor:
    taps = 1 if f is None else f.shape[-1]
    low = high = padding
    if up > 1:
        low, high = low + (taps + up - 1) // 2, high + (taps - up) // 2
    if down > 1:
        low, high = low + (taps - down + 1) // 2, high + (taps - down) // 2
    y = upfirdn2d(x, f if up > 1 else None, (up, up), (1, 1), (low, high, low, high), flip_filter, up**2)
    y = F.conv2d(y, w if flip_weight else w.flip([2, 3]), groups=groups)
    return upfirdn2d(y, f, (1, 1), (down, down), (0, 0, 0, 0), flip_filter) if down > 1 else y


def modulated_conv2d(x, weight, styles, demodulate=True, input_gain=None, **options) -> Tensor:
    """A weight for each image."""
    w = weight * styles[:, None, :, None, None]  # [N, O, I, kh, kw]
    if demodulate:
        w = w / (w.square().sum([2, 3, 4], keepdim=True) + 1e-8).sqrt()
    if input_gain is not None:
        w = w * input_gain.expand(styles.shape)[:, None, :, None, None]
    return torch.cat([conv2d_resample(x[i : i + 1], w[i], **options) for i in range(len(x))])


def filtered_lrelu(x, fu, fd, b, up, down, sides, gain, slope, clamp, flip_filter=False) -> Tensor:
    y = upfirdn2d(bias_act(x, b), fu, (up, up), (1, 1), sides, flip_filter, up**2)
    y = bias_act(y, None, 1, "lrelu", slope, gain, clamp)
    return upfirdn2d(y, fd, (1, 1), (down, down), (0, 0, 0, 0), flip_filter)


def grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    """Sums over all pixels, weighted by their distance."""
    (h, w), (gx, gy) = x.shape[2:], grid.unbind(-1)
    px, py = ((gx + 1) * w - 1) / 2, ((gy + 1) * h - 1) / 2
    near_x = (1 - (px[..., None] - torch.arange(w)).abs()).clamp(min=0)
    near_y = (1 - (py[..., None] - torch.arange(h)).abs()).clamp(min=0)
    return torch.einsum("nchw,nijh,nijw->ncij", x, near_y, near_x)


def orders(function, *inputs: Tensor) -> list[Tensor]:
    """y, the gradients of <y, fixed numbers>, and the gradients of the squares of those gradients; zeros for None"""
    inputs = tuple(t.detach().clone().requires_grad_() for t in inputs)
    y = function(*inputs)
    numbers = torch.linspace(0.3, 1.7, y.numel(), dtype=y.dtype).reshape(y.shape)
    first = torch.autograd.grad((y * numbers).sum(), inputs, create_graph=True, allow_unused=True)
    total = sum(g.square().sum() for g in first if g is not None)
    second = [None] * len(inputs)
    if total.requires_grad:
        second = torch.autograd.grad(total, inputs, allow_unused=True)
    pairs = [*zip(first, inputs), *zip(second, inputs)]
    return [y.detach(), *(torch.zeros_like(t) if g is None else g.detach() for g, t in pairs)]


def assert_same(ours, plain, *inputs: Tensor) -> None:
    """Values and gradients of both orders, in float64 to 1e-10 of the largest number of each"""
    for got, want in zip(orders(ours, *inputs), orders(plain, *inputs), strict=True):
        assert got.shape == want.shape and got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10 * max(1.0, float(want.abs().max())))
