"""Is a candidate the original? Outputs and gradients of both are compared on random numbers."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gan_engine.patch.gain import tensors
from gan_engine.patch.rule import Layer

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4}  # of the largest number of each output or gradient


class _Unannounced:
    """In front of a class, it keeps `__init_subclass__` of that class from running, such as a registry's."""

    def __init_subclass__(cls, **_: Any) -> None:
        """No call of the next class"""


def subclass(original: type[nn.Module], methods: dict[str, Any]) -> type[nn.Module]:
    """A class of the same name with other methods."""
    names = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(original)(original.__name__, (_Unannounced, original), names | methods)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Inside, tensors are made on the CPU and have gradients, whatever the program has set around it."""
    # torch.set_default_device and other modes of torch functions would also keep convolutions from our kernels.
    with torch._C.DisableTorchFunction(), torch.inference_mode(False):
        yield


@contextlib.contextmanager
def own_random_numbers(seed: int) -> Iterator[None]:
    """Inside, PyTorch draws on the CPU from `seed`. The generators of the program stay as they are.

    torch.manual_seed would also seed the GPUs, whose generators nothing here draws from.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def difference(layer: nn.Module, candidate: Layer) -> str | None:
    """None if the candidate is the original, else a sentence about what differs

    A copy of the layer, with random parameters, computes in float64. An original that cannot do that is compared in
    float32. The layer itself and PyTorch's random numbers stay as they are.
    """
    why = None
    for dtype in TOLERANCES:
        try:
            trial = copy.deepcopy(layer, _computed(layer)).to(device="cpu", dtype=dtype)
            inputs = candidate.inputs()
            candidate.prepare(trial)
        except Exception as error:
            return f"a copy of it for the comparison raised {type(error).__name__}"
        with own_random_numbers(0):
            _randomise(trial)
            for training, (args, kwargs), gradients in _trials(inputs):
                trial.train(training)
                try:
                    want = _results(trial, args, kwargs, dtype, gradients)
                except Exception as error:
                    why = f"its forward pass raised {type(error).__name__} on random numbers"
                    break
                if not all(bool(t.isfinite().all()) for t in want[0]):
                    why = "its numbers are not finite with random parameters"
                    break
                why = _compared(trial, candidate, args, kwargs, want, dtype, gradients)
                if why is not None:
                    return why
            else:
                return None
    return why


def _computed(layer: nn.Module) -> dict[int, Any]:
    """Copies of tensors that the last call has left in the layer: PyTorch's deepcopy refuses those with a graph."""
    left = [t for m in layer.modules() for t in vars(m).values() if isinstance(t, Tensor) and t.grad_fn is not None]
    return {id(t): t.detach().clone() for t in left}


def _trials(inputs: list) -> Iterator[tuple[bool, Any, bool]]:
    """(whether the layer trains, its inputs, whether gradients are compared): values first, which take less time"""
    yield from ((True, each, False) for each in inputs)
    if inputs:
        yield False, inputs[0], False
        yield True, inputs[0], True


def _compared(
    trial: nn.Module,
    candidate: Layer,
    args: tuple,
    kwargs: dict[str, Any],
    want: tuple[list[Tensor], Any],
    dtype: torch.dtype,
    gradients: bool,
) -> str | None:
    original = type(trial)
    trial.__class__ = subclass(original, candidate.methods)
    try:
        got = _results(trial, args, kwargs, dtype, gradients)
    except Exception as error:
        return f"what should replace it raised {type(error).__name__}: {error}".splitlines()[0]
    finally:
        trial.__class__ = original
    if got[1] != want[1]:
        return "it returns its results in another form"
    for a, b in zip(got[0], want[0]):
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"it gives {list(b.shape)} in {b.dtype} where {list(a.shape)} in {a.dtype} was expected"
        scale = float(b.abs().max()) if b.numel() else 0.0
        error = float((a - b).abs().max()) if b.numel() else 0.0
        if not error <= TOLERANCES[dtype] * max(scale, 1e-30):  # or error is NaN
            return f"its numbers differ by {error / max(scale, 1e-30):.1e} of the largest"
    return None


def _results(
    trial: nn.Module, args: tuple, kwargs: dict[str, Any], dtype: torch.dtype, gradients: bool
) -> tuple[list[Tensor], Any]:
    """The outputs, or the gradients of a weighted sum of them by inputs and parameters, and the form of the outputs

    A gradient that is None counts as zeros.
    """
    given = [_leaf(a, dtype) for a in args]
    named = {name: _leaf(value, dtype) for name, value in kwargs.items()}
    state = {name: b.clone() for name, b in trial.named_buffers()}
    torch.default_generator.manual_seed(1)  # both draw the same noise
    with torch.set_grad_enabled(gradients), torch.autocast("cpu", enabled=False):
        returned = trial(*given, **named)
    results, form = list(tensors(returned)), _form(returned)
    if gradients:
        total = sum((y * torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)).sum() for y in results)
        leaves = [t for t in (*given, *named.values(), *trial.parameters()) if isinstance(t, Tensor)]
        grads = torch.autograd.grad(total, leaves, allow_unused=True)  # type: ignore[arg-type]
        results = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, leaves)]
    with torch.no_grad():
        for name, b in trial.named_buffers():
            b.copy_(state[name])
    return results, form


def _form(value: Any) -> Any:
    """The types of the containers in what a layer returned, and of what they hold"""
    if isinstance(value, dict):
        return type(value), [(key, _form(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return type(value), [_form(each) for each in value]
    return Tensor if isinstance(value, Tensor) else type(value)


def _leaf(value: Any, dtype: torch.dtype) -> Any:
    return value.detach().to(dtype).requires_grad_() if isinstance(value, Tensor) else value


@torch.no_grad()
def _randomise(trial: nn.Module) -> None:
    """Parameters such as a strength of noise begin as zeros, which would hide what they do."""
    for p in trial.parameters():
        p.requires_grad_(True)
        p.normal_()
