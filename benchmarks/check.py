"""Is what is to be timed right? Judged on the very inputs that are timed, against float64."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from benchmarks.steps import step


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

    Every result may be twice as far from `reference` in float64 as that of `eager` in the same dtype, plus one ulp, or
    off by a millionth of its largest number: sums of a thousand terms in another order differ by as much in float32.
    A gradient that is undefined counts as zero.
    """

    def results(f: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor) -> list[Tensor | None]:
        return [None if t is None else t.detach() for t in step(f, mode, inputs, dy)()]

    oracle = results(reference, [t.detach().double().requires_grad_() for t in inputs], dy.double())
    allowed = [
        max(2 * _furthest(got, want), 1e-6 * _largest(want)) for got, want in zip(results(eager, inputs, dy), oracle)
    ]
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
