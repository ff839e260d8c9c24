"""The backward pass of a step at level 2: the recorded pass of D as one node of autograd over D's parameters.

The node is part of the graph of the loss, so that this graph may depend on anything. Autograd hands each parameter its
whole gradient, once, so that hooks of parameters and DistributedDataParallel see what they expect.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses import norms
from gan_engine.losses.level2.forward import RecordedForward
from gan_engine.losses.outputs import mean_loss
from gan_engine.ops.gradient_penalty import mix, sum_of_squares


def backward_by_tangents(
    recorded: RecordedForward,
    loss: Callable[[Any], Tensor] | None,
    gamma: Tensor,
    centre: float,
    scale: float | Tensor,
) -> tuple[Any, Tensor]:
    """`backward_with_penalty` of a D whose forward pass is recorded; gamma is [N]. Gives the logits and penalty [N]."""
    step = _PenalisedStep(recorded, gamma, centre)
    with torch.enable_grad(), torch.autocast(recorded.img.device.type, enabled=False):
        logits, total = step.logits_and_mean_penalty(with_loss=loss is not None)
        if loss is not None:
            node = (logits if isinstance(logits, Tensor) else logits[0]).grad_fn
            mean = mean_loss(loss, logits)
            if not _leads_to(mean, node):  # the loss does not read the logits, so offsets have no gradient
                _, total = step.logits_and_mean_penalty(with_loss=False)
            total = mean + total
        (total * scale).backward()
    return recorded.logits, step.penalty


class _PenalisedStep:
    """A step whose first two passes, forward and the gradient by the image, have run."""

    def __init__(self, recorded: RecordedForward, gamma: Tensor, centre: float) -> None:
        img = recorded.img
        device = img.device.type
        self.autocast = torch.autocast(
            device, dtype=torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device)
        )
        self.recorded, self.gamma = recorded, gamma
        self.g: Tensor | None = recorded.input_gradient()
        s, weight = sum_of_squares(self.g), gamma.detach() / len(img)
        self.penalty = norms.penalty(s, centre)
        # t[n] / g[n] [N], where t = d(sum of weight / 2 * penalty)/dg
        self.t_over_g = weight if centre == 0 else weight * (1 - centre / norms.norm(s))

    def logits_and_mean_penalty(self, *, with_loss: bool) -> tuple[Any, Tensor]:
        """The logits as a loss gets them, or None without a loss, and mean(gamma / 2 * penalty) [], from the node."""
        learned = self.recorded.learned(with_loss=with_loss)
        self.order, self.with_loss = [id(t) for t in learned], with_loss
        start = torch.empty((), requires_grad=True)  # for a D that learns nothing
        mean, *logits = _Node.apply(self, self.gamma, start, *learned)
        if not with_loss:
            return None, mean
        return logits[0] if isinstance(self.recorded.logits, Tensor) else logits, mean

    def gradients(self, a: list[Tensor | None], d: Tensor) -> list[Tensor | None]:
        """The gradients of the parameters: a has the gradients by the logits [N], d [] is by the mean penalty. Once."""
        if self.g is None:
            raise RuntimeError("backward_with_penalty: its graph is for one backward pass, which it runs itself")
        with self.autocast:
            t_over_g = self.t_over_g * d
            weights = [torch.zeros_like(t_over_g) if each is None else each for each in a or [None]]

            def start(k: int) -> Tensor:
                u = mix(self.recorded.img, self.g, weights[k], t_over_g)  # u[0] = a x + t
                if k == len(weights) - 1:
                    self.g = None  # its memory is needed
                return u

            found = self.recorded.parameter_gradients(start, weights if self.with_loss else None)
        return [found.pop(i) for i in self.order]


class _Node(torch.autograd.Function):
    """step, gamma [N], parameters -> mean penalty [], and with a loss the logits, [N] each"""

    @staticmethod
    def forward(ctx: Any, step: _PenalisedStep, gamma: Tensor, start: Tensor, *learned: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step
        ctx.set_materialize_grads(False)
        logits = step.recorded.logits
        each = [logits] if isinstance(logits, Tensor) else logits
        return (gamma / 2 * step.penalty).mean(), *(x.clone() for x in each if step.with_loss)

    @staticmethod
    def backward(ctx: Any, d: Tensor | None, *a: Tensor | None) -> tuple:
        step = ctx.step
        if d is None:
            raise RuntimeError("backward_with_penalty: gradients of logits by parameters are not for its loss to take")
        by_gamma = step.penalty * d / (2 * len(step.penalty)) if ctx.needs_input_grad[1] else None
        return None, by_gamma, None, *step.gradients(list(a), d)


def _leads_to(t: Tensor, end: torch.autograd.graph.Node) -> bool:
    """True if the graph of t leads to the node `end`."""
    waiting, seen = [t.grad_fn], {None}
    while waiting:
        node = waiting.pop()
        if node is end:
            return True
        if node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions]
    return False
