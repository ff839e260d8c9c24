"""Rules for functions that sum, select, move or repeat numbers. The batch must stay in dimension 0, and whole."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_engine.losses.level2.linear import linear
from gan_engine.losses.level2.plain_steps import record_shape
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import described, rule
from gan_engine.losses.level2.traced_tensor import TracedTensor


def refuse_batch(function: Callable, input: TracedTensor, *dims: Any) -> None:
    """Refuse a function along `dims` if one of them is dimension 0, the batch, or is no number."""
    if any(not isinstance(d, int) or d % input.ndim == 0 for d in dims):
        raise NotPiecewiseLinear(f"{described(function).name} along dimension 0 ties samples together")


@rule("sum", "mean", "unbind")
def over_dimensions(function: Callable, input: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    if not dims or any(d % input.ndim == 0 for d in dims):
        raise NotPiecewiseLinear(f"{described(function).name} over dimension 0 ties samples together")
    return linear(function, input, dim, *args, **kwargs)


@rule("chunk", "split")
def split(function: Callable, input: Any, size: Any, dim: int = 0) -> Any:
    if dim % input.ndim == 0:
        raise NotPiecewiseLinear(f"{described(function).name} along dimension 0 divides the batch")
    return linear(function, input, size, dim)


@rule("permute")
def permute(function: Callable, input: Any, *dims: Any, **kwargs: Any) -> TracedTensor:
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    order = kwargs.get("dims", order)
    if not order or order[0] != 0:
        raise NotPiecewiseLinear(f"permute to {tuple(order)} moves the batch from dimension 0")
    return linear(function, input, *dims, **kwargs)


@rule("transpose", "swapaxes", "swapdims")
def transpose(function: Callable, input: Any, dim0: int, dim1: int) -> TracedTensor:
    if dim0 % input.ndim == 0 or dim1 % input.ndim == 0:
        raise NotPiecewiseLinear(f"{function.__name__} moves the batch from dimension 0")
    return linear(function, input, dim0, dim1)


@rule("expand")
def expand(function: Callable, input: Any, *sizes: Any) -> TracedTensor:
    new = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if len(new) != input.ndim:
        raise NotPiecewiseLinear("expand moves the batch from dimension 0")
    return linear(function, input, *sizes)


@rule("__getitem__")
def index(function: Callable, input: Any, index: Any) -> TracedTensor:
    index = index if isinstance(index, tuple) else (index,)
    first = index[0] if index else slice(None)
    whole = first is Ellipsis or (isinstance(first, slice) and first == slice(None))
    lists = [at for at, i in enumerate(index) if not isinstance(i, slice) and i is not None and i is not Ellipsis]
    if any(not isinstance(index[at], int) for at in lists):
        # PyTorch puts what several lists select into dimension 0, unless the lists stand side by side.
        whole = whole and lists[-1] - lists[0] == len(lists) - 1 and not any(_is_traced(index[at]) for at in lists)
    length = sum(i.ndim if isinstance(i, Tensor) and i.dtype == torch.bool else 1 for i in index)
    if not whole or (first is Ellipsis and length > input.ndim):
        raise NotPiecewiseLinear("indexing must leave dimension 0, the batch, as it is")
    return linear(function, input, index)


def _is_traced(index: Any) -> bool:
    return isinstance(index, TracedTensor)


@rule("pad")
def pad(function: Callable, input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> TracedTensor:
    if len(pad) // 2 >= input.ndim:
        raise NotPiecewiseLinear("pad lengthens the batch")
    if mode == "constant" and value:
        frame = F.pad(torch.zeros_like(input.value), pad, mode, value)
        return linear(function, input, pad, mode) + frame
    return linear(function, input, pad, mode, value)


@rule("reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
def reshape(function: Callable, input: Any, *args: Any, **kwargs: Any) -> TracedTensor:
    return record_shape(function, input, *args, **kwargs)


@rule("view")
def view(function: Callable, input: Any, *shape: Any) -> TracedTensor:
    if any(isinstance(n, torch.dtype) for n in shape):
        raise NotPiecewiseLinear("a view in another dtype is not linear")
    return record_shape(function, input, *shape)


@rule("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "new_tensor")
@rule("new_zeros", "new_ones", "new_full", "new_empty")
def constant_of_shape(function: Callable, input: Any, *args: Any, **kwargs: Any) -> Tensor:
    return function(input.value.detach(), *args, **kwargs)


@rule("to", "type_as", "view_as", "reshape_as", "expand_as", in_place=False)
def like_another(function: Callable, input: Any, *args: Any, **kwargs: Any) -> Any:
    """A conversion, or a shape. A constant that is made like an activation stays a constant."""
    args = tuple(x.value if isinstance(x, TracedTensor) else x for x in args)
    kwargs = {name: x.value if isinstance(x, TracedTensor) else x for name, x in kwargs.items()}
    if not isinstance(input, TracedTensor):
        return function(input, *args, **kwargs)
    if described(function).name == "to":
        args = tuple(x if not isinstance(x, Tensor) else x.dtype for x in args)
        return linear(function, input, *args, **kwargs)
    (other,) = *args, *kwargs.values()
    if described(function).name == "type_as":
        return input.to(other.dtype)
    if described(function).name == "expand_as":
        return input.expand(other.shape)
    return linear(function, input, other.detach())


@rule("type")
def type_of(function: Callable, input: Any, *args: Any, **kwargs: Any) -> Any:
    return linear(function, input, *args, **kwargs) if args or kwargs else input.value.type()


@rule("flip", "roll")
def flip(function: Callable, input: Any, *args: Any, **kwargs: Any) -> TracedTensor:
    dims = kwargs.get("dims", args[1:] if function.__name__ == "roll" else args)
    dims = dims[0] if len(_listed(dims)) == 1 and not isinstance(_listed(dims)[0], int) else dims
    if not _listed(dims):
        raise NotPiecewiseLinear(f"{function.__name__} without dimensions moves samples")
    refuse_batch(function, input, *_listed(dims))
    return linear(function, input, *args, **kwargs)


def _listed(dims: Any) -> list:
    return [dims] if isinstance(dims, int) else list(dims)


@rule("fliplr")
def fliplr(function: Callable, input: Any) -> TracedTensor:
    return linear(function, input)


@rule("repeat", "tile")
def repeat(function: Callable, input: Any, *sizes: Any, **kwargs: Any) -> TracedTensor:
    given = (*sizes, *kwargs.values())
    times = list(given if isinstance(given[0], int) else given[0])
    if len(times) > input.ndim or (len(times) == input.ndim and times[0] != 1):
        raise NotPiecewiseLinear(f"{function.__name__} repeats the batch")
    return linear(function, input, *sizes, **kwargs)


@rule("narrow", "select", "index_select", "cumsum", "unfold", "gather", "take_along_dim")
def along_a_dimension(function: Callable, input: Any, *args: Any, **kwargs: Any) -> TracedTensor:
    if function is F.unfold:
        return linear(function, input, *args, **kwargs)
    at = 1 if function.__name__ == "take_along_dim" else 0
    dim = kwargs.get("dim", args[at] if len(args) > at else None)
    refuse_batch(function, input, dim)
    return linear(function, input, *args, **kwargs)


@rule("diff")
def diff(
    function: Callable, input: Any, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None
) -> TracedTensor:
    refuse_batch(function, input, dim)
    parts = [x for x in (prepend, input, append) if x is not None]
    return linear(function, torch.cat(parts, dim) if len(parts) > 1 else input, n, dim)


@rule("repeat_interleave")
def repeat_interleave(function: Callable, input: Any, repeats: Any, dim: Any = None, **kwargs: Any) -> TracedTensor:
    refuse_batch(function, input, dim)
    return linear(function, input, repeats, dim, **kwargs)


@rule("movedim", "moveaxis")
def movedim(function: Callable, input: Any, source: Any, destination: Any) -> TracedTensor:
    if any(d % input.ndim == 0 for d in (*_listed(source), *_listed(destination))):
        raise NotPiecewiseLinear(f"{function.__name__} moves the batch from dimension 0")
    return linear(function, input, source, destination)


@rule("rot90")
def rot90(function: Callable, input: Any, k: int = 1, dims: Any = (0, 1)) -> TracedTensor:
    refuse_batch(function, input, *dims)
    return linear(function, input, k, dims)


@rule("diagonal")
def diagonal(function: Callable, input: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> TracedTensor:
    refuse_batch(function, input, dim1, dim2)
    return linear(function, input, offset, dim1, dim2)


@rule("mT", "tril", "triu")
def of_matrices(function: Callable, input: Any, *args: Any, **kwargs: Any) -> TracedTensor:
    if input.ndim < 3:
        raise NotPiecewiseLinear(f"{described(function).name} of a matrix ties samples together")
    return linear(function, input, *args, **kwargs)
