"""The record of a forward pass whose parts are linear once the slopes are fixed, and how each part is run again.

See piecewise_linear.py, whose letters these are. Values have slots; a step leads from slots to slots.
"""

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gan_engine import backends
from gan_engine.ops.bias_act import bias_act_ref
from gan_engine.ops.kernel_op import in_layout, operators


class NotPiecewiseLinear(Exception):
    """D does something that is not known to be piecewise linear, sample by sample: a sentence that names the layer."""


class Tape:
    def __init__(self, n: int) -> None:
        self.n = n
        self.steps: list[Step] = []
        self.slots = 1
        self.values: list[weakref.ref] = []  # every tensor that D was given of the pass

    def record(self, step: "Step", values: tuple[Tensor, ...]) -> None:
        """Note that `step` made `values`, if they are batches."""
        for value in values:
            if not value.is_floating_point():
                raise NotPiecewiseLinear(f"a conversion to {value.dtype} is not linear")
            if value.ndim == 0 or value.shape[0] != self.n:
                raise NotPiecewiseLinear(
                    f"the batch must stay in dimension 0, but of {self.n} samples it made a tensor {list(value.shape)}"
                )
        step.results = list(range(self.slots, self.slots + len(values)))
        self.slots += len(values)
        step.versions = {id(t): version(t) for t in step.reads()}
        self.steps.append(step)

    def needed(self, slot: int) -> list["Step"]:
        """The steps that the value in `slot` depends on, in their order; the record is empty then.

        Their results are marked as wanted where a weight is behind them, which is where tangents have to get to.
        """
        wanted, read, kept = {slot}, set(), []
        for step in reversed(self.steps):
            if wanted.intersection(step.results):
                wanted.update(step.sources)
                step.wanted = not read.isdisjoint(step.results)
                if step.reads_sources:
                    read.update(step.sources)
                kept.append(step)
        self.steps = []
        return kept[::-1]


def version(x: Tensor) -> int:
    """How often x has been written to; 0 for one of torch.inference_mode(), which does not count it."""
    return 0 if x.is_inference() else x._version


def sole_readers(steps: list["Step"]) -> dict[int, "Step"]:
    """By slot, the step that reads it, where there is one and no other."""
    readers: dict[int, Step | None] = {}
    for step in steps:
        for slot in step.sources:
            readers[slot] = None if slot in readers else step
    return {slot: step for slot, step in readers.items() if step is not None}


@dataclass(eq=False)
class Step:
    sources: list[int]
    results: list[int] = field(default_factory=list, init=False)
    versions: dict[int, int] = field(default_factory=dict, init=False)  # of what it reads, by id
    wanted: bool = field(default=True, init=False)  # whether the tangents of the results are to be computed
    delta: Tensor | None = field(default=None, init=False)  # the gradient of the logits by the result

    owns_result: ClassVar[bool] = False  # the result is memory that nothing else shows
    owns_gradient: ClassVar[bool] = False  # and so is the gradient by the source

    @property
    def reads_sources(self) -> bool:
        """Whether the tangents of the sources are needed."""
        return self.wanted

    def weights_and_offsets(self) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        """What the step computes with beside the values."""
        return (), ()

    def learned(self) -> tuple[list[Tensor], list[Tensor]]:
        """The weights and the offsets that require gradients."""
        weights, offsets = self.weights_and_offsets()
        return requiring(*weights), requiring(*offsets)

    def reads(self, *, offsets: bool = True) -> list[Tensor]:
        """The tensors that the tangents are computed with; without a loss those of the offsets are not."""
        weights, others = self.weights_and_offsets()
        return [t for t in (*weights, *(others if offsets else ())) if t is not None]

    def written_to(self, *, offsets: bool = True) -> Tensor | None:
        """One of these that has been written to since the step was recorded; None if there is none."""
        return next((t for t in self.reads(offsets=offsets) if version(t) != self.versions[id(t)]), None)

    def backward(self, deltas: list[Tensor | None], owned: bool) -> tuple:
        """The gradients by the sources for those by the results; `owned`: it may write over those."""
        raise NotImplementedError

    def tangent(self, sources: list[Tensor], a: Tensor | None, owned: bool, grads: "Gradients") -> tuple:
        """The tangents of the results where they are wanted, else (); `owned`: they may write over the source's.

        The gradients of parameters are added to `grads`.
        """
        raise NotImplementedError


class Gradients(dict[int, Tensor]):
    """The gradient of each parameter, by its id: the sum over all steps that read the parameter."""

    def add(self, parameter: Tensor, grad: Tensor) -> None:
        before = self.get(id(parameter))
        self[id(parameter)] = grad if before is None else before + grad


def requiring(*tensors: Tensor | None) -> list[Tensor]:
    return [t for t in tensors if t is not None and t.requires_grad]


class Entered(torch.autograd.Function):
    """x as the beginning of a graph, which does not hold it"""

    @classmethod
    def of(cls, x: Tensor) -> Tensor:
        return cls.apply(torch.empty((), requires_grad=True), x)

    @staticmethod
    def forward(ctx: Any, beginning: Tensor, x: Tensor) -> Tensor:
        return x.detach()

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple:
        raise NotImplementedError  # gradients are asked for here, and go no further


@dataclass(eq=False)
class Linear(Step):
    """results = run(values, weights) + offset"""

    run: Callable[[list[Tensor], list[Tensor]], Any]
    weights: list[Tensor]
    offset: Tensor | None
    in_place: bool  # the result of `run` is memory of its own
    begins: list[GradientEdge] = field(default_factory=list, init=False)  # where autograd's graph of it reads sources
    ends: list[GradientEdge] = field(default_factory=list, init=False)

    def follow(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Take the graph that leads from `inputs` to `outputs` as that of the step."""
        self.begins = [get_gradient_edge(x) for x in inputs]
        self.ends = [get_gradient_edge(x) for x in outputs]

    def weights_and_offsets(self):
        return self.weights, [self.offset]

    def backward(self, deltas, owned):
        if any(self.learned()):
            (self.delta,) = deltas
        ends, given = zip(*((end, d) for end, d in zip(self.ends, deltas, strict=True) if d is not None), strict=True)
        return torch.autograd.grad(ends, self.begins, given, allow_unused=True)

    @property
    def reads_sources(self) -> bool:
        return self.wanted or any(w.requires_grad for w in self.weights)

    def tangent(self, sources, a, owned, grads):
        if self.offset is not None and a is not None:
            _offset_gradient(self.offset, self.delta, a, grads)
        if not self.reads_sources:
            return ()
        weights = [w.detach() for w in self.weights]
        learned = requiring(*self.weights) if self.delta is not None else []
        if learned:
            for w, own in zip(weights, self.weights, strict=True):
                w.requires_grad_(own.requires_grad)
            with torch.enable_grad():
                out = self.run(sources, weights)
            found = torch.autograd.grad(out, requiring(*weights), self.delta)
            for w, grad in zip(learned, found, strict=True):
                grads.add(w, grad)
            out = out.detach()
        else:
            out = self.run(sources, weights)
        self.delta = None
        if self.offset is not None and a is not None:
            out = _shifted(out, a, self.offset, self.in_place)
        return out if isinstance(out, tuple | list) else (out,)


@dataclass(eq=False)
class Sum(Step):
    """result = value + alpha * value, of one shape and dtype"""

    alpha: float

    owns_result = True

    def backward(self, deltas, owned):
        (delta,) = deltas
        return delta, delta if self.alpha == 1 else delta * self.alpha

    def tangent(self, sources, a, owned, grads):
        if not self.wanted:
            return ()
        x, y = sources
        return (x.add_(y, alpha=self.alpha) if owned else torch.add(x, y, alpha=self.alpha),)


@dataclass(eq=False)
class Mask(Step):
    """result = y of bias_act(value, bias), of which m = dy/dx is kept"""

    slopes: "Slopes"
    bias: Tensor | None  # broadcasts against the value

    owns_result = True

    def weights_and_offsets(self):
        return [], [self.bias]

    def backward(self, deltas, owned):
        (dy,) = deltas
        delta = self.slopes(dy, owned)
        if any(self.learned()):
            self.delta = delta
        return (delta,)

    def tangent(self, sources, a, owned, grads):
        if self.bias is not None and a is not None:
            _offset_gradient(self.bias, self.delta, a, grads)
        self.delta = None
        if not self.wanted:
            return ()
        (v,) = sources
        if self.bias is not None and a is not None:
            v, owned = _shifted(v, a, self.bias, owned).to(v.dtype), True
        y = self.slopes(v, owned)
        if self.slopes.clamp is not None and a is not None:
            y += self.slopes.at_limit(per_sample(a, y))
        return (y,)


@dataclass(eq=False)
class Constant(Step):
    """result = offset, which the image has no part in"""

    offset: Tensor
    value: Tensor

    def weights_and_offsets(self):
        return [], [self.offset]

    def backward(self, deltas, owned):
        (self.delta,) = deltas
        return ()

    def tangent(self, sources, a, owned, grads):
        if a is None:
            return (torch.zeros_like(self.value),)
        _offset_gradient(self.offset, self.delta, a, grads)
        return ((per_sample(a, self.value) * self.value).to(self.value.dtype),)


def _shifted(v: Tensor, a: Tensor, offset: Tensor, in_place: bool) -> Tensor:
    """v + a[n] offset, in the dtype of v + offset"""
    if in_place:
        return v.addcmul_(per_sample(a, v), offset.detach())
    dtype = torch.promote_types(v.dtype, offset.dtype) if offset.ndim > 0 else v.dtype
    return v.addcmul(per_sample(a, v), offset.detach()).to(dtype)


def per_sample(a: Tensor, x: Tensor) -> Tensor:
    return a.reshape([-1] + [1] * (x.ndim - 1))


def _offset_gradient(offset: Tensor, delta: Tensor | None, a: Tensor, grads: Gradients) -> None:
    """sum of a[n] delta[n] over what `offset` was broadcast along"""
    if delta is None or not offset.requires_grad:
        return
    shape = [1] * (delta.ndim - offset.ndim) + list(offset.shape)
    inner = [i for i in range(1, delta.ndim) if shape[i] == 1 and delta.shape[i] > 1]
    total = delta.sum(inner, keepdim=True, dtype=a.dtype) if inner else delta.to(a.dtype)
    total = total * per_sample(a, total)
    grads.add(offset, total.sum_to_size(shape).reshape(offset.shape).to(offset.dtype))


class Slopes:
    """Where one call of bias_act with a piecewise linear activation is on its line: y = m (x + b) + k.

    m is 0 where y is clamped, and k is that limit there, with its sign, and 0 elsewhere.
    """

    def __init__(self, dim, act, alpha, gain, clamp, backend) -> None:
        self.alpha = {"linear": 1.0, "relu": 0.0}.get(act, 0.2 if alpha is None else float(alpha))
        # The sign of a clamped y is read from that of x + b, of which the kernels make no note for linear.
        self.act = "relu" if self.alpha == 0 else "lrelu"
        self.dim, self.clamp, self.backend = dim, clamp, backend
        self.gain = (1.0 if act == "linear" else 2**0.5) if gain is None else float(gain)

    def forward(self, x: Tensor, b: Tensor | None) -> Tensor:
        """y, of which m and k are noted in two bits an element."""
        self.dim = self.dim % x.ndim if b is not None else 0
        self.backend = backends.choose("bias_act", x, self.backend)
        if self.backend == "reference":
            options = {"dim": self.dim, "act": self.act, "alpha": self.alpha, "gain": self.gain}
            self.positive = bias_act_ref(x, b, **options | {"act": "linear", "gain": 1.0}, clamp=None) > 0
            y = bias_act_ref(x, b, **options, clamp=None)
            if self.clamp is None:
                return y
            self.keep = y.abs() <= self.clamp
            return y.clamp(-self.clamp, self.clamp)
        y, self.mask = operators.bias_act(x, b, *self._call(self.alpha, self.gain), True)
        self.shape, self.stride = y.shape, y.stride()
        return y

    def __call__(self, v: Tensor, owned: bool = False) -> Tensor:
        """m v, in the memory of v if that is `owned`"""
        if self.backend != "reference":
            laid_out = in_layout(v, self.stride)
            if not owned and laid_out is v:
                return self._times(v, self.mask, self.alpha, self.gain)
            operators.bias_act_slope_(laid_out, self.mask, *self._call(self.alpha, self.gain)[1:])
            return laid_out
        v = torch.where(self.positive, v, v * self.alpha if self.alpha else 0) * self.gain
        return v if self.clamp is None else v * self.keep

    def at_limit(self, a: Tensor) -> Tensor:
        """a k, for a that broadcasts against y"""
        above, below = (math.copysign(self.clamp, s) for s in (self.gain, -self.alpha * self.gain))
        if self.backend == "reference":
            return torch.where(self.keep, 0, torch.where(self.positive, above * a, below * a))
        mask = torch.stack([self.mask[0], ~self.mask[1]])
        a = a.expand(self.shape)
        return self._times(a, mask, math.copysign(1.0, -self.alpha), above)

    def _call(self, alpha: float, gain: float) -> tuple:
        return self.dim, self.act, alpha, gain, -1.0 if self.clamp is None else float(self.clamp), self.backend

    def _times(self, v: Tensor, mask: Tensor, alpha: float, gain: float) -> Tensor:
        return operators.bias_act_grad(v, None, mask, None, self.stride, *self._call(alpha, gain), False)[0]
