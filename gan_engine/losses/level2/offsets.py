"""Offsets, which D adds to activations: their share of a tangent, and their gradient.

An offset b that is added to each sample counts a[n] times in the tangent of sample n, and its gradient is the sum over
n of a[n] delta[n]. See README.md.
"""

import torch
from torch import Tensor

from gan_engine.losses.level2.tape import Gradients


def per_sample(a: Tensor, x: Tensor) -> Tensor:
    """a [N] as [N, 1, ...], to be multiplied with x [N, ...]"""
    return a.reshape([-1] + [1] * (x.ndim - 1))


def add_offset(tangent: Tensor, a: Tensor, offset: Tensor, may_overwrite: bool) -> Tensor:
    """tangent[n] + a[n] offset, in the dtype that tangent + offset has"""
    if may_overwrite:
        return tangent.addcmul_(per_sample(a, tangent), offset.detach())
    dtype = torch.promote_types(tangent.dtype, offset.dtype) if offset.ndim > 0 else tangent.dtype
    return tangent.addcmul(per_sample(a, tangent), offset.detach()).to(dtype)


def add_offset_gradient(offset: Tensor, delta: Tensor | None, a: Tensor, grads: Gradients) -> None:
    """Add sum over n of a[n] delta[n] to the gradient of `offset`, summed over what the offset was broadcast along."""
    if delta is None or not offset.requires_grad:
        return
    shape = [1] * (delta.ndim - offset.ndim) + list(offset.shape)
    inner = [i for i in range(1, delta.ndim) if shape[i] == 1 and delta.shape[i] > 1]
    total = delta.sum(inner, keepdim=True, dtype=a.dtype) if inner else delta.to(a.dtype)
    total = total * per_sample(a, total)
    grads.add(offset, total.sum_to_size(shape).reshape(offset.shape).to(offset.dtype))
