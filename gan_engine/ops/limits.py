"""Numbers within limits, with the same gradient in every version of PyTorch.

At a limit the gradient of our ops is 1. That of torch.clamp is 1 up to PyTorch 2.13. From 2.14 on it is 0 there, and
1 / 2 where the limit is a tensor.
"""

import torch
from torch import Tensor


def _passes() -> bool:
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(1, device="cpu", requires_grad=True)
        return bool(torch.autograd.grad(x.clamp(-1, 1), x)[0])


CLAMP_PASSES = _passes()  # the gradient of torch.clamp is 1 at its limits


def clamped(x: Tensor, limit: float) -> Tensor:
    """x within [-limit, limit]. NaN stays NaN."""
    if CLAMP_PASSES:
        return x.clamp(-limit, limit)
    return torch.where(x > limit, limit, torch.where(x < -limit, -limit, x))
