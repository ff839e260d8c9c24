"""Check the results of functions before they are timed, on the same inputs, against the definition in float64."""

import contextlib
import functools
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
    """{name: error} of those `functions` whose results in `mode` are wrong.

    The error of a result is its largest difference from `reference` in float64. It may be the larger of

    * twice the error of `eager` in the same dtype plus one ulp; `eager` runs in both memory layouts, and the larger
      error counts
    * 1e-6 of the largest number of the result: float32 sums of a thousand terms in another order differ by as much
    * twice the change of `reference` in float64 when each input moves by up to half an ulp of float32: gradients that
      cancel differ by as much where a factor is rounded once more

    An undefined gradient counts as zero.

    Rounding may change the sign of a y close to 0, and leaky ReLU then has another slope. At such points gradients are
    computed for dy = 0, and the gradient by dy is not compared.
    """
    layouts = [inputs]
    for layout in (torch.contiguous_format, torch.channels_last):
        converted = [laid_out(t, layout) for t in inputs]
        if any(a is not b for a, b in zip(converted, inputs)):
            layouts.append(converted)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    calls = [*((f, inputs) for f in functions.values()), *((eager, args) for args in layouts)]
    compared = _same_slopes((reference, exact), calls)
    dy = dy * compared

    def results(f: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor) -> list[Tensor | None]:
        *others, last = (None if t is None else t.detach() for t in step(f, mode, inputs, dy)())
        if mode == "second order" and last is not None:
            last = last.where(compared, 0)  # the gradient by dy
        return [*others, last]

    oracle = results(reference, exact, dy.double())
    allowed = [1e-6 * _largest(want) for want in oracle]
    for args in layouts:
        got = results(eager, args, dy)
        allowed = [max(limit, 2 * _error(a, want)) for limit, a, want in zip(allowed, got, oracle)]

    @functools.cache
    def changes() -> list[float]:
        moved = results(reference, [_moved(t).requires_grad_() for t in exact], _moved(dy.double()))
        return [_error(a, want) for a, want in zip(moved, oracle)]

    ulp = torch.finfo(dy.dtype).eps
    wrong = {}
    for name, f in functions.items():
        try:
            errors = [_error(got, want, ulp) for got, want in zip(results(f, inputs, dy), oracle)]
        except Exception as error:
            wrong[name] = f"{type(error).__name__}: {error}"
            continue
        for i, (error, limit) in enumerate(zip(errors, allowed)):
            if error <= limit:
                continue
            limit = max(limit, 2 * changes()[i])
            if not error <= limit:  # NaN is wrong too
                wrong[name] = f"wrong: result {i} of {mode}: want an error of at most {limit:.3g}, got {error:.3g}"
    return wrong


FunctionAndInputs = tuple[Callable[..., Tensor], Sequence[Tensor]]


@torch.no_grad()
def _same_slopes(oracle: FunctionAndInputs, calls: Sequence[FunctionAndInputs]) -> Tensor:
    """bool [shape of y]: False where the oracle's y is close to 0 and one of the calls gives it the other sign."""
    reference, exact = oracle
    y = reference(*exact)
    same = torch.ones_like(y, dtype=torch.bool)
    near = 1e-5 * y.square().mean().sqrt()
    for f, inputs in calls:
        with contextlib.suppress(Exception):  # `wrong_results` reports the error
            result = f(*inputs)
            same &= ((result > 0) == (y > 0)) | (result.abs() > near) | (y.abs() > near)
    return same


def _moved(t: Tensor) -> Tensor:
    """Each number of t, moved by up to half an ulp of float32, the same numbers in each call."""
    drawn = torch.rand(t.shape, dtype=t.dtype, generator=torch.Generator().manual_seed(0)) - 0.5
    return t.detach() * (1 + torch.finfo(torch.float32).eps * drawn.to(t.device))


def _largest(t: Tensor | None) -> float:
    return 0.0 if t is None or t.numel() == 0 else t.abs().max().item()


def _error(got: Tensor | None, want: Tensor | None, ulp: float = 0.0) -> float:
    """max(|got - want| - ulp |want|), at least 0."""
    if got is None and want is None:
        return 0.0
    got = torch.zeros_like(want) if got is None else got.double()
    want = torch.zeros_like(got) if want is None else want
    if got.shape != want.shape:
        return float("inf")
    return (got - want).abs_().sub_(want.abs(), alpha=ulp).clamp_min_(0).max().item()
