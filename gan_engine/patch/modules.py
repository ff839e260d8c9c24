"""Layers of a network: ask the rules, compare with the original, and swap the class of the instance."""

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from gan_engine.patch import pytorch, rosinality, stylegan
from gan_engine.patch.calls import rebound
from gan_engine.patch.probe import difference, own_random_numbers
from gan_engine.patch.rule import Layer, Rule
from gan_engine.patch.table import Patch, Row, Swap

# The first rule that knows a layer decides. Rules of a whole layer come before rules of its parts.
RULES: tuple[Rule, ...] = (*stylegan.RULES, *rosinality.RULES, *pytorch.RULES)


def patch_calls(network: nn.Module) -> Patch:
    """Patch the calls of functions alone, of all layers of this instance."""
    done = Patch()
    for name, layer in network.named_modules():
        found = None if _is_hooked_forward(layer) else rebound(layer)
        if found is not None:
            done.rows.append(Row(name, type(layer).__qualname__, True, found.note))
            done.swaps.append(_swap(layer, found.methods))
    return done.do()


@own_random_numbers(2)  # of the inputs, which the rules draw
def patch_network(network: nn.Module) -> Patch:
    """Patch this instance. Layers inside of a whole layer that replaces them are left out."""
    done = Patch()
    inside: set[int] = set()  # layers that a whole layer around them replaces
    for name, layer in network.named_modules():
        if id(layer) in inside:
            continue
        kind = type(layer).__qualname__
        found, why = _known(layer)
        if found is None:
            if why is not None:
                done.rows.append(Row(name, kind, False, why))
            continue
        done.rows.append(Row(name, kind, True, found.note))
        done.swaps.append(_swap(layer, found.methods))
        inside |= {id(part) for part in found.covers}
    return done.do()


def _known(layer: nn.Module) -> tuple[Layer | None, str | None]:
    """What replaces the layer, or why nothing does. (None, None): the layer has no work of its own."""
    if _is_hooked_forward(layer):
        return None, "its forward pass was replaced already"
    why = None
    for rule in RULES:
        for candidate in rule(layer):
            if isinstance(candidate, str):
                why = why or candidate
                continue
            why = difference(layer, candidate)
            if why is None:
                return candidate, None
    found = rebound(layer)
    if found is not None:
        return found if why is None else found._replace(note=f"{found.note}; not as a whole: {why}"), None
    if why is None and any(True for _ in layer.parameters(recurse=False)):
        why = "no structure that is known"
    return None, why


def _is_hooked_forward(layer: nn.Module) -> bool:
    return "forward" in vars(layer) or hasattr(type(layer), "_gan_engine_original")


def _swap(layer: nn.Module, methods: dict[str, Callable]) -> Swap:
    original = type(layer)
    replaced = subclass(original, methods)
    return Swap(
        lambda: object.__setattr__(layer, "__class__", replaced),
        lambda: object.__setattr__(layer, "__class__", original),
    )


def subclass(original: type[nn.Module], methods: dict[str, Callable]) -> type[nn.Module]:
    """A class of the same name with other methods. Deep copies keep it; pickles hold the original class."""

    def as_original(self: nn.Module) -> nn.Module:
        plain = original.__new__(original)
        object.__setattr__(plain, "__dict__", self.__dict__)
        return plain

    def reduce(self: nn.Module, protocol: Any) -> Any:
        return as_original(self).__reduce_ex__(1)  # later protocols ask for the class that the object has

    def deepcopy(self: nn.Module, memo: dict) -> nn.Module:
        copied = copy.deepcopy(as_original(self), memo)
        object.__setattr__(copied, "__class__", type(self))
        memo[id(self)] = copied
        return copied

    names = {name: getattr(original, name) for name in ("__module__", "__qualname__", "__doc__")}
    kept = {"__reduce_ex__": reduce, "__deepcopy__": deepcopy, "_gan_engine_original": original}
    return type(original)(original.__name__, (original,), names | kept | methods)
