"""What is known of a discriminator from its earlier steps, for as long as its structure stays the same.

A search for compiled parts, and a watch for attention, take a tenth of a millisecond of every step. A small D has two
milliseconds for all of it.
"""

import functools
import types
import weakref
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as every_module

from gan_engine.losses.network import Network, names_in, parts_of, why_refused
from gan_engine.losses.outputs import Picked

# Functions that ClosedOps replaces at level "autograd".
_ATTENTION = frozenset(("scaled_dot_product_attention", "multi_head_attention_forward"))


class Known:
    """Facts of a module D with the structure `structure`.

    Attributes:
        refused: why D is refused as compiled or sharded, or None.
        without_attention: D called no attention when it was watched, and no code of its modules names any.
        of_pytorch: all modules of D are of torch.nn, so no attribute of them decides what is called.
        small: the steps, as `asked` names them, for which D is small: autograd on PyTorch's functions is the fastest.
        settled: (step, whether its level is None) for which `small` and `without_attention` have been found out.
    """

    def __init__(self, D: nn.Module, structure: tuple) -> None:
        self.structure, self._types = structure, {type(part) for part in D.modules()}
        self.refused = why_refused(D)
        self.without_attention = False
        self.of_pytorch = all(of.__module__.startswith("torch.nn.") for of in self._types)
        self.small: set[tuple] = set()
        self.settled: set[tuple] = set()

    def saw_no_attention(self) -> None:
        """Note that D has run, watched, without a call of attention."""
        self.without_attention = not any(map(_names_attention, self._types))


# By id(D), with a reference that says whether D is still there: a WeakKeyDictionary takes three calls to look it up.
_known: dict[int, tuple[weakref.ref[nn.Module], Known]] = {}


def known(D: Network) -> Known | None:
    """What is known of D in its present structure. None for a function, and where a module is compiled or has a
    `forward` of its own.

    The structure holds the modules of D, their types, their modes and their forward hooks.
    """
    net = D if isinstance(D, nn.Module) else module_of(D)
    if net is None or (structure := _structure(net)) is None:
        return None
    found = _known.get(id(net))
    if found is None or found[0]() is not net or found[1].structure != structure:
        name = id(net)
        found = _known[name] = weakref.ref(net, functools.partial(_forget, name)), Known(net, structure)
    return found[1]


def _forget(name: int, of: weakref.ref) -> None:
    """Forget the module of id `name` with the reference `of`, unless another module has the id already."""
    if name in _known and _known[name][0] is of:
        del _known[name]


def module_of(D: Network) -> nn.Module | None:
    """The module that D is, or that D calls with arguments bound to it, if those hold no functions or modules."""
    if isinstance(D, functools.partial) and not any(map(callable, (*D.args, *D.keywords.values()))):
        D = D.func
    return D if isinstance(D, nn.Module) else None


def asked(img: Tensor, *, with_loss: bool, picked: Picked, autocast: bool) -> tuple:
    """What decides beside D which level its step takes. `autocast`: whether it is in force."""
    return img.shape, img.dtype, with_loss, getattr(picked, "__code__", type(picked)), autocast


def _structure(net: nn.Module) -> tuple | None:
    found: list[Any] = [*every_module._global_forward_hooks, *every_module._global_forward_pre_hooks]
    waiting = [net]
    for part in waiting:  # a module that is shared comes twice
        held = part.__dict__
        if "_modules" not in held:  # what torch.jit.trace makes keeps its modules elsewhere
            return None
        found += id(part), type(part), part.training
        if held["_forward_hooks"] or held["_forward_pre_hooks"]:
            found += *held["_forward_hooks"], *held["_forward_pre_hooks"]
        if held.get("_compiled_call_impl") is not None or "forward" in held or len(waiting) > _MOST_MODULES:
            return None
        if held["_modules"]:
            waiting += [module for module in held["_modules"].values() if module is not None]
    return tuple(found)


_MOST_MODULES = 10_000  # a module that holds itself has no end


@functools.lru_cache(maxsize=256)
def _names_attention(of: type) -> bool:
    """True if a method of the class, or a function that such a method refers to, names attention."""
    bases = of.__mro__[: of.__mro__.index(nn.Module)]
    methods = [value for base in bases for value in vars(base).values() if isinstance(value, types.FunctionType)]
    functions = (part for method in methods for part in (method, *parts_of(method)))
    return any(
        not _ATTENTION.isdisjoint(names_in(part.__code__)) for part in functions if isinstance(part, types.FunctionType)
    )
