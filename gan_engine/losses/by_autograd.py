"""Penalties at levels 1 and "autograd": autograd differentiates the gradient by the image again."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses import norms
from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.known import Known
from gan_engine.losses.network import Network
from gan_engine.losses.outputs import Outputs, Picked, WrongOutput, mean_loss, read_outputs, without_graph
from gan_engine.ops.gradient_penalty import sum_of_squares

_WANT = "D must return logits that depend on the image"


def backward_by_autograd(
    D: Network,
    img: Tensor,
    loss: Callable[[Any], Tensor] | None,
    gamma: float | Tensor,
    c: Any,
    centre: float,
    scale: float | Tensor,
    *,
    closed: bool,
    picked: Picked = None,
    seen: Known | None = None,
) -> tuple[Any, Tensor]:
    """`backward_with_penalty` by autograd; `closed` is level 1. `seen` is what is known of D.

    `img` has no graph, and is the caller's own. Gives the logits and the penalty [N].
    """
    with torch.enable_grad():
        outputs, g = outputs_and_gradient(D, img.requires_grad_(), c, closed=closed, picked=picked, seen=seen)
        with without_autocast(img):
            penalty = _penalty(g, centre, closed=closed)
            logits = outputs.for_loss(penalty.dtype)
            mean = (gamma / 2 * penalty).mean() if isinstance(gamma, Tensor) else penalty.mean()
            weight = 1 if isinstance(gamma, Tensor) else gamma / 2
            total = weight * mean if loss is None else torch.add(mean_loss(loss, logits), mean, alpha=weight)
        backward(total, scale)
    return without_graph(logits), penalty.detach()


def backward(total: Tensor, scale: float | Tensor) -> None:
    """Add the gradients of `total` times `scale` to .grad."""
    if isinstance(scale, Tensor) or scale != 1:
        total = total * scale
    if total.requires_grad:  # else D learns nothing
        total.backward()


def outputs_and_penalty(
    D: Network,
    img: Tensor,
    c: Any,
    centre: float,
    *,
    closed: bool,
    picked: Picked = None,
    seen: Known | None = None,
) -> tuple[Outputs, Tensor]:
    """What D returns for images without a graph, and penalty [N] = (|dD/dimg| - centre)^2, both with a graph.

    `img` is the caller's own.
    """
    outputs, g = outputs_and_gradient(D, img.requires_grad_(), c, closed=closed, picked=picked, seen=seen)
    with without_autocast(img):
        return outputs, _penalty(g, centre, closed=closed)


def _penalty(g: Tensor, centre: float, *, closed: bool) -> Tensor:
    if closed:
        return norms.penalty(sum_of_squares(g), centre)
    return norms.penalty(g.to(torch.promote_types(g.dtype, torch.float32)).square().flatten(1).sum(1), centre)


def outputs_and_gradient(
    D: Network, img: Tensor, c: Any, *, closed: bool, picked: Picked = None, seen: Known | None = None
) -> tuple[Outputs, Tensor]:
    """What D returns, and g [N, ...], the gradient of the logits of image n by image n, both with a graph."""
    if closed or picked is not None:  # what picks logits is not watched
        seen = None
    watching = seen is None or not seen.without_attention
    if watching:
        with ClosedOps(closed=closed) as ops:
            outputs = read_outputs(D(img) if c is None else D(img, c), len(img), picked)
        if seen is not None and not ops.attended:
            seen.saw_no_attention()
    else:
        outputs = read_outputs(D(img) if c is None else D(img, c), len(img))
    if not all([logits.requires_grad for logits in outputs.logits]):  # the sum of a list would hide one
        raise WrongOutput(f"{_WANT}, got some that have no gradient")
    return outputs, gradient_with_graph(outputs.sum(), img, None, _WANT)


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


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    device = x.device.type
    # Leaving autocast takes a hundredth of a small step: it clears a cache.
    return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else _NOTHING


_NOTHING = contextlib.nullcontext()
