"""Level 1: what a network runs on so that its gradient can be differentiated again.

Some functions of PyTorch make tensors of zeros in their second gradient. The fused kernels of attention have no second
gradient, and PyTorch 2.11 has none of grid_sample. A mode replaces the calls of these functions. It changes no setting
of the process and no other thread.
"""

import math
import types
from collections.abc import Callable, Collection
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gan_engine import backends
from gan_engine.ops import convolution
from gan_engine.ops.avg_pool2d import avg_pool2d
from gan_engine.ops.bias_act import bias_act, is_few
from gan_engine.ops.convolution.arguments import ConvolutionArguments
from gan_engine.ops.convolution.autograd import closed_convolution, conv2d
from gan_engine.ops.convolution.maps import PYTORCH, forward_request
from gan_engine.ops.grid_sample import grid_sample
from gan_engine.ops.kernel_op import wide
from gan_engine.ops.norm_act import norm_act
from gan_engine.ops.thresholds import TABLE
from gan_engine.system import native

_WITHOUT_TORCH_FUNCTION = frozenset((Tensor, torch.nn.Parameter))


class ClosedOps(TorchFunctionMode):
    """Inside of the block, functions of PyTorch run on ops that are closed under differentiation.

    `closed=False` replaces only attention: it runs on PyTorch's math kernel in both cases. A region under
    torch.utils.checkpoint runs again in backward passes, after the block has ended. The mode is in force there too,
    because both runs must save the same tensors.

    Attributes:
        closed: whether functions beside attention are replaced.
        attended: whether a function of attention was called.
        gained: whether a function was replaced that gains by it, in time or by a second gradient that it has not.
    """

    def __init__(self, *, closed: bool = True) -> None:
        super().__init__()
        self.closed, self.attended, self.gained = closed, False, False
        self._replacements = _ATTENTION | _CLOSED if closed else _ATTENTION

    def __torch_function__(
        self, func: Callable, types: Collection[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        replacement, kwargs = self._replacements.get(func), kwargs or {}
        self.attended = self.attended or func in _ATTENTION
        # A tensor with a torch function of its own must see the function that was called. torch.func.vmap cannot batch
        # our autograd functions.
        if (
            replacement is None
            or not _WITHOUT_TORCH_FUNCTION.issuperset(types)
            or torch._C._are_functorch_transforms_active()
        ):
            return func(*args, **kwargs)
        self._stay_for_recomputation()
        result = replacement(*args, **kwargs)
        if result is NotImplemented:
            return func(*args, **kwargs)
        self.gained = self.gained or func in _GAIN or (func in _ACTIVATIONS and _is_large(result))
        return result

    def _stay_for_recomputation(self) -> None:
        """If the network is inside of a checkpoint, make the innermost one run its region again in this mode."""
        pack = checkpoint_hook()
        if pack is None:
            return
        frame = pack.__closure__[pack.__code__.co_freevars.index("frame")].cell_contents
        if not isinstance(frame.recompute_fn, _Recomputation):
            frame.recompute_fn = _Recomputation(frame.recompute_fn, self)


def checkpoint_hook() -> Any:
    """The hook that saves tensors inside of torch.utils.checkpoint with use_reentrant=False, or None outside of it."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    pack = hooks[0] if hooks is not None else None
    return pack if getattr(pack, "__qualname__", "").startswith("_checkpoint_hook.") else None


class FasterOps(ClosedOps):
    """Inside of the block, convolutions and norms that have a faster way than PyTorch's take it.

    For runs that are differentiated once: attention keeps its fused kernels.
    """

    def __init__(self) -> None:
        super().__init__(closed=False)
        self._replacements = _FASTER


class _Recomputation:
    """Runs a region of a checkpoint again, in `mode`."""

    def __init__(self, run: Callable, mode: ClosedOps) -> None:
        self.run, self.mode = run, mode

    def __call__(self, *args: Any) -> None:
        with self.mode:
            self.run(*args)


class _Overwrite(torch.autograd.Function):
    """x <- y, as an activation in place does. y has the gradient of the result. The old x has none, and not zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.set_materialize_grads(False)
        return x.copy_(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        return None, dy


def _supported(x: Tensor) -> bool:
    return x.dtype in native.DTYPES and x.layout == torch.strided and not x.is_nested


def _relu(input: Tensor, inplace: bool = False) -> Tensor:
    return _activation(input, inplace, act="relu")


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    return _activation(input, inplace, act="lrelu", alpha=negative_slope)


def _is_large(x: Tensor) -> bool:
    return not is_few(x, x.numel(), TABLE["few elements"])


def _activation(input: Tensor, inplace: bool, **act: Any) -> Tensor:
    if input.ndim == 0 or not _supported(input):
        return NotImplemented
    if not inplace:
        return bias_act(input, **act, gain=1)
    # An undefined gradient of a view would make the gradient of its base undefined. PyTorch's activations may save the
    # x that is written over.
    if input._is_view() or backends.choose("bias_act", input) in ("pytorch", "reference"):
        return NotImplemented
    return _Overwrite.apply(input, bias_act(input, **act, gain=1))


def _no_gain(backend: str, x: Tensor, call: tuple[float, bool] | None) -> str | None:
    """A rule: `call` is the multiply-adds of a convolution, and whether it is square, with a stride, and unfiltered."""
    if call is None or x.device.type != "cpu":
        return None
    products, strided = call
    few = TABLE["few products with a stride at level 1" if strided else "few products at level 1"]
    return few.sentence if products < few.number else None


# The convolutions of level 1. "pytorch" is our autograd functions, whose own backends the chooser finds. "reference" is
# PyTorch's function, which is closed under differentiation too.
backends.register("level1_conv2d", has=("pytorch",), no_gain=_no_gain)


def _is_ours(input: Tensor, weight: Tensor, arguments: ConvolutionArguments) -> bool:
    """Whether our autograd functions run a convolution, which has an output for each `stride` of its input."""
    steps = 1 if arguments.transposed else math.prod(arguments.stride)
    products = weight.numel() * len(input) * input.shape[2] * input.shape[3] / steps
    square = weight.shape[2] == weight.shape[3] and len(set(arguments.stride)) == 1
    request = forward_request(input, weight, None, arguments)
    strided = steps > 1 and square and request.fastest_way() == PYTORCH
    if request.images_of(torch.float32) and request.is_pointwise() and request.pointwise_gains():
        products = math.inf  # of few channels: their kernels gain from a threshold of their own on
    return backends.choose("level1_conv2d", input, None, (products, strided)) == "pytorch"


def _conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    if isinstance(padding, str) or input.ndim != 4 or not _supported(input):
        return NotImplemented
    arguments = ConvolutionArguments.from_conv(2, stride, padding, dilation, groups)
    if not _is_ours(input, weight, arguments):
        return NotImplemented
    return conv2d(input, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1) -> Tensor:
    if input.ndim != 4 or not _supported(input) or torch.is_autocast_enabled(input.device.type):
        return NotImplemented
    options = (stride, padding, output_padding, groups, dilation)
    arguments = ConvolutionArguments.from_conv_transpose(2, *options)
    return closed_convolution(input, weight, bias, arguments) if _is_ours(input, weight, arguments) else NotImplemented


def _faster_conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:
    if isinstance(padding, str) or not _supported(input):
        return NotImplemented
    return convolution.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _faster_conv_transpose2d(input, weight, *args: Any, **kwargs: Any) -> Tensor:
    return convolution.conv_transpose2d(input, weight, *args, **kwargs) if _supported(input) else NotImplemented


def _norm_no_gain(backend: str, x: Tensor, call: None) -> str | None:
    if backends.choose("norm_act", x) != "cpu":
        return "norm_act has no kernel of the second order there"
    few = TABLE["few elements of a norm at level 1"]
    return few.sentence if x.numel() < few.number else None


# The norms of level 1. "pytorch" is norm_act, and "reference" is PyTorch's function.
backends.register("level1_norm", has=("pytorch",), no_gain=_norm_no_gain)


def _batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5
) -> Tensor:
    if (running_mean is None) != (running_var is None) or not (training or running_mean is not None):
        return NotImplemented  # PyTorch refuses it
    options: dict[str, Any] = {"norm": "batch", "training": training, "momentum": momentum, "eps": eps}
    return _norm(input, (running_mean, running_var), weight, bias, **options)


def _faster_batch_norm(input, *args: Any, **kwargs: Any) -> Tensor:
    pytorchs = input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last)
    if pytorchs and is_few(input, input.numel(), TABLE["few elements of a batch norm"]):
        return NotImplemented
    return _batch_norm(input, *args, **kwargs)


def _instance_norm(
    input,
    running_mean=None,
    running_var=None,
    weight=None,
    bias=None,
    use_input_stats=True,
    momentum=0.1,
    eps=1e-5,
) -> Tensor:
    if running_mean is not None or running_var is not None or not use_input_stats:
        return NotImplemented
    options: dict[str, Any] = {"norm": "instance", "training": True, "momentum": momentum, "eps": eps}
    y = _norm(input, (None, None), weight, bias, **options)
    # Images as PyTorch lays them out: a `view` behind the norm may need it.
    return y.contiguous() if y is not NotImplemented and y.ndim == 4 else y


def _norm(input, running, weight, bias, *, norm: str, training: bool, momentum: float, eps: float) -> Tensor:
    """norm_act, or NotImplemented for what it does not take, what PyTorch refuses, or what gains nothing"""
    if input.ndim < 2 or not _supported(input) or momentum is None or eps <= 0:
        return NotImplemented
    over = input[:, :1] if norm == "batch" else input[:1, :1]
    tensors = [t for t in (*running, weight, bias) if t is not None]
    dtypes = {t.dtype for t in tensors}
    fits = (not training or over.numel() > 1) and all(t.shape == input.shape[1:2] for t in tensors)
    fits = fits and (dtypes <= {input.dtype} or (dtypes == {torch.float32} and input.dtype != torch.float64))
    if not fits or backends.choose("level1_norm", input) != "pytorch":
        return NotImplemented
    dtype = wide(input.dtype)
    weight = input.new_ones(input.shape[1], dtype=dtype) if weight is None else weight
    bias = input.new_zeros(input.shape[1], dtype=dtype) if bias is None else bias
    return norm_act(input, weight, bias, *running, norm=norm, training=training, momentum=momentum, eps=eps)


def _avg_pool2d(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return avg_pool2d(input, *args, **kwargs) if _supported(input) else NotImplemented


def _grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    if (mode, padding_mode) != ("bilinear", "zeros") or align_corners or input.ndim != 4 or 0 in input.shape:
        return NotImplemented
    if not _supported(input) or grid.dtype != input.dtype or torch.is_autocast_enabled(input.device.type):
        return NotImplemented
    return grid_sample(input, grid)


def _scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    """F.scaled_dot_product_attention as under torch.nn.attention.sdpa_kernel(SDPBackend.MATH), for this call alone"""
    if query.is_nested:
        return NotImplemented
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        inputs = [
            t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t
            for t in (query, key, value, attn_mask)
        ]
        with torch.autocast(device, enabled=False):
            return _scaled_dot_product_attention(*inputs, dropout_p, is_causal, scale, enable_gqa)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
    options = {"scale": scale, "enable_gqa": enable_gqa}
    math = torch.ops.aten._scaled_dot_product_attention_math
    return math(query, key, value, attn_mask, dropout_p, is_causal, **options)[0]


def _multi_head_attention(*args: Any, **kwargs: Any) -> tuple:
    """F.multi_head_attention_forward on `_scaled_dot_product_attention`: the mode sees no call inside of it."""
    names = vars(F) | {"scaled_dot_product_attention": _scaled_dot_product_attention}
    function = F.multi_head_attention_forward
    copy = types.FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy(*args, **kwargs)


# A replacement returns NotImplemented for a call that it leaves to PyTorch.
_ATTENTION: dict[Callable, Callable] = {
    F.scaled_dot_product_attention: _scaled_dot_product_attention,
    F.multi_head_attention_forward: _multi_head_attention,
}
_ACTIVATIONS: dict[Callable, Callable] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), lambda input: _relu(input, inplace=True)),
    F.leaky_relu: _leaky_relu,
}
# Replaced only where that gains: convolutions and norms have a threshold, and PyTorch 2.11 no second gradient of
# grid_sample.
_GAIN: dict[Callable, Callable] = {
    F.conv2d: _conv2d,
    F.conv_transpose2d: _conv_transpose2d,
    F.grid_sample: _grid_sample,
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
}
_CLOSED: dict[Callable, Callable] = {**_ACTIVATIONS, **_GAIN, F.avg_pool2d: _avg_pool2d}
_FASTER: dict[Callable, Callable] = {
    F.conv2d: _faster_conv2d,
    F.conv_transpose2d: _faster_conv_transpose2d,
    F.avg_pool2d: _avg_pool2d,
    F.batch_norm: _faster_batch_norm,
    F.instance_norm: _instance_norm,
}
