"""Tables of names: which tensor of a foreign network is which tensor of ours, and what form it has there."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_engine.system.names import listed

Weights = dict[str, Tensor]


class LayoutError(ValueError):
    """A foreign network that none of ours can hold, or ours that has no place there. The message says what differs."""


class Pair(NamedTuple):
    """One tensor under both names.

    Attributes:
        ours, theirs: the names.
        flip: the taps of a convolution are in reverse order there.
        give: the form there, from the form here. The way back is a reshape: both differ in axes of length 1 at most.
    """

    ours: str
    theirs: str
    flip: bool = False
    give: Callable[[Tensor], Tensor] = torch.Tensor.clone


def hollow(kind: Callable[[Any], nn.Module], sizes: Any) -> nn.Module:
    """A network without numbers: a file may name sizes that no memory holds, as long as no tensor has them."""
    with torch.device("meta"):
        return kind(sizes)


def take(pairs: Iterable[Pair], theirs: Weights, network: nn.Module, what: str) -> Weights:
    """The weights of our `network` from `theirs`.

    `network` may be `hollow`. Raises LayoutError for a tensor that is missing there, that has another shape, or that
    ours has no place for.
    """
    wanted, left, taken = network.state_dict(), dict(theirs), {}
    for pair in pairs:
        if pair.theirs not in left:
            raise LayoutError(f"{what}: want {pair.theirs}, got no tensor of that name")
        x, y = left.pop(pair.theirs), wanted.pop(pair.ours)
        if not isinstance(x, Tensor):
            raise LayoutError(f"{what}: want a tensor in {pair.theirs}, got {type(x).__name__}")
        if [n for n in x.shape if n != 1] != [n for n in y.shape if n != 1]:
            raise LayoutError(f"{what}: want {pair.theirs} of {list(y.shape)}, got {list(x.shape)}")
        if x.dtype.is_floating_point != y.dtype.is_floating_point:
            raise LayoutError(f"{what}: want {pair.theirs} in {y.dtype}, got {x.dtype}")
        if not x.isfinite().all():
            raise LayoutError(f"{what}: want finite numbers in {pair.theirs}, got NaN or infinite ones")
        x = x.to(y.dtype).reshape(y.shape)
        taken[pair.ours] = x.flip([2, 3]) if pair.flip else x.clone()
    if left:
        raise LayoutError(f"{what}: our network has no place for {listed(list(left))}")
    if wanted:
        raise LayoutError(f"{what}: nothing there for our {listed(list(wanted))}")
    return {name: taken[name] for name in network.state_dict()}


def give(pairs: Iterable[Pair], ours: Weights) -> Weights:
    """`ours` under the names there, in the forms there."""
    return {pair.theirs: pair.give(ours[pair.ours].flip([2, 3]) if pair.flip else ours[pair.ours]) for pair in pairs}


def without(
    weights: Weights,
    buffers: Callable[[str], bool],
    expected: Callable[[str], Tensor],
    what: str,
    named: str = "[1, 3, 3, 1]",
) -> Weights:
    """`weights` without the `buffers` of filters, which must be as `expected`. Raises LayoutError for other filters.

    `named` is the expected filter in messages.
    """
    for name in filter(buffers, weights):
        want, got = expected(name), weights[name]
        if got.shape != want.shape or not torch.allclose(got.float(), want, atol=1e-5):
            raise LayoutError(f"{what}: want the filter {named} in {name}, got {_taps(got)}")
    return {name: x for name, x in weights.items() if not buffers(name)}


def _taps(x: Tensor) -> Any:
    row = x if x.ndim == 1 else x.flatten(0, -2).sum(0)
    return [round(float(tap), 4) for tap in row[:12]]


def numbered(weights: Iterable[str], pattern: str) -> int:
    """How many names `pattern` has in `weights`, with {} as 0, 1, 2, ..."""
    names, number = set(weights), 0
    while pattern.format(number) in names:
        number += 1
    return number
