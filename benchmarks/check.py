"""Is what is to be timed right? Judged on the very inputs that are timed, against float64."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.steps import laid_out, step


def wrong_results(
    functions: Mapping[str, Callable[..., Tensor]],
    mode: str,
    inputs: Sequence[Tensor],
    dy: Tensor,
    *,
    eager: Callable[..., Tensor],
    reference: Callable[..., Tensor],
) -> dict[str, str]:
    """Which of `functions` are wrong in `mode`, and how.

    Every result may be twice as far from `reference` in float64 as that of `eager` in the same dtype, in the one of its
    memory layouts that rounds more, plus one ulp, or off by a millionth of its largest number: sums of a thousand terms
    in another order differ by as much in float32. A gradient that is undefined counts as zero.

    Where a y next to 0 has another sign than that of `reference`, leaky ReLU has another slope, by rounding: gradients
    are taken for a dy of 0 there, and that by dy is not looked at.
    """
    eagers = [inputs]
    for layout in (torch.contiguous_format, torch.channels_last):
        others = [laid_out(t, layout) for t in inputs]
        if any(a is not b for a, b in zip(others, inputs)):
            eagers.append(others)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    judged = torch.ones_like(dy, dtype=torch.bool)
    with torch.no_grad():
        y = reference(*exact)
        near = 1e-5 * y.square().mean().sqrt()
        for f, args in [*((f, inputs) for f in functions.values()), *((eager, args) for args in eagers)]:
            with contextlib.suppress(Exception):  # told below
                found = f(*args)
                judged &= ((found > 0) == (y > 0)) | (found.abs() > near) | (y.abs() > near)
    dy = dy * judged

    def results(f: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor) -> list[Tensor | None]:
        *others, last = (None if t is None else t.detach() for t in step(f, mode, inputs, dy)())
        if mode == "second order" and last is not None:
            last = last.where(judged, 0)  # the gradient by dy
        return [*others, last]

    oracle = results(reference, exact, dy.double())
    allowed = [1e-6 * _largest(want) for want in oracle]
    for args in eagers:
        found = results(eager, args, dy)
        allowed = [max(limit, 2 * _furthest(got, want)) for limit, got, want in zip(allowed, found, oracle)]
    ulp = torch.finfo(dy.dtype).eps
    wrong = {}
    for name, f in functions.items():
        try:
            found = [_furthest(got, want, ulp) for got, want in zip(results(f, inputs, dy), oracle)]
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
            continue
        for i, (far, limit) in enumerate(zip(found, allowed)):
            if not far <= limit:  # NaN is wrong too
                wrong[name] = f"wrong: result {i} of {mode} is off by {far:.3g}, want at most {limit:.3g}"
    return wrong


def _largest(t: Tensor | None) -> float:
    return 0.0 if t is None or t.numel() == 0 else t.abs().max().item()


def _furthest(got: Tensor | None, want: Tensor | None, ulp: float = 0.0) -> float:
    """max(|got - want| - ulp |want|), at least 0."""
    if got is None and want is None:
        return 0.0
    got = torch.zeros_like(want) if got is None else got.double()
    want = torch.zeros_like(got) if want is None else want
    if got.shape != want.shape:
        return float("inf")
    return (got - want).abs_().sub_(want.abs(), alpha=ulp).clamp_min_(0).max().item()
