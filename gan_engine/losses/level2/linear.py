"""Functions that are linear in an activation. Autograd knows how they run backward, so one rule serves them all."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_flatten, tree_unflatten

from gan_engine.losses.level2.offsets import add_offset, add_offset_gradient
from gan_engine.losses.level2.refusals import NotPiecewiseLinear
from gan_engine.losses.level2.rules import described, rule
from gan_engine.losses.level2.tape import Step, requiring_gradients
from gan_engine.losses.level2.traced_tensor import TracedTensor, record_step
from gan_engine.ops.avg_pool2d import avg_pool2d
from gan_engine.ops.linear_per_sample import linear_per_sample


def linear(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """function(*args, **kwargs), which is linear in the one traced tensor among its arguments.

    The function must keep the batch in dimension 0 and leave samples apart. (A result whose first dimension is not the
    batch is refused.) Tensors among the arguments are weights, and have gradients where they require them.
    """
    return record_linear(function, args, kwargs)


def record_linear(
    function: Callable,
    args: tuple,
    kwargs: dict,
    *,
    jointly: bool = False,
    offset: Tensor | None = None,
    with_offset: Callable | None = None,
    result_is_fresh: bool = False,
) -> Any:
    """Record function(*args, **kwargs) + offset, where the function is linear in the activations among its arguments.

    Args:
        jointly: there may be several activations, and the function is linear in all of them together.
        offset: what is added to the result of the function. `with_offset` is the function and the sum in one call.
        result_is_fresh: the result of the function is memory that no other tensor shows.
    """
    arguments = _Arguments(args, kwargs)
    activations, weights = arguments.activations, arguments.weights
    if len(activations) > 1 and not jointly:
        raise NotPiecewiseLinear(f"{described(function).name} of several activations")
    inputs = [_GraphStart.apply(torch.empty((), requires_grad=True), x.value) for x in activations]
    memory = {x.untyped_storage().data_ptr() for x in inputs}
    with _saving_shapes_alone(memory):
        out = arguments.call(with_offset or function, inputs, [w.detach() for w in weights])
    for x, activation in zip(inputs, activations, strict=True):
        if out is x:  # the function returned what it was given
            return activation
    many = isinstance(out, tuple | list)
    outs = out if many else (out,)
    step = LinearStep([x.slot for x in activations], function, arguments, offset, result_is_fresh)
    results = record_step(activations[0].tape, step, *(x.detach() for x in outs))
    step.keep_graph(inputs, outs)
    arguments.forget_activations()
    if any(x.untyped_storage().data_ptr() in memory for x in outs):
        for x in (*activations, *results):
            x.shares_memory = True
    return type(out)(results) if many else results[0]


class _Arguments:
    """The arguments of a linear function, apart: activations, weights (all other tensors), and the rest."""

    def __init__(self, args: tuple, kwargs: dict) -> None:
        self._leaves, self._structure = tree_flatten((args, kwargs))
        at = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, TracedTensor)]
        weights_at = [i for i, leaf in enumerate(self._leaves) if isinstance(leaf, Tensor) and i not in at]
        self.activations = [self._leaves[i] for i in at]
        self.weights = [self._leaves[i] for i in weights_at]
        self._places = *at, *weights_at

    def call(self, function: Callable, activations: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
        """The function with these tensors in the places of the activations and of the weights."""
        leaves = list(self._leaves)
        for i, tensor in zip(self._places, (*activations, *weights), strict=True):
            leaves[i] = tensor
        args, kwargs = tree_unflatten(leaves, self._structure)
        return function(*args, **kwargs)

    def forget_activations(self) -> None:
        for i in self._places[: len(self.activations)]:
            self._leaves[i] = None
        self.activations = []


class _GraphStart(torch.autograd.Function):
    """x as the start of a graph, which does not keep x in memory. `start` is a tensor that requires a gradient."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple:
        raise NotImplementedError  # gradients are asked for at this node, and go no further


def _saving_shapes_alone(memory: set[int]) -> contextlib.AbstractContextManager:
    """Autograd saves the shape of an activation in place of the activation, which is known by its `memory`.

    The gradient of a linear function reads no more of its input. Other tensors are saved as they are: the function may
    have constants that are not among its arguments, such as the taps of a filter.
    """

    def pack(x: Tensor) -> Any:
        if x.is_floating_point() and x.untyped_storage().data_ptr() in memory:
            return x.shape, x.stride(), x.dtype, x.device
        return x

    def unpack(saved: Any) -> Tensor:
        if isinstance(saved, Tensor):
            return saved
        shape, stride, dtype, device = saved
        return torch.empty_strided(shape, stride, dtype=dtype, device=device)

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


@dataclass(eq=False)
class LinearStep(Step):
    """results = function(sources, weights) + offset"""

    function: Callable
    arguments: _Arguments
    offset: Tensor | None
    function_is_fresh: bool  # the result of the function is memory that no other tensor shows
    graph_starts: list[GradientEdge] = field(default_factory=list, init=False)
    graph_ends: list[GradientEdge] = field(default_factory=list, init=False)

    def keep_graph(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Keep autograd's graph from `inputs` to `outputs`, by which the step runs backward."""
        self.graph_starts = [get_gradient_edge(x) for x in inputs]
        self.graph_ends = [get_gradient_edge(x) for x in outputs]

    def weights_and_offsets(self):
        return self.arguments.weights, [self.offset]

    @property
    def reads_tangents(self) -> bool:
        return self.needs_tangent or any(w.requires_grad for w in self.arguments.weights)

    def backward(self, deltas, may_overwrite):
        if any(self.learned()):
            (self.delta,) = deltas
        defined = [(end, delta) for end, delta in zip(self.graph_ends, deltas, strict=True) if delta is not None]
        ends, deltas = zip(*defined, strict=True)
        return torch.autograd.grad(ends, self.graph_starts, deltas, allow_unused=True)

    def tangent(self, sources, a, may_overwrite, grads):
        if self.offset is not None and a is not None:
            add_offset_gradient(self.offset, self.delta, a, grads)
        if not self.reads_tangents:
            return ()
        out = self._run(sources, grads)
        self.delta = None
        if self.offset is not None and a is not None:
            out = add_offset(out, a, self.offset, self.function_is_fresh)
        return out if isinstance(out, tuple | list) else (out,)

    def _run(self, sources: list[Tensor], grads: Any) -> Any:
        """The function of the sources. The gradients of its weights are added to `grads`."""
        own = self.arguments.weights
        weights = [w.detach() for w in own]
        learned = requiring_gradients(*own) if self.delta is not None else []
        if not learned:
            return self.arguments.call(self.function, sources, weights)
        for w, of_D in zip(weights, own, strict=True):
            w.requires_grad_(of_D.requires_grad)
        with torch.enable_grad():
            out = self.arguments.call(self.function, sources, weights)
        found = torch.autograd.grad(out, requiring_gradients(*weights), self.delta)
        for w, grad in zip(learned, found, strict=True):
            grads.add(w, grad)
        return out.detach()


# Functions that always keep the batch in dimension 0, or whose result shows that they do not.
rule("contiguous", "clone")(linear)
rule("float", "double", "half", "bfloat16")(linear)
rule("avg_pool1d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")(linear)


@rule("avg_pool2d")
def _mean_of_windows(function: Callable, input: Any, *args: Any, **kwargs: Any) -> Any:
    return linear(avg_pool2d, input, *args, **kwargs)  # which takes the faster way of two


rule("interpolate", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "fold")(linear)
rule(linear_per_sample)(linear)  # every function that is declared so
