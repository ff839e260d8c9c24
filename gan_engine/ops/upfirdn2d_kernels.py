"""The kernel of upfirdn2d as a PyTorch operator without autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.fir import FirArguments
from gan_engine.ops.kernel_op import define


def kernel_arguments(x: Tensor, f: Tensor, y: Tensor | None, fir: FirArguments, channels_last: bool) -> tuple:
    """The arguments of the kernels about x, f and y, in the order of csrc/upfirdn2d.h."""
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return x, *filter_arguments(x.shape, x.dtype, f, y, fir, channels_last)


def filter_arguments(
    shape: Sequence[int], dtype: torch.dtype, f: Tensor, y: Tensor | None, fir: FirArguments, channels_last: bool
) -> tuple:
    """The arguments behind x, for an x of this shape and dtype."""
    n, c, h, w = shape
    (up_x, up_y), (down_x, down_y), (start_x, start_y), size, flip, gain = fir
    return (
        f.contiguous(), y, n, c,
        (h, size[0], up_y, down_y, start_y, f.shape[0]),
        (w, size[1], up_x, down_x, start_x, f.shape[-1]),
        dtype, f.ndim == 1, flip, channels_last, gain,
    )  # fmt: skip


def empty_image(x: Tensor, size: list[int], channels_last: bool) -> Tensor:
    """[N, C, H, W] for x [N, C, ...] and the size [H, W]"""
    format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty((*x.shape[:2], *size), dtype=x.dtype, device=x.device, memory_format=format)


def _run(x, f, up, down, start, size, flip, gain, channels_last, backend):
    y = empty_image(x, size, channels_last)
    if y.numel() == 0:
        return y
    if x.numel() == 0:
        return y.zero_()
    fir = FirArguments(up, down, start, size, flip, gain)
    backends.kernels("upfirdn2d", backend).upfirdn2d(*kernel_arguments(x, f, y, fir, channels_last))
    return y


def _fake(x, f, up, down, start, size, flip, gain, channels_last, backend):
    return empty_image(x, size, channels_last)


define(
    "upfirdn2d(Tensor x, Tensor f, int[] up, int[] down, SymInt[] start, SymInt[] size, bool flip, float gain,"
    " bool channels_last, str backend) -> Tensor",
    _run,
    _fake,
)
