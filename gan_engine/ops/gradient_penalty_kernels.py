"""The kernels of sum_of_squares and mix as PyTorch operators without autograd."""

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.kernel_op import define, in_layout, wide


def _rows(x: Tensor) -> Tensor:
    """x as the kernels read it: samples one behind the other, without gaps. It is a copy if x is not."""
    if x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)):
        return x
    return x.contiguous()


def _sample_dot(x, y, backend):
    samples, size = x.shape[0], x.shape[1:].numel()
    if x.numel() == 0:
        return x.new_zeros(samples, dtype=wide(x.dtype))
    x = _rows(x)
    y = in_layout(y, x.stride())
    kernels = backends.kernels("sum_of_squares", backend)
    slots = kernels.sample_dot_slots(samples, size)
    partial = x.new_empty((samples, slots), dtype=wide(x.dtype))
    kernels.sample_dot(x, y, partial, samples, size, slots, x.dtype)
    return partial.sum(1)


def _sample_dot_fake(x, y, backend):
    return x.new_empty(x.shape[0], dtype=wide(x.dtype))


def _sample_mix(x, y, a, b, backend):
    x = _rows(x)
    z = torch.empty_like(x)
    if x.numel() > 0:
        y = None if y is None else in_layout(y, x.stride())
        a, b = (None if weight is None else weight.contiguous() for weight in (a, b))
        kernels = backends.kernels("mix", backend)
        kernels.sample_mix(x, y, a, b, z, x.shape[0], x.shape[1:].numel(), x.dtype)
    return z


def _sample_mix_fake(x, y, a, b, backend):
    return torch.empty_like(_rows(x))


define("sample_dot(Tensor x, Tensor y, str backend) -> Tensor", _sample_dot, _sample_dot_fake)
define("sample_mix(Tensor x, Tensor? y, Tensor a, Tensor? b, str backend) -> Tensor", _sample_mix, _sample_mix_fake)
