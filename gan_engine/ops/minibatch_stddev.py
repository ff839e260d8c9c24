"""The spread within the batch as a feature map."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import check_tensors, layout, wide


def minibatch_stddev(
    x: Tensor, *, group_size: int | None = 4, num_channels: int = 1, backend: str | None = None
) -> Tensor:
    """y = [x, s], s[n, f] = mean over c, h, w of sqrt(var of x[., f, c, h, w] over the group of n + 1e-8)

    The C channels of x are split into F = num_channels runs (f, c). The variance divides by the number of samples. A
    discriminator sees in s whether samples vary (Karras et al. 2018, arXiv:1710.10196, section 3). The N samples form
    N / G interleaved groups, as in StyleGAN2: sample n is in group n mod (N / G).

    Args:
        x: [N, C, H, W], float32, float64, bfloat16 or float16.
        group_size: the most samples in a group, None for the whole batch; G is the largest divisor of N up to it.
        num_channels: F, a divisor of C.
        backend: see gan_engine.backends. "reference" is the only one: forward and backward pass together take a tenth
            of the forward pass of the next convolution (32x512x4x4, one CPU core, 2026-11).

    Returns:
        y: [N, C + F, H, W] in the dtype of x; channels_last if x is. Half precision statistics are computed in float32.

    Raises:
        ValueError: shapes that do not fit. A batch of several samples that splits only into groups of 1, where s is
            constant, although group_size allows more.
        TypeError: a dtype other than the four.

    Gradients: every order in x.
    """
    check_tensors("minibatch_stddev", x)
    if x.ndim != 4:
        raise ValueError(f"minibatch_stddev: x must be [N, C, H, W], got {list(x.shape)}")
    n, c, h, w = x.shape
    if num_channels < 1 or c % num_channels:
        raise ValueError(f"minibatch_stddev: num_channels must be a divisor of C = {c}, got {num_channels}")
    if group_size is not None and group_size < 1:
        raise ValueError(f"minibatch_stddev: group_size must be at least 1 or None, got {group_size}")
    most = n if group_size is None else min(group_size, n)
    g = group_of(n, most)
    if g == 1 < most:
        raise ValueError(
            f"minibatch_stddev: the batch must split into equal groups of 2 to {most} samples, got N = {n}"
        )
    backends.choose("minibatch_stddev", x, backend)
    groups = x.to(wide(x.dtype)).reshape(g, n // g, num_channels, c // num_channels, h, w)
    var = (groups - groups.mean(0)).square().mean(0)
    s = (var + 1e-8).sqrt().mean([2, 3, 4]).to(x.dtype).repeat(g, 1)[:, :, None, None]
    return torch.cat([x, s.expand(-1, -1, h, w).contiguous(memory_format=layout(x))], 1)


def group_of(n: int, group_size: int) -> int:
    """G of `minibatch_stddev`, how many samples each group has: the largest divisor of n up to group_size, or 1."""
    return next((size for size in range(min(group_size, n), 0, -1) if n % size == 0), 1)


backends.register("minibatch_stddev", has=())
