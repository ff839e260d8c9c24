"""Penalties at levels 1 and "autograd": autograd differentiates the gradient by the image again."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses import norms
from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.network import Network
from gan_engine.losses.outputs import Outputs, Picked, WrongOutput, mean_loss, read_outputs, without_graph
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
    picked: Picked = None,
) -> tuple[Any, Tensor]:
    """`backward_with_penalty` by autograd; gamma is [N]. `closed` is level 1. Gives the logits and penalty [N]."""
    img.requires_grad_()
    with torch.enable_grad():
        outputs, g = outputs_and_gradient(D, img, c, closed=closed, picked=picked)
        logits = outputs.for_loss(gamma.dtype)
        with without_autocast(img):
            s = sum_of_squares(g) if closed else g.to(gamma.dtype).square().flatten(1).sum(1)
            penalty = norms.penalty(s, centre)
            total = (gamma / 2 * penalty).mean()
            if loss is not None:
                total = total + mean_loss(loss, logits)
        total = total * scale
        if total.requires_grad:  # else D learns nothing
            total.backward()
    return without_graph(logits), penalty.detach()


def outputs_and_gradient(
    D: Network, img: Tensor, c: Any, *, closed: bool, picked: Picked = None
) -> tuple[Outputs, Tensor]:
    """What D returns, and g [N, ...], the gradient of the logits of image n by image n, both with a graph."""
    with ClosedOps(closed=closed):
        returned = D(img) if c is None else D(img, c)
        outputs = read_outputs(returned, len(img), picked)
    want = "D must return logits that depend on the image"
    if not all(logits.requires_grad for logits in outputs.logits):  # the sum of a list would hide one
        raise WrongOutput(f"{want}, got some that have no gradient")
    return outputs, gradient_with_graph(outputs.sum(), img, None, want)


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
