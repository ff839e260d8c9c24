"""What is timed of an op: three modes, and the forms of torch.compile for each.

With y = f(inputs) and a given cotangent dy. A step returns all that it computes, so that no form may skip some of it:

    forward             y, recorded for no gradient
    forward+backward    y, g = the gradients of <y, dy> by the inputs
    second order        y, g, and the gradients of |g|^2 / 2 by the inputs and dy

The last is what R1 does to an op inside a discriminator: the gradient by dy is what flows on to the layers behind it.
In eager mode it is taken as the gradient of g along g itself, which is the same and saves squaring and summing.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MODES = ("forward", "forward+backward", "second order")

Step = Callable[[], Sequence[Tensor | None]]


def laid_out(t: Tensor, layout: torch.memory_format) -> Tensor:
    """`t` itself if it is not an image or already laid out so."""
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
    """A call without arguments that runs `f` on `inputs` in `mode`."""
    if mode == "forward":
        return lambda: _forward(f, inputs)
    if mode == "forward+backward":
        return lambda: _first_order(f, inputs, dy)
    dy = dy.detach().requires_grad_()
    return lambda: _second_order(f, inputs, dy)


def compiled_steps(f: Callable[..., Tensor], mode: str, inputs: Sequence[Tensor], dy: Tensor) -> dict[str, Step]:
    """The forms in which torch.compile takes `mode`, by name; each compiles at its first call.

    A compiled function cannot be differentiated twice, so for the second order the whole of it is compiled, in the two
    ways that PyTorch has.
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
    """The time below which memory allows nothing: each order reads what goes in and writes what comes out, once.

    It is a copy between two buffers that together are as large as the inputs and y, once for forward, twice for
    forward+backward, three times for the second order. The buffers are there beforehand and cost no allocation.
    """
    n = (sum(t.numel() for t in inputs) + y.numel()) // 2
    source, target = (torch.zeros(n, dtype=y.dtype, device=y.device) for _ in range(2))
    passes = 1 + MODES.index(mode)

    def copy():
        for _ in range(passes):
            target.copy_(source)
        return ()

    return copy
