"""What a rule says about a layer."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from torch import nn


def _as_it_is(layer: nn.Module) -> None:
    """No change"""


class Layer(NamedTuple):
    """A candidate for a layer of other people.

    Attributes:
        note: what it runs on, for the table.
        methods: the methods of its class that change, such as {"forward": f}; f takes `self` first.
        inputs: makes the inputs of each comparison with the original: (args, kwargs), in float64.
        covers: the layers inside it that `methods` replace as well.
        prepare: makes the copy of the layer smaller, for the comparison alone.
    """

    note: str
    methods: dict[str, Callable]
    inputs: Callable[[], list[tuple[tuple, dict[str, Any]]]]
    covers: tuple[nn.Module, ...] = ()
    prepare: Callable[[Any], object] = _as_it_is


# The candidates for a layer, best first, or sentences that say why a layer of a known kind has none.
Rule = Callable[[nn.Module], Iterable[Layer | str]]


def arguments_of(layer: nn.Module) -> tuple[str, ...]:
    """The names of the arguments of its forward pass."""
    return tuple(inspect.signature(type(layer).forward).parameters)[1:]


def by_position(layer: nn.Module, forward: Callable[..., Any], count: int) -> Callable:
    """`forward` of the first `count` arguments of the layer, by position or by name; the original takes other calls."""
    original, names = type(layer).forward, arguments_of(layer)[:count]

    def called(self, *args, **named):
        if len(args) > count or named.keys() - names:
            return original(self, *args, **named)
        given = dict(zip(names, args)) | named
        return forward(self, *(given.get(name) for name in names))

    return called


def has(layer: nn.Module, *names: str) -> bool:
    return all(hasattr(layer, name) for name in names)
