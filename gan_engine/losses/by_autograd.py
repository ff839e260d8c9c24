"""Penalties at levels 1 and "autograd": autograd differentiates the gradient by the image again."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses import norms
from gan_engine.losses.closed_ops import ClosedOps
from gan_engine.losses.network import Network, explain
from gan_engine.losses.outputs import (
    Outputs,
    Picked,
    WrongOutput,
    mean_loss,
    read_outputs,
    without_graph,
)
from gan_engine.losses.step import total
from gan_engine.ops.gradient_penalty import sum_of_squares, sum_of_squares_ref

# Of images. Fewer numbers: the search for leaves in a graph, of 0.1 to 0.2 ms, costs more than the pass by the image. A
# step, by the numbers of its images, with the search over without it: linear layers 16,384: 0.91, 30,000: 0.95, 65,536:
# 0.98; convolutions 32,768: 1.05 (Intel Xeon, AVX-512, busy, one thread).
FEW = 1 << 15

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
    ops: ClosedOps | None,
    picked: Picked = None,
) -> tuple[Any, Tensor]:
    """`backward_with_penalty` by autograd, with D on `ops`.

    `img` has no graph, and is the caller's own. Gives the logits and the penalty [N].
    """
    with torch.enable_grad():
        outputs, g = outputs_and_gradient(D, img.requires_grad_(), c, ops=ops, picked=picked)
        with without_autocast(img):
            penalty = norms.penalty(
                (sum_of_squares if ops is not None and ops.closed else sum_of_squares_ref)(g), centre
            )
            logits = outputs.for_loss(penalty.dtype)
            mean = (gamma / 2 * penalty).mean() if isinstance(gamma, Tensor) else penalty.mean()
            weight = 1 if isinstance(gamma, Tensor) else gamma / 2
            whole = weight * mean if loss is None else torch.add(mean_loss(loss, logits), mean, alpha=weight)
        backward(whole, scale, img=img)
    return without_graph(logits), penalty.detach()


def backward(total: Tensor, scale: float | Tensor, *, img: Tensor | None = None) -> None:
    """Add the gradients of `total` times `scale` to .grad, as `backward_from` does."""
    if isinstance(scale, Tensor) or scale != 1:
        total = total * scale
    backward_from([(total, None)], img=img)


def backward_from(roots: Iterable[tuple[Tensor, Tensor | None]], *, img: Tensor | None = None) -> None:
    """Add the gradients of the sum of <y, dy> over the roots (y, dy) to .grad. dy is None for a y of one number.

    The gradient of `img`, a leaf, may be left out: it costs D's first layer a pass that nobody reads. A pass of few
    numbers is left in.
    """
    learned = [root for root in roots if root[0].requires_grad]
    if not learned:  # D learns nothing
        return
    ys, dys = zip(*learned)
    few = img is None or img.ndim < 3 or img.numel() < FEW
    leaves = None if few else _other_leaves(ys, img)
    try:
        if leaves is None:
            torch.autograd.backward(ys, dys)
        elif leaves:
            torch.autograd.backward(ys, dys, inputs=leaves)
    except RuntimeError as error:
        explain(error)
        raise


def _other_leaves(ys: Iterable[Tensor], img: Tensor) -> list[Tensor] | None:
    """The leaves of the graph of `ys` but `img`; None where the engine must run what leads to `img` alone, too.

    Nodes that lead to `img` alone may have hooks, or effects of their own, as those of backward hooks of modules have.
    They are left out only where there are none: where each node leads to another leaf. A re-entrant checkpoint refuses
    a pass for some leaves.
    """
    if img._backward_hooks or img._post_accumulate_grad_hooks:
        return None
    end = torch.autograd.graph.get_gradient_edge(img).node
    leaves, waiting, seen = [], [torch.autograd.graph.get_gradient_edge(y).node for y in ys], {end}
    while waiting:
        node = waiting.pop()
        following = [edge for edge, _ in node.next_functions if edge is not None]
        if all(each is end for each in following) or "Checkpoint" in node.name():
            return None
        for each in following:
            if each not in seen:
                seen.add(each)
                if hasattr(each, "variable"):
                    leaves.append(each.variable)
                else:
                    waiting.append(each)
    return leaves


def outputs_and_gradient(
    D: Network, img: Tensor, c: Any, *, ops: ClosedOps | None, picked: Picked = None
) -> tuple[Outputs, Tensor]:
    """What D returns, and g [N, ...], the gradient of the logits of image n by image n, both with a graph.

    D runs on `ops`. None: on PyTorch's functions, as it calls no attention.
    """
    with _NOTHING if ops is None else ops:
        outputs = read_outputs(D(img) if c is None else D(img, c), img.shape[0], picked)
    return outputs, gradient_with_graph(sum_of_logits(outputs), img, None, _WANT)


def sum_of_logits(outputs: Outputs) -> Tensor:
    """[], the sum of all logits, whose gradient a penalty measures: it sums over patches and scales."""
    for logits in outputs.logits:  # the sum would hide one
        if not logits.requires_grad:
            raise WrongOutput(f"{_WANT}, got some that have no gradient")
    return total([logits.sum() for logits in outputs.logits])


def gradient_with_graph(y: Tensor, x: Tensor, dy: Tensor | None, want: str) -> Tensor:
    """The gradient of y by x with a graph of its own. Raises ValueError, which says `want`, where there is none."""
    if y.requires_grad:
        try:
            (g,) = torch.autograd.grad(y, x, dy, create_graph=True, allow_unused=True)
        except RuntimeError as error:
            explain(error)
            raise
        if g is not None:
            return g
    raise no_gradient(want)


def no_gradient(want: str = _WANT) -> ValueError:
    return ValueError(f"{want}, got some that no gradient leads back from")


def detached(x: Tensor) -> Tensor:
    """x without its graph. A tensor that torch.inference_mode() made is copied, as it cannot have gradients."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "the call makes gradients, which torch.inference_mode() does not record: "
            "want it outside of that mode (torch.no_grad() may be in force)"
        )
    return x.clone() if x.is_inference() else x.detach()


def in_autocast(x: Tensor) -> bool:
    """True if autocast is in force for functions of x.

    The first look is at all devices but those that PyTorch leaves out of it, such as mps. The name of a device takes
    5 us.
    """
    if (x.is_cpu or x.is_cuda) and not torch._C._is_any_autocast_enabled():
        return False
    return torch.is_autocast_enabled(x.device.type)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    # Leaving autocast takes a hundredth of a small step: it clears a cache.
    return torch.autocast(x.device.type, enabled=False) if in_autocast(x) else _NOTHING


_NOTHING = contextlib.nullcontext()
