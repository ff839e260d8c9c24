"""Layers of PyTorch with their activation, in one pass over memory where there are kernels for it.

A network holds the layer itself and calls one of these functions on it. Code that walks the modules of a network finds
layers of PyTorch that do what PyTorch says, and may hook them, replace them or fuse them: what is behind them stays.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from gan_engine import backends
from gan_engine.ops import bias_act, norm_act
from gan_engine.ops.bias_act import FEW, few


def biased(layer: nn.Module, x: Tensor, bias: Tensor, *, act: str) -> Tensor:
    """bias_act(layer(x), bias [O], act=act, gain=1), for a convolution or nn.Linear without a bias of its own

    Of few elements the layer adds the bias, which spares PyTorch's own functions one more pass: those of SRGAN's
    discriminator, lrelu of [16, 16, 48, 48], take 350 us forward and backward, and bias_act 620 (2026-11).
    Penalties at levels 1 and 2 put bias_act there; a second gradient taken by hand meets the zeros of leaky_relu.
    """
    if act == "lrelu" and not has_torch_function_unary(x) and backends.free(None) and _lacks_bias(layer):
        if isinstance(layer, nn.Linear):
            if x.ndim == 2 and few(x, len(x) * layer.out_features, 2 * FEW):
                return F.leaky_relu(F.linear(x, layer.weight, bias), 0.2, inplace=True)
        elif x.ndim == 4:
            pixels = x[:, 0].numel() // (layer.stride[0] * layer.stride[1])
            if few(x, pixels * layer.out_channels, 2 * FEW):
                return F.leaky_relu(layer._conv_forward(x, layer.weight, bias), 0.2, inplace=True)
    return bias_act(layer(x), bias, act=act, gain=1)


def normed(norm: nn.Module, x: Tensor, *, act: str) -> Tensor:
    """act(norm(x [N, C, ...])) with gain 1, for a batch norm, in one pass of `norm_act` where that has a kernel

    `act`: relu or lrelu. A network that calls this holds the batch norm of PyTorch itself. So whatever looks for batch
    norms finds it and may put another module in its place, as nn.SyncBatchNorm.convert_sync_batchnorm does; the
    activation stays.
    """
    if act not in ("relu", "lrelu"):
        raise ValueError(f"normed: act must be relu or lrelu, got {act!r}")
    # norm_act is built together with the C++ kernels of bias_act. What is no plain tensor is PyTorch's to refuse.
    ours = not has_torch_function_unary(x) and backends.choose("bias_act", x) == "cpu"
    # PyTorch is at its best in channels_last: few elements are not worth a call (backward pass of [32, 128, 8, 8]
    # behind a convolution in us: 313, with PyTorch's and leaky_relu 265; by itself 113 and 157; 2026-11).
    last = torch.channels_last
    if ours and few(x, x.numel(), FEW) and backends.free(None) and x.is_contiguous(memory_format=last):
        y = norm(x)
        return F.leaky_relu(y, 0.2) if act == "lrelu" else F.relu(y)
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var) if ours and _is_usual(norm) else (None,)
    if any(t is None for t in tensors):
        return bias_act(norm(x), act=act, gain=1)
    norm._check_input_dim(x)
    if norm.training:
        norm.num_batches_tracked.add_(1)
    options = {"training": norm.training, "momentum": norm.momentum, "eps": norm.eps, "backend": "cpu"}
    return norm_act(x, *tensors, act=act, **options)


def _lacks_bias(layer: nn.Module) -> bool:
    """Whether it is a convolution or a linear layer of PyTorch without a bias."""
    return _does_no_more(layer, nn.Linear.forward, nn.Conv2d.forward) and layer.bias is None


def _is_usual(norm: nn.Module) -> bool:
    """Whether it is a batch norm of PyTorch whose running statistics move by its momentum."""
    usual = _does_no_more(norm, nn.BatchNorm2d.forward) and norm.track_running_stats and norm.momentum is not None
    return usual and norm.num_batches_tracked is not None


def _does_no_more(layer: nn.Module, *forwards: Callable) -> bool:
    """Whether a call of the layer does no more than one of these forward passes, which are methods of PyTorch."""
    kind = type(layer)
    return (
        kind.forward in forwards
        and kind.__call__ is nn.Module.__call__
        and "forward" not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and not nn.modules.module._has_any_global_hook()
    )
