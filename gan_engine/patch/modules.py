"""Layers of a network: ask the rules, compare with the original, and swap the class of the instance."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from gan_engine.patch import pytorch, rosinality, stylegan
from gan_engine.patch.calls import forget, rebound
from gan_engine.patch.probe import apart, difference, own_random_numbers, subclass
from gan_engine.patch.rule import Layer, Rule
from gan_engine.patch.table import Patch, Row, Swap

# The first rule that knows a layer decides. Rules of a whole layer come before rules of its parts.
RULES: tuple[Rule, ...] = (*stylegan.RULES, *rosinality.RULES, *pytorch.RULES)


@apart()
def patch_calls(network: nn.Module) -> Patch:
    """Patch the calls of functions alone, of all layers of this instance."""
    done = Patch()
    forget()
    for name, layer in network.named_modules():
        found = None if _is_hooked_forward(layer) else rebound(layer)
        if found is not None:
            done.rows.append(Row(name, type(layer).__qualname__, True, found.note))
            done.swaps.append(_swap(layer, found.methods))
    return done.do()


@apart()
@own_random_numbers(2)  # of the inputs, which the rules draw
def patch_network(network: nn.Module) -> Patch:
    """Patch this instance. Layers inside of a whole layer that replaces them are left out."""
    if any(is_lazy(p) for p in network.parameters()):
        raise ValueError("patch: want a network whose parameters have shapes, got lazy layers: call it once before")
    done = Patch()
    forget()
    inside: set[int] = set()  # layers that a whole layer around them replaces
    for name, layer in network.named_modules():
        if id(layer) in inside or isinstance(layer, ParametrizationList):  # which only makes a weight of its layer
            continue
        kind = type(layer).__qualname__
        with _at_rest(layer):
            found, why = _known(layer)
        if found is None:
            if why is not None:
                done.rows.append(Row(name, kind, False, why))
            continue
        done.rows.append(Row(name, kind, True, found.note))
        done.swaps.append(_swap(layer, found.methods))
        inside |= {id(part) for part in found.covers}
    return done.do()


@contextlib.contextmanager
def _at_rest(layer: nn.Module) -> Iterator[None]:
    """Inside, no part trains: a spectral norm that trains changes its buffers each time that a weight is read."""
    trains = {part: part.training for part in layer.modules()}
    for part in trains:
        part.training = False
    try:
        yield
    finally:
        for part, training in trains.items():
            part.training = training


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
    # A parametrization, such as a spectral norm, puts a class of its own on that of the layer. It may do so, and take
    # its class away, with or without the patch.
    original = type(layer).__bases__[0] if is_parametrized(layer) else type(layer)
    replaced = _patched(original, methods)
    return Swap(lambda: _exchange(layer, original, replaced), lambda: _exchange(layer, replaced, original))


def _exchange(layer: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> None:
    kind = type(layer)
    if kind is not old:
        if kind.__bases__ != (old,):
            return  # somebody else has changed the class since
        names = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
        new = type(kind)(kind.__name__, (new,), names)
    object.__setattr__(layer, "__class__", new)


def _patched(original: type[nn.Module], methods: dict[str, Callable]) -> type[nn.Module]:
    """A class of the same name with other methods. Deep copies keep it; pickles hold the original class."""

    def reduce(self: nn.Module, protocol: Any) -> Any:
        if type(self) is not replaced:  # a parametrized layer, which PyTorch refuses
            return original.__reduce_ex__(self, protocol)
        plain = original.__new__(original)
        object.__setattr__(plain, "__dict__", self.__dict__)
        return plain.__reduce_ex__(1)  # later protocols ask for the class that the object has

    def deepcopy(self: nn.Module, memo: dict) -> nn.Module:
        kind = type(self)
        object.__setattr__(self, "__class__", original)  # so that references to itself lead to the copy
        try:
            copied = copy.deepcopy(self, memo)
        finally:
            object.__setattr__(self, "__class__", kind)
        object.__setattr__(copied, "__class__", kind)
        return copied

    kept = {"__reduce_ex__": reduce, "__deepcopy__": deepcopy, "_gan_engine_original": original}
    replaced = subclass(original, kept | methods)
    return replaced
