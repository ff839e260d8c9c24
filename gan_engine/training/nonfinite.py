"""The origin of a value that is not finite: the first term, layer or gradient of the step that shows it."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn


class NonFiniteError(RuntimeError):
    """A loss or gradient that is not finite. The message names the first place that shows it."""


def trace(nets: dict[str, nn.Module], terms: Callable[[], dict[str, Tensor]]) -> str | None:
    """Compute `terms()` and its gradients once more and report the first values that are not finite.

    Args:
        nets: every network that takes part, by name; the weights in training are those that require gradients.
        terms: gives the named losses, each [N], of the step in question.

    Returns:
        The report, or None if all values are finite.
    """
    # Buffers are left out: the running statistics have already seen the step.
    weights = [(f"{prefix}.{name}", p) for prefix, net in nets.items() for name, p in net.named_parameters()]
    broken = [f"{name}: {_count(p)}" for name, p in weights if not p.isfinite().all()]
    if broken:
        return _lines("weights were not finite before this step:", broken)

    layers: list[str] = []
    with _watched(nets, layers):
        losses = terms()
    lines = []
    if layers:
        lines.append(f"first layer: {layers[0]}")
    lines += [f"term {name}: {_count(loss)}" for name, loss in losses.items() if not loss.isfinite().all()]
    if lines:
        return _lines("in the forward pass:", lines)

    trained = [(name, p) for name, p in weights if p.requires_grad][::-1]  # the order of the backward pass
    grads = torch.autograd.grad(sum(loss.sum() for loss in losses.values()), [p for _, p in trained], allow_unused=True)
    named = [(name, grad) for (name, _), grad in zip(trained, grads, strict=True) if grad is not None]
    broken = [f"{name}: {_count(grad)}" for name, grad in named if not grad.isfinite().all()]
    if broken:
        return _lines("in the backward pass, terms finite; gradients, last layer first:", broken)
    if not torch.nn.utils.get_total_norm([grad for _, grad in named]).isfinite():
        name, _ = max(named, key=lambda each: float(each[1].abs().max()))
        return f"in the norm of the gradients, which are finite and too large; the largest is in {name}"
    return None


@contextlib.contextmanager
def _watched(nets: dict[str, nn.Module], found: list[str]) -> Iterator[None]:
    """Inside, append every module with an output that is not finite to `found`, in the order of computation."""

    def hook(name: str) -> Callable:
        def look(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                found.append(f"{name} ({type(module).__name__}): {_count(output)}")

        return look

    handles = []
    for prefix, net in nets.items():
        for name, module in net.named_modules():
            handles.append(module.register_forward_hook(hook(f"{prefix}.{name}" if name else prefix)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _count(x: Tensor) -> str:
    nan, inf = int(x.isnan().sum()), int(x.isinf().sum())
    return f"{nan:,} NaN and {inf:,} infinite of {x.numel():,} values {list(x.shape)}"


def _lines(title: str, lines: list[str], *, at_most: int = 8) -> str:
    more = [f"and {len(lines) - at_most} more"] if len(lines) > at_most else []
    return "\n  ".join([title, *lines[:at_most], *more])
