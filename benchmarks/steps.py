"""The calls that are timed for an op: three modes, each in eager mode and in the forms of torch.compile.

y = f(inputs), and dy is a given gradient of a loss by y. The three modes compute:

    forward             y, without recording for gradients
    forward+backward    y, and g = the gradients of <y, dy> by the inputs
    second order        y, g, and the gradients of |g|^2 / 2 by the inputs and by dy

A step returns everything that it computes, so that no compiler may skip a part. R1 needs the second order of every op
in a discriminator; the gradient by dy then flows on to the layers behind the op. Eager mode computes the gradient of
<g, v> with v = g held constant. This is the same value, and saves squares and sums.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MODES = ("forward", "forward+backward", "second order")

Step = Callable[[], Sequence[Tensor | None]]


def laid_out(t: Tensor, layout: torch.memory_format) -> Tensor:
    """`t` in that memory layout; `t` itself if it has the layout already or does not have 4 dimensions."""
    if t.ndim != 4 or t.is_contiguous(memory_format=layout):
        return t
    return t.detach().contiguous(memory_format=layout).requires_grad_(t.requires_grad)


@torch.no_grad()
def _forward(f: Callable[..., Tensor], inputs: Sequence[Tensor]) -> tuple:
    return (f(*inputs),)


def _first_order(f: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor) -> tuple:
    y = f(*inputs)
    return y, *torch.autograd.grad(y, inputs, dy)


def _second_order(f: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor) -> tuple:
    y = f(*inputs)
    first = torch.autograd.grad(y, inputs, dy, create_graph=True)
    along = [g.detach() for g in first]
    second = torch.autograd.grad(first, (*inputs, dy), along, allow_unused=True)
    return y.detach(), *along, *second


def _second_order_functional(f: Callable[..., Tensor], inputs: Sequence[Tensor], dy: Tensor) -> tuple:
    def half_square(inputs, dy):
        y, pullback = torch.func.vjp(f, *inputs)
        first = pullback(dy)
        return sum(g.square().sum() for g in first) / 2, (y, first)

    (by_inputs, by_dy), (y, first) = torch.func.grad(half_square, argnums=(0, 1), has_aux=True)(inputs, dy)
    return y, *first, *by_inputs, by_dy


def step(f: Callable[..., Tensor], mode: str, inputs: Sequence[Tensor], dy: Tensor) -> Step:
    """A function without arguments that runs `f` on `inputs` in `mode`."""
    if mode == "forward":
        return lambda: _forward(f, inputs)
    if mode == "forward+backward":
        return lambda: _first_order(f, inputs, dy)
    dy = dy.detach().requires_grad_()
    return lambda: _second_order(f, inputs, dy)


def compiled_steps(f: Callable[..., Tensor], mode: str, inputs: Sequence[Tensor], dy: Tensor) -> dict[str, Step]:
    """{name: step} of the forms in which torch.compile can run `mode`. Each form compiles at its first call.

    A compiled function cannot be differentiated twice. So the second order is compiled as a whole, in the two ways that
    PyTorch has: torch.func.grad, and tracing through torch.autograd.grad.
    """
    if mode != "second order":
        return {"compile": step(torch.compile(f, fullgraph=True, dynamic=False), mode, inputs, dy)}
    functional = torch.compile(_second_order_functional, fullgraph=True, dynamic=False)
    traced = torch.compile(_second_order, fullgraph=True, dynamic=False)
    detached, dy = [t.detach() for t in inputs], dy.detach()
    dy_leaf = dy.detach().clone().requires_grad_()

    def traced_step():
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            return traced(f, inputs, dy_leaf)

    return {"compile func.grad": lambda: functional(f, detached, dy), "compile trace_autograd_ops": traced_step}


def copy_floor(mode: str, inputs: Sequence[Tensor], y: Tensor) -> Step:
    """A lower bound set by memory bandwidth: each order reads its inputs once and writes its outputs once.

    The step copies between two buffers, which together are as large as the inputs and y. It copies once for forward,
    twice for forward+backward, and three times for the second order. The buffers are allocated beforehand.
    """
    n = (sum(t.numel() for t in inputs) + y.numel()) // 2
    source, target = (torch.zeros(n, dtype=y.dtype, device=y.device) for _ in range(2))
    passes = 1 + MODES.index(mode)

    def copy():
        for _ in range(passes):
            target.copy_(source)
        return ()

    return copy
