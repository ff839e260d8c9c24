"""Penalties at levels 1 and "autograd": autograd differentiates the gradient by the image again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses import norms
from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.network import Network
from gan_engine.losses.outputs import check_logits, mean_loss
from gan_engine.ops.gradient_penalty import sum_of_squares


def backward_by_autograd(
    D: Network,
    img: Tensor,
    loss: Callable[[Tensor], Tensor] | None,
    gamma: Tensor,
    c: Any,
    centre: float,
    scale: float | Tensor,
    *,
    closed: bool,
) -> tuple[Tensor, Tensor]:
    """`backward_with_penalty` by autograd; gamma is [N]. `closed` is level 1. Gives logits [N] and penalty [N]."""
    img.requires_grad_()
    with torch.enable_grad():
        logits, g = logits_and_gradient(D, img, c, closed=closed)
        logits = logits.flatten().to(gamma.dtype)
        with without_autocast(img):
            s = sum_of_squares(g) if closed else g.to(gamma.dtype).square().flatten(1).sum(1)
            penalty = norms.penalty(s, centre)
            total = (gamma / 2 * penalty).mean()
            if loss is not None:
                total = total + mean_loss(loss, logits)
        total = total * scale
        if total.requires_grad:  # else D learns nothing
            total.backward()
    return logits.detach(), penalty.detach()


def logits_and_gradient(D: Network, img: Tensor, c: Any, *, closed: bool) -> tuple[Tensor, Tensor]:
    """The logits as D returns them, and g [N, ...], the gradient of logit n by image n, both with a graph."""
    with ClosedOps(closed=closed):
        logits = D(img) if c is None else D(img, c)
    check_logits(logits, len(img))
    return logits, gradient_with_graph(logits.sum(), img, None, "D must return logits that depend on the image")


def gradient_with_graph(y: Tensor, x: Tensor, dy: Tensor | None, want: str) -> Tensor:
    """The gradient of y by x with a graph of its own. Raises ValueError, which says `want`, where there is none."""
    if y.requires_grad:
        (g,) = torch.autograd.grad(y, x, dy, create_graph=True, allow_unused=True)
        if g is not None:
            return g
    raise ValueError(f"{want}, got some that no gradient leads back from")


def detached(x: Tensor) -> Tensor:
    """x without its graph. A tensor that torch.inference_mode() made is copied, as it cannot have gradients."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "a penalty is made of gradients, which torch.inference_mode() does not record: "
            "want the call outside of that mode (torch.no_grad() may be in force)"
        )
    return x.clone() if x.is_inference() else x.detach()


def without_autocast(x: Tensor) -> torch.autocast:
    return torch.autocast(x.device.type, enabled=False)
