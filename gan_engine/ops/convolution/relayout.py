"""Change the memory layout of an image, and transpose a weight, faster than PyTorch does on CPUs."""

import torch
from torch import Tensor

from gan_engine.ops.kernel_op import define, operators
from gan_engine.system import native


def in_layout(x: Tensor, channels_last: bool) -> Tensor:
    """x, dense in channels_last or in contiguous memory."""
    wanted, other = torch.contiguous_format, torch.channels_last
    if channels_last:
        wanted, other = other, wanted
    if x.is_contiguous(memory_format=wanted):
        return x
    if x.dtype == torch.float32 and x.is_contiguous(memory_format=other) and x.numel() > 0:
        return operators.relayout(x, channels_last)
    return x.contiguous(memory_format=wanted)


# The kernel as a PyTorch operator without autograd: x is dense in the other layout.


def _relayout(x, channels_last):
    y = _relayout_fake(x, channels_last)
    n, c, h, w = x.shape
    native.cpu.relayout(x, y, n, *((c, h * w) if channels_last else (h * w, c)), 1)
    return y


def _relayout_fake(x, channels_last):
    return torch.empty_like(x, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _transposed_weight(weight):
    y = _transposed_weight_fake(weight)
    o, i, h, w = weight.shape
    if weight.dtype != torch.float32:
        y.copy_(weight.transpose(0, 1).flip([2, 3]))
    elif weight.numel() > 0:
        native.cpu.relayout(weight.contiguous(), y, 1, o, i * h * w, h * w)
    return y


def _transposed_weight_fake(weight):
    o, i, h, w = weight.shape
    return weight.new_empty((i, h, w, o)).permute(0, 3, 1, 2)


define("transposed_weight(Tensor weight) -> Tensor", _transposed_weight, _transposed_weight_fake)
define("relayout(Tensor x, bool channels_last) -> Tensor", _relayout, _relayout_fake)
