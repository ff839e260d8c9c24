"""Rules for functions that sum, select, move or repeat numbers. The batch must stay in dimension 0, and whole."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_engine.losses.level2.linear import linear
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import described, rule
from gan_engine.losses.level2.traced_tensor import TracedTensor


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
    basic = all(isinstance(i, int | slice) or i is None or i is Ellipsis for i in index)
    if not basic or not (first is Ellipsis or first == slice(None)) or (first is Ellipsis and len(index) > input.ndim):
        raise NotPiecewiseLinear("indexing must leave dimension 0, the batch, as it is")
    return linear(function, input, index)


@rule("pad")
def pad(function: Callable, input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> TracedTensor:
    if mode == "constant" and value:
        raise NotPiecewiseLinear(f"pad with {value} is not linear; 0 is")
    if len(pad) // 2 >= input.ndim:
        raise NotPiecewiseLinear("pad lengthens the batch")
    return linear(function, input, pad, mode, value)


@rule("view")
def view(function: Callable, input: Any, *shape: Any) -> TracedTensor:
    if any(isinstance(n, torch.dtype) for n in shape):
        raise NotPiecewiseLinear("a view in another dtype is not linear")
    return linear(function, input, *shape)


@rule("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
def constant_of_shape(function: Callable, input: Any, *args: Any, **kwargs: Any) -> Tensor:
    return function(input.value.detach(), *args, **kwargs)
