"""The tensor that D runs on while its pass is recorded, and what may be done with it: a rule for each function.

A rule either records a step of the tape or refuses: what it does not know to be linear, or piecewise linear, in each
sample by itself. Functions are told apart by name, so that all spellings of one meet one rule (torch.add, Tensor.add,
x + y). What a model computes without the image never meets a rule: it stays with autograd.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from gan_engine.losses.level2.convolution import Convolution
from gan_engine.losses.level2.tape import Constant, Entered, Linear, Mask, NotPiecewiseLinear, Slopes, Step, Sum, Tape
from gan_engine.ops.bias_act import bias_act
from gan_engine.ops.convolution.passes import Call
from gan_engine.ops.upfirdn2d import linear_upfirdn2d


class Value(Tensor):
    """`value` in a pass of D.

    To C++ it is a sparse tensor without elements: code that goes around the rules has no memory to read, and whatever
    asks for a pointer to it gets an error. (A strided tensor without memory would hand out a null pointer.)
    """

    @staticmethod
    def __new__(cls, value: Tensor, tape: Tape, slot: int = 0) -> "Value":
        empty = torch.empty(value.shape, dtype=value.dtype, device=value.device, layout=torch.sparse_coo)
        return Tensor._make_subclass(cls, empty, True)

    def __init__(self, value: Tensor, tape: Tape, slot: int = 0) -> None:
        self.value, self.tape, self._slot = value, tape, slot
        self.shared = False  # another tensor shows the same memory
        tape.values.append(weakref.ref(self))

    @property
    def slot(self) -> int:
        with torch._C.DisableTorchFunctionSubclass():
            node = self.grad_fn
        if node is not None:  # no rule makes one
            raise NotPiecewiseLinear(f"{node.name()} has a gradient of its own")
        return self._slot

    @classmethod
    def __torch_function__(cls, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        name, in_place = _name_of(func)
        in_place = kwargs.pop("inplace", False) or in_place
        if name == "requires_grad":
            return _requires_grad(*args, **kwargs) if in_place else True
        if name in _FACTS:
            return func(*(x.value if isinstance(x, Value) else x for x in args), **kwargs)
        rule = _RULES.get(name)
        if rule is None:
            raise NotPiecewiseLinear(f"{name} {_REASONS.get(name, 'is not known to be piecewise linear')}")
        if not torch.is_grad_enabled():
            raise NotPiecewiseLinear("it computes without gradients (no_grad, or a reentrant checkpoint)")
        target = args[0] if in_place else None
        if in_place and (name not in _IN_PLACE or not isinstance(target, Value) or target.shared):
            raise NotPiecewiseLinear(f"{name} writes into memory that another tensor shows")
        try:
            result = rule(func, *args, **kwargs)
        except TypeError as error:  # arguments that the rule does not know
            raise NotPiecewiseLinear(f"{name}: {error}") from None
        if not in_place:
            return result
        target.value, target._slot = result.value, result.slot
        return target

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        raise NotPiecewiseLinear(f"{func} is not known to be piecewise linear")


@functools.lru_cache(maxsize=256)
def _name_of(func: Callable) -> tuple[str, bool]:
    """The name of a torch function, and whether it works in place."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        return func.__self__.__name__, False
    if name.endswith("__"):
        return name, False
    return name.rstrip("_"), name.endswith("_")


def _record(tape: Tape, step: Step, *values: Tensor) -> tuple[Value, ...]:
    tape.record(step, values)
    return tuple(Value(value, tape, slot) for value, slot in zip(values, step.results, strict=True))


def _linear(
    func: Callable,
    *args: Any,
    joint: bool = False,
    offset: Tensor | None = None,
    fused: Callable | None = None,
    in_place: bool = False,
    **kwargs: Any,
) -> Any:
    """Record func(*args, **kwargs) + offset, where func is linear in the one activation among its arguments.

    `joint`: there may be several activations, in which it is linear together. `fused` is func and the offset in one;
    `in_place`: the result of func may be written to.
    """
    leaves, spec = tree_flatten((args, kwargs))
    at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Value)]
    if len(at) > 1 and not joint:
        raise NotPiecewiseLinear(f"{_name_of(func)[0]} of several activations")
    values = [leaves[i] for i in at]
    weights_at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and i not in at]
    weights = [leaves[i] for i in weights_at]
    for i in at:
        leaves[i] = None

    def run(values: list[Tensor], weights: list[Tensor], function: Callable = func) -> Any:
        filled = list(leaves)
        for i, value in zip((*at, *weights_at), (*values, *weights), strict=True):
            filled[i] = value
        args, kwargs = tree_unflatten(filled, spec)
        return function(*args, **kwargs)

    inputs = [Entered.of(value.value) for value in values]
    memory = {x.untyped_storage().data_ptr() for x in inputs}
    with _saving_no(memory, all=not weights):
        out = run(inputs, [w.detach() for w in weights], fused or func)
    many = isinstance(out, tuple | list)
    for x, value in zip(inputs, values, strict=True):
        if out is x:
            return value
    outs = out if many else (out,)
    step = Linear([value.slot for value in values], run, weights, offset, in_place)
    results = _record(values[0].tape, step, *(x.detach() for x in outs))
    step.follow(inputs, outs)
    if any(x.untyped_storage().data_ptr() in memory for x in outs):
        for value in (*values, *results):
            value.shared = True
    return type(out)(results) if many else results[0]


def _saving_no(memory: set[int], *, all: bool) -> contextlib.AbstractContextManager:
    """Where autograd saves an activation, which is in `memory` (or `all` it saves), it saves a shape instead.

    The gradient of a linear map reads no more than that of its input.
    """

    def pack(x: Tensor) -> Any:
        if x.is_floating_point() and (all or x.untyped_storage().data_ptr() in memory):
            return x.shape, x.stride(), x.dtype, x.device
        return x

    def unpack(saved: Any) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        shape, stride, dtype, device = saved
        return torch.empty_strided(shape, stride, dtype=dtype, device=device)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


def _affine(func: Callable, input: Any, weight: Any, bias: Any = None, *args: Any, dim: int, **kwargs: Any) -> "Value":
    """A convolution or a matrix product, with a bias along `dim`."""
    _plain("weight", weight)
    _plain("bias", bias)
    if input.ndim < 2:
        raise NotPiecewiseLinear(f"{func.__name__} of a tensor {list(input.shape)} sums over the batch")
    input, weight, bias = _autocast(input, weight, bias)

    def without(x: Tensor, w: Tensor) -> Tensor:
        return func(x, w, None, *args, **kwargs)

    if bias is None:
        return _linear(without, input, weight)
    offset = bias.reshape([-1] + [1] * (input.ndim - 1 - dim)) if dim > 0 else bias
    detached = bias.detach()

    def fused(x: Tensor, w: Tensor) -> Tensor:
        return func(x, w, detached, *args, **kwargs)

    return _linear(without, input, weight, offset=offset, fused=fused, in_place=True)


def _conv(func: Callable, input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> "Value":
    _plain("weight", weight)
    _plain("bias", bias)
    x = input.value
    if x.ndim != weight.ndim:
        raise NotPiecewiseLinear(f"{func.__name__} of a tensor {list(x.shape)} without a batch dimension")
    if "same" in (*args, *kwargs.values()) or "valid" in (*args, *kwargs.values()):
        return _affine(func, input, weight, bias, *args, dim=1, **kwargs)
    input, weight, bias = _autocast(input, weight, bias)
    call = (Call.of_transposed if "transpose" in func.__name__ else Call.direct)(x.ndim - 2, *args, **kwargs)
    step = Convolution([input.slot], weight, bias, call)
    return _record(input.tape, step, step.forward(input.value))[0]


def _autocast(input: "Value", weight: Tensor, bias: Tensor | None) -> tuple["Value", Tensor, Tensor | None]:
    device = input.value.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        input, weight = input.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return input, weight, bias


def _linear_layer(func: Callable, input: Any, weight: Any, bias: Any = None) -> "Value":
    return _affine(func, input, weight, bias, dim=-1)


def _matmul(func: Callable, input: Any, other: Any) -> "Value":
    if not isinstance(input, Value) or isinstance(other, Value) or other.ndim > 2 or input.ndim < 2:
        raise NotPiecewiseLinear("matmul: want an activation times a matrix")
    return _linear_layer(F.linear, input, other.t()) if other.ndim == 2 else _linear(func, input, other)


def _plain(name: str, value: Any) -> None:
    if isinstance(value, Value):
        raise NotPiecewiseLinear(f"its {name} depends on the image")


def _requires_grad(input: "Value", requires_grad: bool = True) -> "Value":
    if not requires_grad:
        raise NotPiecewiseLinear("requires_grad_(False) cuts a gradient")
    return input


def _relu(func: Callable, input: Any) -> "Value":
    return _bias_act(bias_act, input, act="relu", gain=1)


def _leaky_relu(func: Callable, input: Any, negative_slope: float = 0.01) -> "Value":
    return _bias_act(bias_act, input, act="lrelu", alpha=negative_slope, gain=1)


def _clamp(func: Callable, input: Any, min: Any = None, max: Any = None) -> "Value":
    if not (isinstance(max, int | float) and max > 0 and min == -max):
        raise NotPiecewiseLinear(f"clamp: want limits -c and c with a number c > 0, got {min} and {max}")
    return _bias_act(bias_act, input, clamp=float(max))


def _bias_act(
    func: Callable,
    x: Any,
    b: Any = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> "Value":
    _plain("bias", b)
    if act not in ("linear", "relu", "lrelu"):
        raise NotPiecewiseLinear(f"bias_act with act={act!r} {_REASONS['tanh']}")
    if b is not None and dim % x.ndim == 0:
        raise NotPiecewiseLinear("bias_act with dim=0 has a bias of its own for each sample")
    slopes = Slopes(dim, act, alpha, gain, clamp, backend)
    bias = None if b is None else b.reshape([-1] + [1] * (x.ndim - 1 - dim % x.ndim))
    y = slopes.forward(x.value, None if b is None else b.detach())
    return _record(x.tape, Mask([x.slot], slopes, bias), y)[0]


def _add(func: Callable, input: Any, other: Any, *, alpha: float = 1) -> "Value":
    return _sum(input, other, alpha)


def _sub(func: Callable, input: Any, other: Any, *, alpha: float = 1) -> "Value":
    return _sum(input, other, -alpha)


def _rsub(func: Callable, input: Any, other: Any) -> "Value":
    return _sum(other, input, -1)


def _sum(x: Any, y: Any, alpha: float) -> "Value":
    """x + alpha y"""
    if isinstance(x, Value) and isinstance(y, Value):
        if x.value.ndim != y.value.ndim:
            raise NotPiecewiseLinear(f"the sum of {list(x.shape)} and {list(y.shape)} ties samples together")
        if x.value.shape == y.value.shape and x.value.dtype == y.value.dtype:
            out = torch.add(x.value, y.value, alpha=alpha)
            return _record(x.tape, Sum([x.slot, y.slot], alpha), out)[0]
        return _linear(torch.add, x, y, alpha=alpha, joint=True)
    if not isinstance(x, Value):
        x, y, alpha = (y if alpha == 1 else _linear(torch.mul, y, alpha)), x, 1
    y = torch.as_tensor(y, dtype=None if isinstance(y, Tensor) else x.dtype, device=x.device)
    _aligned(x, y)
    y = _kept(y if alpha == 1 else y * alpha)
    detached = y.detach()
    return _linear(lambda v: v, x, offset=y, fused=lambda v: v + detached)


def _kept(offset: Tensor) -> Tensor:
    """What the tangents add: a copy of a buffer, which a later pass of D may fill anew, as autograd does not read it"""
    return offset if offset.requires_grad else offset.clone()


def _mul(func: Callable, input: Any, other: Any) -> "Value":
    if isinstance(input, Value) and isinstance(other, Value):
        raise NotPiecewiseLinear("the product of two activations is not linear")
    x, factor = (input, other) if isinstance(input, Value) else (other, input)
    if isinstance(factor, Tensor):
        _aligned(x, factor)
    return _linear(torch.mul, x, factor)


def _neg(func: Callable, input: Any) -> "Value":
    return _linear(torch.neg, input)


def _div(func: Callable, input: Any, other: Any) -> "Value":
    if isinstance(other, Value):
        raise NotPiecewiseLinear("a division by an activation is not linear")
    if isinstance(other, Tensor):
        _aligned(input, other)
    return _linear(torch.div, input, other)


def _aligned(x: "Value", y: Tensor) -> None:
    if y.ndim > x.ndim:
        raise NotPiecewiseLinear(f"{list(x.shape)} with {list(y.shape)} moves the batch from dimension 0")


def _inner_dims(func: Callable, input: Any, dim: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A function that sums over `dim` or splits along it."""
    dims = [dim] if isinstance(dim, int) else list(dim or ())
    if not dims or any(d % input.ndim == 0 for d in dims):
        raise NotPiecewiseLinear(f"{_name_of(func)[0]} over dimension 0 ties samples together")
    return _linear(func, input, dim, *args, **kwargs)


def _split(func: Callable, input: Any, size: Any, dim: int = 0) -> Any:
    if dim % input.ndim == 0:
        raise NotPiecewiseLinear(f"{_name_of(func)[0]} along dimension 0 divides the batch")
    return _linear(func, input, size, dim)


def _permute(func: Callable, input: Any, *dims: Any, **kwargs: Any) -> "Value":
    order = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    order = kwargs.get("dims", order)
    if not order or order[0] != 0:
        raise NotPiecewiseLinear(f"permute to {tuple(order)} moves the batch from dimension 0")
    return _linear(func, input, *dims, **kwargs)


def _transpose(func: Callable, input: Any, dim0: int, dim1: int) -> "Value":
    if dim0 % input.ndim == 0 or dim1 % input.ndim == 0:
        raise NotPiecewiseLinear(f"{func.__name__} moves the batch from dimension 0")
    return _linear(func, input, dim0, dim1)


def _expand(func: Callable, input: Any, *sizes: Any) -> "Value":
    new = sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes
    if len(new) != input.ndim:
        raise NotPiecewiseLinear("expand moves the batch from dimension 0")
    return _linear(func, input, *sizes)


def _cat(func: Callable, tensors: Any, dim: int = 0) -> "Value":
    tape = next(x.tape for x in tensors if isinstance(x, Value))
    first = next(x for x in tensors if isinstance(x, Value))
    if dim % (first.ndim + (func.__name__ == "stack")) == 0:
        raise NotPiecewiseLinear(f"{func.__name__} along dimension 0 joins batches")
    return _linear(func, [x if isinstance(x, Value) else _constant(tape, x) for x in tensors], dim, joint=True)


def _constant(tape: Tape, x: Tensor) -> "Value":
    x = _kept(x)
    value = x.detach()
    return _record(tape, Constant([], x, value), value)[0]


def _getitem(func: Callable, input: Any, index: Any) -> "Value":
    index = index if isinstance(index, tuple) else (index,)
    first = index[0] if index else slice(None)
    plain = all(isinstance(i, int | slice) or i is None or i is Ellipsis for i in index)
    if not plain or not (first is Ellipsis or first == slice(None)) or (first is Ellipsis and len(index) > input.ndim):
        raise NotPiecewiseLinear("indexing must leave dimension 0, the batch, as it is")
    return _linear(func, input, index)


def _pad(func: Callable, input: Any, pad: Any, mode: str = "constant", value: float | None = None) -> "Value":
    if mode == "constant" and value:
        raise NotPiecewiseLinear(f"pad with {value} is not linear; 0 is")
    if len(pad) // 2 >= input.ndim:
        raise NotPiecewiseLinear("pad lengthens the batch")
    return _linear(func, input, pad, mode, value)


def _dropout(func: Callable, input: Any, p: float = 0.5, training: bool = True) -> "Value":
    if training and p > 0:
        raise NotPiecewiseLinear(f"{func.__name__} {_REASONS['dropout']}")
    return input


def _view(func: Callable, input: Any, *shape: Any) -> "Value":
    if any(isinstance(n, torch.dtype) for n in shape):
        raise NotPiecewiseLinear("a view in another dtype is not linear")
    return _linear(func, input, *shape)


def _shape_alone(func: Callable, input: Any, *args: Any, **kwargs: Any) -> Tensor:
    return func(input.value.detach(), *args, **kwargs)


# By the name of the function. Those that _linear serves leave the batch in dimension 0, or make a tensor whose first
# dimension is not that of the batch.
_RULES: dict[str, Callable] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "linear": _linear_layer,
    "matmul": _matmul,
    "bias_act": _bias_act,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    **dict.fromkeys(("clamp", "clip"), _clamp),
    "add": _add,
    "sub": _sub,
    "subtract": _sub,
    **dict.fromkeys(("rsub", "__rsub__"), _rsub),
    "mul": _mul,
    "multiply": _mul,
    "div": _div,
    "true_divide": _div,
    "neg": _neg,
    **dict.fromkeys(("sum", "mean", "unbind"), _inner_dims),
    **dict.fromkeys(("chunk", "split"), _split),
    **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _cat),
    "permute": _permute,
    **dict.fromkeys(("transpose", "swapaxes", "swapdims"), _transpose),
    "expand": _expand,
    "__getitem__": _getitem,
    "pad": _pad,
    "view": _view,
    **dict.fromkeys(("reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "contiguous", "clone"), _linear),
    **dict.fromkeys(("to", "float", "double", "half", "bfloat16"), _linear),
    linear_upfirdn2d.__name__: _linear,
    **dict.fromkeys(("avg_pool1d", "avg_pool2d", "avg_pool3d", "interpolate"), _linear),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _linear),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _linear),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), _dropout),
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"), _shape_alone),
}

_IN_PLACE = {"relu", "leaky_relu", "clamp", "clip", "add", "sub", "mul", "div"}

# What may be asked of a tensor without reading its numbers.
_FACTS = {
    *("shape", "size", "ndim", "dim", "ndimension", "numel", "nelement", "__len__", "stride", "is_contiguous"),
    *("dtype", "is_floating_point", "is_complex", "element_size", "device", "get_device", "layout"),
    *("is_cuda", "is_cpu", "is_mps", "is_sparse", "is_quantized", "is_mkldnn", "is_nested", "is_leaf"),
}

_REASONS = {
    "batch_norm": "ties samples together",
    **dict.fromkeys(
        ("instance_norm", "layer_norm", "group_norm", "rms_norm", "normalize"), "divides by the size of its own input"
    ),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean", "norm", "square"), "is curved"),
    **dict.fromkeys(("tanh", "sigmoid", "silu", "gelu", "elu", "selu", "softplus", "mish"), "is curved"),
    **dict.fromkeys(("softmax", "log_softmax", "scaled_dot_product_attention", "exp", "sqrt", "pow"), "is curved"),
    **dict.fromkeys(("dropout", "alpha_dropout", "feature_alpha_dropout"), "draws new slopes at every pass"),
    **dict.fromkeys(
        ("__bool__", "__float__", "__int__", "__index__", "item", "tolist", "numpy"),
        "lets the image decide what is computed",
    ),
    **dict.fromkeys(("detach", "data"), "cuts a gradient"),
    **dict.fromkeys(
        ("register_hook", "retain_grad", "grad_fn", "grad"), "is for a backward pass of autograd, and there is none"
    ),
}
