"""The tape of a recorded forward pass: its steps, in the order in which D ran them.

A tensor of the pass has a number, its slot. The images are in slot 0. A step leads from slots to slots, and is linear
once the slopes of its activations are fixed. README.md has the formulas whose letters stand here.
"""

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from gan_engine.losses.level2.refusals import NotPiecewiseLinear


class Tape:
    """The steps that D has run on images of batch size `n`."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.steps: list[Step] = []
        self.slots = 1
        self.products = 0  # how many multiply-adds the steps have made, about
        self.traced: list[weakref.ref] = []  # every traced tensor that D was given

    def record(self, step: "Step", values: tuple[Tensor, ...]) -> None:
        """Add `step`, whose results are `values`. Refuse values that are no batches of floating-point numbers."""
        for value in values:
            if not value.is_floating_point():
                raise NotPiecewiseLinear(f"a conversion to {value.dtype} is not linear")
            if value.ndim == 0 or value.shape[0] != self.n:
                raise NotPiecewiseLinear(
                    f"the batch must stay in dimension 0, but of {self.n} samples it made a tensor {list(value.shape)}"
                )
        step.results = list(range(self.slots, self.slots + len(values)))
        self.slots += len(values)
        step.write_counts = {id(t): write_count(t) for t in step.tensors_read()}
        self.products += step.products(values)
        self.steps.append(step)

    def steps_behind(self, slots: Iterable[int]) -> list["Step"]:
        """The steps that the tensors in `slots` depend on, in their order. The tape is empty afterwards.

        A step needs the tangents of its results where another weight is behind them: tangents end at the last weight.
        """
        found, self.steps = behind(self.steps, slots), []
        read = set()
        for step in reversed(found):
            step.needs_tangent = not read.isdisjoint(step.results)
            if step.reads_tangents:
                read.update(step.sources)
        return found


def behind(steps: Sequence["Step"], slots: Iterable[int]) -> list["Step"]:
    """Those of `steps` that the tensors in `slots` depend on, in their order."""
    wanted, found = set(slots), []
    for step in reversed(steps):
        if wanted.intersection(step.results):
            wanted.update(step.sources)
            found.append(step)
    return found[::-1]


@dataclass(eq=False)
class Step:
    """results = a function of sources, weights and offsets, linear in the sources once the slopes are fixed.

    A weight multiplies a source. An offset is added, as a bias is, or a constant that D adds to an activation.
    """

    sources: list[int]
    results: list[int] = field(default_factory=list, init=False)
    write_counts: dict[int, int] = field(default_factory=dict, init=False)  # of the tensors read, by their id
    needs_tangent: bool = field(
        default=True, init=False
    )  # whether the tangents of the results are read by a later step
    delta: Tensor | None = field(default=None, init=False)  # the gradient of the logits by the result

    result_is_fresh: ClassVar[bool] = False  # the result is memory that no other tensor shows
    gradient_is_fresh: ClassVar[bool] = False  # and so is the gradient by the source

    @property
    def reads_tangents(self) -> bool:
        """True if the step needs the tangents of its sources."""
        return self.needs_tangent

    def weights_and_offsets(self) -> tuple[Sequence[Tensor | None], Sequence[Tensor | None]]:
        return (), ()

    def products(self, values: tuple[Tensor, ...]) -> int:
        """About how many multiply-adds have made the results `values`."""
        return sum(value.numel() for value in values)

    def learned(self) -> tuple[list[Tensor], list[Tensor]]:
        """The weights and the offsets that require gradients."""
        weights, offsets = self.weights_and_offsets()
        return requiring_gradients(*weights), requiring_gradients(*offsets)

    def tensors_read(self, *, offsets: bool = True) -> list[Tensor]:
        """The tensors that `tangent` reads. Offsets are read only where there is a loss."""
        weights, added = self.weights_and_offsets()
        return [t for t in (*weights, *(added if offsets else ())) if t is not None]

    def tensor_written_to(self, *, offsets: bool = True) -> Tensor | None:
        """A tensor that `tangent` reads and that has been written to since the step was recorded, or None."""
        read = self.tensors_read(offsets=offsets)
        return next((t for t in read if write_count(t) != self.write_counts[id(t)]), None)

    def backward(self, deltas: list[Tensor | None], may_overwrite: bool) -> tuple:
        """The gradients of the logits by the sources, for `deltas`, those by the results.

        `may_overwrite`: no other step reads the memory of `deltas`.
        """
        raise NotImplementedError

    def tangent(self, sources: list[Tensor], a: Tensor | None, may_overwrite: bool, grads: "Gradients") -> tuple:
        """The tangents of the results for those of the sources, or () where `needs_tangent` is false.

        The gradients of weights and offsets are added to `grads`. `a` [N] is the gradient of the loss by the logits;
        None: there is no loss. `may_overwrite`: no other step reads the memory of `sources`.
        """
        raise NotImplementedError


class Gradients(dict[int, Tensor]):
    """The gradient of each parameter, by the id of the parameter: the sum over all steps that read the parameter."""

    def add(self, parameter: Tensor, grad: Tensor) -> None:
        before = self.get(id(parameter))
        self[id(parameter)] = grad if before is None else before + grad


def write_count(x: Tensor) -> int:
    """How often x has been written to. PyTorch does not count it for tensors of torch.inference_mode(): 0."""
    return 0 if x.is_inference() else x._version


def only_readers(steps: list[Step]) -> dict[int, Step]:
    """{slot: its reader} of the slots that exactly one step reads."""
    readers: dict[int, Step | None] = {}
    for step in steps:
        for slot in step.sources:
            readers[slot] = None if slot in readers else step
    return {slot: step for slot, step in readers.items() if step is not None}


def requiring_gradients(*tensors: Tensor | None) -> list[Tensor]:
    return [t for t in tensors if t is not None and t.requires_grad]
