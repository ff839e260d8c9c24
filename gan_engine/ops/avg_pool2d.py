"""Average pooling whose gradients of every order are average pooling and its transpose."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from gan_engine import backends
from gan_engine.ops.convolution.arguments import per_side
from gan_engine.ops.kernel_op import Function, check_tensors, layout, stride_to_keep
from gan_engine.ops.linear_per_sample import linear_per_sample
from gan_engine.ops.one_node import one_node
from gan_engine.ops.thresholds import TABLE
from gan_engine.ops.upfirdn2d import upfirdn2d


@linear_per_sample
def avg_pool2d(
    x: Tensor,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    backend: str | None = None,
) -> Tensor:
    """y[n, c, i, j] = mean of x[n, c] over the window at (i, j)   # torch.nn.functional.avg_pool2d, with its arguments

    It differs in the second gradient, where PyTorch makes a tensor of zeros for x and sends it on: here there is none.
    On CPUs the means of 2x2 pixels in contiguous memory are an FIR filter, by the kernel of `upfirdn2d`: PyTorch's
    kernel takes seven times as long as a copy, or longer.

    Args:
        x: [N, C, H, W] or [C, H, W], float32, float64, bfloat16 or float16.
        kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override: as in PyTorch.
        backend: see gan_engine.backends. "pytorch" is PyTorch's kernels and that filter, and "reference" PyTorch's
            function.

    Returns:
        y: [N, C, H', W'] in the dtype and layout that PyTorch gives it.

    Raises:
        TypeError: a dtype other than the four.

    Gradients: every order in x.
    """
    check_tensors("avg_pool2d", x)
    stride = kernel_size if stride is None else stride
    size, step, zeros = (per_side(value, 2) for value in (kernel_size, stride, padding))
    arguments = PoolArguments(size, step, zeros, ceil_mode, count_include_pad, divisor_override)
    if backends.choose("avg_pool2d", x, backend) == "reference":
        return avg_pool2d_ref(x, arguments)
    if _halves(x, arguments) and backends.choose("pooling_filter", x) == "pytorch":
        mean = torch.tensor([0.5, 0.5], dtype=torch.float32, device="cpu")  # kept, it could be of another mode
        return upfirdn2d(x, mean, down=2, backend="cpu")
    return _avg_pool2d(x, arguments)


def avg_pool2d_ref(x: Tensor, arguments: "PoolArguments") -> Tensor:
    """The definition of `avg_pool2d` in PyTorch."""
    return torch.nn.functional.avg_pool2d(x, *arguments)


class PoolArguments(NamedTuple):
    """The arguments of PyTorch's operators for average pooling and its gradient, in their order."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    ceil_mode: bool
    count_include_pad: bool
    divisor_override: int | None


class _Pool(Function):
    @staticmethod
    def forward(x, arguments):
        return avg_pool2d_ref(x, arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        x, ctx.arguments = inputs
        ctx.set_materialize_grads(False)
        ctx.x = x.shape, stride_to_keep(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> tuple:
        return None if dy is None else _Unpool.apply(dy, ctx.x, ctx.arguments), None


class _Unpool(Function):
    """The transpose of the linear map that _Pool is."""

    @staticmethod
    def forward(dy, x, arguments):
        like = dy.new_empty_strided(*x)
        return torch.ops.aten.avg_pool2d_backward(dy, like, *arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        _, _, ctx.arguments = inputs
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, d_dx: Tensor | None) -> tuple:
        return None if d_dx is None else _Pool.apply(d_dx, ctx.arguments), None, None


# torch.compile must see one node here: traced into, the nested Functions lose their second order under torch.func.grad.
@one_node
def _avg_pool2d(x: Tensor, arguments: PoolArguments) -> Tensor:
    return _Pool.apply(x, arguments)


def _halves(x: Tensor, arguments: PoolArguments) -> bool:
    """Whether the pooling is a filter that the kernel of `upfirdn2d` for CPUs can compute."""
    if x.ndim != 4 or min(x.shape[2:]) < 2 or not (x.is_contiguous() or layout(x) == torch.channels_last):
        return False
    open_end = arguments.ceil_mode and (x.shape[2] % 2 or x.shape[3] % 2)
    if arguments[:3] != ((2, 2), (2, 2), (0, 0)) or open_end or arguments.divisor_override is not None:
        return False
    return backends.refusal("upfirdn2d", "cpu", x) is None and backends.may_run("upfirdn2d", "cpu", x)


def _no_gain(backend: str, x: Tensor, _: None) -> str | None:
    few, many = TABLE["few elements to halve"], TABLE["many channels to halve"]
    if x.numel() < few.number:
        return few.sentence
    return many.sentence if layout(x) == torch.channels_last and x.shape[1] >= many.number else None


backends.register("avg_pool2d", has=("pytorch",))
# Calls that the filter can compute: "pytorch" is the filter, and "reference" PyTorch's pooling.
backends.register("pooling_filter", has=("pytorch",), no_gain=_no_gain)
