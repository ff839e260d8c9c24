"""Rules for functions that select the largest numbers: max-pooling, maxima, sorting.

Which number is selected is read from the pass that is recorded. Selecting is then linear. At ties it is autograd's
choice: an index where PyTorch returns one, and equal shares where it divides.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.level2.linear import linear, record_linear
from gan_engine.losses.level2.products import refuse_more_dimensions
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import rule
from gan_engine.losses.level2.shapes import refuse_batch
from gan_engine.losses.level2.traced_tensor import TracedTensor

_POOLINGS = {
    f"{kind}max_pool{n}d": getattr(F, f"{kind}max_pool{n}d_with_indices")
    for kind in ("", "adaptive_")
    for n in (1, 2, 3)
}


@rule(*_POOLINGS, *(f"{name}_with_indices" for name in _POOLINGS))
def max_pool(function: Callable, input: Any, *args: Any, **kwargs: Any) -> Any:
    name = function.__name__.lstrip("_")
    pool = _POOLINGS[name.removesuffix("_with_indices")]
    places = int(name.removesuffix("_with_indices")[-2])  # dimensions of the image
    if input.ndim != places + 2:
        raise NotPiecewiseLinear(f"{name} of a tensor {list(input.shape)} without a batch dimension")
    both = kwargs.pop("return_indices", False) or name.endswith("_with_indices")
    _, index = pool(input.value, *args, **kwargs)
    y = linear(_gathered, input, index)
    return (y, index) if both else y


def _gathered(x: Tensor, index: Tensor) -> Tensor:
    return x.flatten(2).gather(2, index.flatten(2)).reshape(index.shape)


@rule("max", "min")
def extremum(function: Callable, input: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    other = kwargs.pop("other", dim)
    if isinstance(other, Tensor):
        return larger(torch.maximum if function.__name__ == "max" else torch.minimum, input, other)
    if dim is None:
        raise NotPiecewiseLinear(f"{function.__name__} over dimension 0 ties samples together")
    return _selected(function, input, dim, keepdim)


@rule("sort", "topk")
def sorted_along(function: Callable, input: Any, *args: Any, **kwargs: Any) -> Any:
    at = 1 if function.__name__ == "topk" else 0
    dim = kwargs.get("dim", args[at] if len(args) > at and not isinstance(args[at], bool) else -1)
    refuse_batch(function, input, dim)
    pair = function(input.value, *args, **kwargs)
    return type(pair)((linear(_taken, input, pair.indices, dim), pair.indices))


def _selected(function: Callable, input: TracedTensor, dim: int, keepdim: bool) -> Any:
    refuse_batch(function, input, dim)
    pair = function(input.value, dim, True)
    y = linear(_taken, input, pair.indices, dim)
    index = pair.indices
    return type(pair)((y, index) if keepdim else (y.squeeze(dim), index.squeeze(dim)))


def _taken(x: Tensor, index: Tensor, dim: int) -> Tensor:
    return x.gather(dim, index)


@rule("amax", "amin")
def largest(function: Callable, input: Any, dim: Any = (), keepdim: bool = False) -> TracedTensor:
    dims = [dim] if isinstance(dim, int) else list(dim) or list(range(input.ndim))
    for d in dims:
        refuse_batch(function, input, d)
    found = (input.value == function(input.value, dims, True)).to(input.value.dtype)
    share = found / found.sum(dims, keepdim=True)
    return linear(lambda v, share: (v * share).sum(dims, keepdim), input, share)


@rule("maximum", "minimum")
def larger(function: Callable, input: Any, other: Any) -> TracedTensor:
    x, y = (t.value if isinstance(t, TracedTensor) else t for t in (input, other))
    first = x > y if function.__name__ == "maximum" else x < y
    share = first.to(torch.promote_types(x.dtype, y.dtype)).masked_fill_(x == y, 0.5)
    if isinstance(input, TracedTensor) and isinstance(other, TracedTensor):
        if input.ndim != other.ndim:
            raise NotPiecewiseLinear(
                f"{function.__name__} of {list(x.shape)} and {list(y.shape)} ties samples together"
            )
        return record_linear(_mixed, (input, other, share), {}, jointly=True)
    traced, constant, share = (input, y, share) if isinstance(input, TracedTensor) else (other, x, 1 - share)
    refuse_more_dimensions(traced, constant)
    return traced * share + constant * (1 - share)


def _mixed(x: Tensor, y: Tensor, share: Tensor) -> Tensor:
    return x * share + y * (1 - share)
