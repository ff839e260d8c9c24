"""The filters of `alias_free_activation`: from a grid to one of twice the density, and back; and their adjoints."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.ops.upfirdn2d import upfirdn2d


def kaiser_sinc(taps: int = 12, *, cutoff: float = 0.25, half_width: float = 0.3) -> Tensor:
    """f[k] = 2 cutoff sinc(2 cutoff t) kaiser(t), t = k - (taps - 1) / 2, divided by the sum

    The low-pass filter of BigVGAN. The window is wide enough for a transition of 2 half_width (Kaiser's formulas).

    Args:
        taps: an even number, at least 2.
        cutoff, half_width: in cycles per element of the filtered signal; 0.5 is the highest frequency that it holds.

    Returns:
        f: [taps], float32.

    Raises:
        ValueError: taps that are odd or below 2.
    """
    if taps < 2 or taps % 2:
        raise ValueError(f"kaiser_sinc: taps must be even and at least 2, got {taps}")
    attenuation = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    window = torch.kaiser_window(taps, periodic=False, beta=kaiser_beta(attenuation), dtype=torch.float64)
    t = torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2
    f = window * torch.sinc(2 * cutoff * t)
    return (f / f.sum()).float()


def kaiser_beta(attenuation: float) -> float:
    """Kaiser's fit of the parameter of his window, for an attenuation in dB (Kaiser 1974)"""
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    beyond = max(attenuation - 21, 0)
    return 0.5842 * beyond**0.4 + 0.07886 * beyond


class Filters(NamedTuple):
    """`up` and `down` of [N, C, T] or [N, C, H, W] by `upfirdn2d`."""

    fu: Tensor
    fd: Tensor
    backend: str | None

    def up(self, x: Tensor) -> Tensor:
        reach, start = len(self.fu) // 4, len(self.fu) // 2 - len(self.fu) // 4 * 2
        return self._filtered(_bordered(x, reach, reach), self.fu, 2, 1, (start, start - 1), False)

    def down(self, a: Tensor) -> Tensor:
        half = len(self.fd) // 2
        return self._filtered(_bordered(a, half - 1, half), self.fd, 1, 2, (0, 0), True)

    def _filtered(self, x: Tensor, f: Tensor, up: int, down: int, sides: tuple[int, int], flip: bool) -> Tensor:
        rows = x.ndim == 3
        y = upfirdn2d(
            x[:, :, None] if rows else x,
            f[None] if rows else f,
            up=[up, 1] if rows else up,
            down=[down, 1] if rows else down,
            padding=[*sides, 0, 0] if rows else [*sides, *sides],
            flip_filter=flip,
            gain=up if rows else up * up,
            backend=self.backend,
        )
        return y[:, :, 0] if rows else y


def _bordered(x: Tensor, before: int, behind: int) -> Tensor:
    return F.pad(x, [before, behind] * (x.ndim - 2), mode="replicate")


# The same of rows [..., T], in PyTorch's own operators. Callers hold them `unrounded`.


def unrounded(x: Tensor) -> torch.autocast:
    """A block in which autocast does not round what is computed from x."""
    return torch.autocast("cpu" if x.is_meta else x.device.type, enabled=False)  # there is none for "meta"


def _flat(x: Tensor) -> Tensor:
    """[rows, 1, T]"""
    return x.reshape(x.shape[:-1].numel(), 1, x.shape[-1])


def up_rows(x: Tensor, fu: Tensor) -> Tensor:
    """[..., T] -> [..., 2 T]: a zero behind each element, the border repeated, and a convolution with 2 fu"""
    reach, crop = len(fu) // 4, len(fu) // 4 * 2 + len(fu) // 2 - 1
    rows = F.pad(_flat(x), (reach, reach), mode="replicate")
    u = F.conv_transpose1d(rows, 2 * fu.to(x.dtype)[None, None], stride=2)
    return u[..., crop : crop + 2 * x.shape[-1]].reshape(*x.shape[:-1], 2 * x.shape[-1])


def down_rows(a: Tensor, fd: Tensor) -> Tensor:
    """[..., 2 T] -> [..., T]: the border repeated, a correlation with fd, and every second element"""
    half = len(fd) // 2
    rows = F.pad(_flat(a), (half - 1, half), mode="replicate")
    return F.conv1d(rows, fd.to(a.dtype)[None, None], stride=2).reshape(*a.shape[:-1], a.shape[-1] // 2)


def up_rows_adjoint(g: Tensor, fu: Tensor) -> Tensor:
    """[..., 2 T] -> [..., T]"""
    reach, crop = len(fu) // 4, len(fu) // 4 * 2 + len(fu) // 2 - 1
    behind = 2 * (2 * reach - 1) + len(fu) - crop
    rows = F.pad(_flat(g), (crop, behind))
    dx = F.conv1d(rows, 2 * fu.to(g.dtype)[None, None], stride=2)
    return _folded(dx, reach, reach).reshape(*g.shape[:-1], g.shape[-1] // 2)


def down_rows_adjoint(dy: Tensor, fd: Tensor) -> Tensor:
    """[..., T] -> [..., 2 T]"""
    half = len(fd) // 2
    rows = F.conv_transpose1d(_flat(dy), fd.to(dy.dtype)[None, None], stride=2)
    return _folded(F.pad(rows, (0, 1)), half - 1, half).reshape(*dy.shape[:-1], 2 * dy.shape[-1])


def _folded(x: Tensor, before: int, behind: int) -> Tensor:
    """The adjoint of repeating the border: what lies outside is added to the first and the last element."""
    inside = x.shape[-1] - before - behind
    first = F.pad(x[..., :before].sum(-1, keepdim=True), (0, inside - 1))
    last = F.pad(x[..., before + inside :].sum(-1, keepdim=True), (inside - 1, 0))
    return x[..., before : before + inside] + first + last
