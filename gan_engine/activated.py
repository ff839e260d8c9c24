"""Layers of PyTorch with the activation behind them, in one pass over memory where a backend has one.

A network holds the layer itself and calls one of these functions on it. Code that walks the modules of a network finds
layers of PyTorch, and may hook, replace or fuse them. The activation behind them stays.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from gan_engine import backends
from gan_engine.convolutions import Conv2d
from gan_engine.ops import bias_act, norm_act
from gan_engine.ops.bias_act import is_few
from gan_engine.ops.thresholds import TABLE


def biased(layer: nn.Module, x: Tensor, bias: Tensor, *, act: str) -> Tensor:
    """bias_act(layer(x), bias [O], act=act, gain=1), for a convolution or nn.Linear without a bias of its own

    The layer adds the bias on the backend "pytorch", and leaky_relu follows in place. Penalties at levels 1 and 2 run
    bias_act instead. A second gradient that is taken by hand meets the zeros of leaky_relu.
    """
    if (
        act == "lrelu"
        and not has_torch_function_unary(x)
        and _can_take_bias(layer, x)
        and backends.choose("biased", x, None, layer) == "pytorch"
    ):
        y = F.linear(x, layer.weight, bias) if x.ndim == 2 else layer._conv_forward(x, layer.weight, bias)
        return F.leaky_relu(y, 0.2, inplace=True)
    return bias_act(layer(x), bias, act=act, gain=1)


def _can_take_bias(layer: nn.Module, x: Tensor) -> bool:
    """True if the layer is a convolution or a linear layer of PyTorch without a bias, and could add one to x."""
    if not (is_pytorchs(layer, nn.Linear.forward, nn.Conv2d.forward, Conv2d.forward) and layer.bias is None):
        return False
    return x.ndim == (2 if isinstance(layer, nn.Linear) else 4)


def _bias_no_gain(backend: str, x: Tensor, layer: nn.Module | None) -> str | None:
    if layer is None:
        return None
    if x.ndim == 2:
        elements = len(x) * layer.out_features
    else:
        elements = x[:, 0].numel() // (layer.stride[0] * layer.stride[1]) * layer.out_channels
    few = TABLE["few elements behind a layer"]
    if backend != "pytorch":
        return few.sentence if is_few(x, elements, few) else None
    return None if is_few(x, elements, few) else "bias_act behind the layer is as fast, and chooses for itself"


backends.register(
    "biased",
    has=("cuda", "triton", "cpu", "pytorch"),
    no_gain=_bias_no_gain,
    recordable=True,
    kernels_of="bias_act",
)


def normed(norm: nn.Module, x: Tensor, *, act: str) -> Tensor:
    """act(norm(x [N, C, ...])) with gain 1, for a batch norm; on the backends "triton" and "cpu" by `norm_act`

    `act`: relu or lrelu. A network that calls this function holds the batch norm of PyTorch itself. Code that replaces
    batch norms, such as nn.SyncBatchNorm.convert_sync_batchnorm, finds it. The activation stays.
    """
    if act not in ("relu", "lrelu"):
        raise ValueError(f"normed: act must be relu or lrelu, got {act!r}")
    if has_torch_function_unary(x):  # a tensor that is PyTorch's to take or to refuse
        return bias_act(norm(x), act=act, gain=1)
    backend = backends.choose("normed", x)
    if backend == "pytorch":
        y = norm(x)
        return F.leaky_relu(y, 0.2) if act == "lrelu" else F.relu(y)
    usual = backend != "reference" and _is_usual(norm)
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var) if usual else (None,)
    if any(t is None for t in tensors):
        return bias_act(norm(x), act=act, gain=1)
    norm._check_input_dim(x)
    if norm.training:
        norm.num_batches_tracked.add_(1)
    options = {"training": norm.training, "momentum": norm.momentum, "eps": norm.eps, "backend": backend}
    return norm_act(x, *tensors, act=act, **options)


def _norm_no_gain(backend: str, x: Tensor, arguments: None) -> str | None:
    few = TABLE["few elements of a batch norm"]
    pytorchs = is_few(x, x.numel(), few) and x.is_contiguous(memory_format=torch.channels_last)
    if backend != "pytorch":
        return few.sentence if pytorchs else None
    return None if pytorchs else "bias_act behind the norm is as fast, and chooses for itself"


backends.register("normed", has=("triton", "cpu", "pytorch"), no_gain=_norm_no_gain, kernels_of="norm_act")


def _is_usual(norm: nn.Module) -> bool:
    """True if the layer is a batch norm of PyTorch whose running statistics move by its momentum."""
    usual = is_pytorchs(norm, nn.BatchNorm2d.forward) and norm.track_running_stats and norm.momentum is not None
    return usual and norm.num_batches_tracked is not None


def is_pytorchs(layer: nn.Module, *forwards: Callable) -> bool:
    """True if a call of the layer is one of these forward passes and nothing else: no other subclass, no hook."""
    kind = type(layer)
    return (
        kind.forward in forwards
        and kind.__call__ is nn.Module.__call__
        and "forward" not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and not nn.modules.module._has_any_global_hook()
    )
