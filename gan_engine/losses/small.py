"""A step of a small D by autograd on PyTorch's functions: the loss and its penalties in one backward pass.

Calls cost a small D more than its arithmetic. A function in Python that a step calls once takes 5 to 10 us, as the
caches hold other things by then. The two functions here are therefore long, call few functions of ours, and ask nothing
twice.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses import norms
from gan_engine.losses.adversarial import Loss, of_each_image
from gan_engine.losses.by_autograd import backward_from, no_gradient, sum_of_logits
from gan_engine.losses.network import Network
from gan_engine.losses.outputs import Logits, check_numbers, check_values, read_outputs, without_graph
from gan_engine.ops.gradient_penalty import sum_of_squares_ref

Weight = float | Tensor  # of a penalty; a tensor is []


def step_at_once(
    D: Network,
    c: Any,
    loss: Loss,
    real_img: Tensor,
    gen_img: Tensor,
    between: Tensor | None,
    weights: dict[str, Weight],
    scale: float | Tensor,
    *,
    interval: int,
    means: bool,
) -> tuple[Logits, Logits, dict[str, Tensor]]:
    """Add the gradients of scale * mean(loss + interval * (gp (|g(between)| - 1)^2 + r1 |g(real)|^2)) to .grad.

    g is the gradient of D by the image. D calls no attention, no part of it is compiled, and no autocast is in force.

    Args:
        loss: D's side of an adversarial loss.
        between: the images of WGAN-GP, where it has a weight. They are the caller's own, and have no graph.
        weights: those of the penalties that are due, "gp" and "r1".
        means: whether the terms are means [], and not [N].

    Returns:
        The logits of generated and of real images, and the terms "D", "gp" and "r1" with their weights but without
        `interval`; all without a graph.
    """
    n, wide = real_img.shape[0], real_img.dtype
    if wide != torch.float32:
        wide = torch.promote_types(wide, torch.float32)
    real_pass = ("r1", real_img.detach(), True) if "r1" in weights else ("real", real_img, False)
    passes = [("fake", gen_img, False), real_pass]
    if between is not None:
        passes.insert(0, ("gp", between, True))
    found: dict[str, Any] = {}
    gradients: dict[str, Tensor] = {}
    for name, img, penalised in passes:
        if penalised:
            img.requires_grad_()
        returned = D(img) if c is None else D(img, c)
        # [N] or [N, 1], as most networks return them; the other forms take more calls
        single = isinstance(returned, Tensor) and returned.dtype == wide and returned.numel() == n
        single = single and returned.shape[:1] == (n,)
        outputs = None if single else read_outputs(returned, n)
        if outputs is None:
            found[name] = returned if returned.ndim == 1 else returned.flatten()
        else:
            found[name] = outputs.for_loss(wide)
        if penalised:
            y, ones, g = returned, None, None
            if outputs is not None:
                y = sum_of_logits(outputs)
            elif y.requires_grad:  # a sum of the logits would cost two calls more
                ones = torch.ones_like(y)
            if y.requires_grad:
                (g,) = torch.autograd.grad(y, img, ones, create_graph=True, allow_unused=True)
            if g is None:
                raise no_gradient()
            gradients[name] = g
    fake, real = found["fake"], found[real_pass[0]]
    plain = isinstance(fake, Tensor) and isinstance(real, Tensor) and fake.ndim == real.ndim == 1
    adversarial = loss(fake, real) if plain else of_each_image(loss, fake, real)
    if not isinstance(adversarial, Tensor) or adversarial.dtype != wide:
        check_numbers(adversarial)
    terms = {"D": adversarial.detach()}
    roots = [(adversarial, _of_mean(adversarial, 1, scale))]
    for name, g in gradients.items():
        weight, centre, still = weights[name], 1.0 if name == "gp" else 0.0, g.detach()
        squares = still.square().sum(1) if g.ndim == 2 and g.dtype == wide else sum_of_squares_ref(still)
        terms[name] = weight * norms.penalty(squares, centre)
        roots.append((g, norms.slope(still, squares, _of_mean(squares, 2 * interval * weight, scale), centre)))
    backward_from(roots)
    if means:
        terms = {name: term.mean() for name, term in terms.items()}
    return (fake.detach(), real.detach(), terms) if plain else (without_graph(fake), without_graph(real), terms)


def penalised_at_once(
    D: Network,
    c: Any,
    img: Tensor,
    loss: Callable[[Any], Tensor],
    gamma: float,
    centre: float,
    scale: float | Tensor,
) -> tuple[Any, Tensor]:
    """`backward_with_penalty` of a D that calls no attention and of which no part is compiled, outside of autocast.

    `img` has no graph, and is the caller's own. Gives the logits and the penalty [N].
    """
    n, wide = img.shape[0], img.dtype
    if wide != torch.float32:
        wide = torch.promote_types(wide, torch.float32)
    with torch.enable_grad():
        img.requires_grad_()
        returned = D(img) if c is None else D(img, c)
        # [N] or [N, 1], as most networks return them; the other forms take more calls
        single = isinstance(returned, Tensor) and returned.dtype == wide and returned.requires_grad
        if single and (returned.shape == (n,) or returned.shape == (n, 1)):
            y, ones = returned, torch.ones_like(returned)  # a sum of the logits would cost two calls more
            logits: Any = returned if returned.ndim == 1 else returned.flatten()
        else:
            outputs = read_outputs(returned, n)
            y, ones, logits = sum_of_logits(outputs), None, outputs.for_loss(wide)
        g = None
        if y.requires_grad:
            (g,) = torch.autograd.grad(y, img, ones, create_graph=True, allow_unused=True)
        if g is None:
            raise no_gradient()
        values = loss(logits)
        if not isinstance(values, Tensor) or values.ndim > 1 or values.dtype != wide or not values.requires_grad:
            check_values(values, logits)
    still = g.detach()
    squares = still.square().sum(1) if g.ndim == 2 and g.dtype == wide else sum_of_squares_ref(still)
    slope = norms.slope(still, squares, _of_mean(squares, gamma, scale), centre)
    backward_from(((values, _of_mean(values, 1, scale)), (g, slope)), img=img)
    logits = logits.detach() if isinstance(logits, Tensor) else without_graph(logits)
    return logits, norms.penalty(squares, centre)


def _of_mean(values: Tensor, weight: Weight, scale: Weight) -> Tensor:
    """The gradient of scale * weight * mean(values) by the values, rounded as autograd rounds it.

    It is dense, as autograd's is: sums over a gradient whose strides are 0 are added in another order. The halves of a
    Wasserstein loss then leave a gradient of 1e-7 to D's last bias, which Adam takes for a direction.
    """
    each = torch.full_like(values, 1 if isinstance(weight, Tensor) else weight)
    if isinstance(weight, Tensor):
        each = each * weight
    if isinstance(scale, Tensor) or scale != 1:
        each = each * (scale.reshape(()) if isinstance(scale, Tensor) else scale)
    return each / max(values.numel(), 1)
