"""The contract that all phases of training keep: the work that is left after the forward pass."""

import functools
import operator
from collections.abc import Iterable
from typing import Protocol

from torch import Tensor


class Step(Protocol):
    """One pass of a phase over a part of a batch, which waits for its backward pass."""

    def backward(self, scale: float | Tensor) -> dict[str, Tensor]:
        """Add the gradients of scale * (sum of the means of the terms) to .grad; may be called once.

        Args:
            scale: the share of this pass in the loss, times the loss scale of fp16.

        Returns:
            The terms {name: [N]} without their scale and without a graph.
        """


def total(values: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor. The sum of Python begins with 0, which is one more launch on a GPU."""
    return functools.reduce(operator.add, values)


class TermsStep:
    """A step whose terms {name: [N]} have a graph, which autograd follows back."""

    def __init__(self, terms: dict[str, Tensor]) -> None:
        self.terms = terms

    def backward(self, scale: float | Tensor) -> dict[str, Tensor]:
        (total(values.mean() for values in self.terms.values()) * scale).backward()
        return {name: values.detach() for name, values in self.terms.items()}
