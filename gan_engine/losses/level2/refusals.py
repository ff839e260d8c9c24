"""The error that refuses a discriminator, and the memory of refusals, so that a refused D is tried once."""

import functools
import math
import types
import weakref
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gan_engine.losses.network import Network, modules_of
from gan_engine.losses.outputs import Picked


class NotPiecewiseLinear(Exception):
    """D is not known to be piecewise linear for each sample by itself. The message is a sentence, with the layer."""


Instead = Literal[1, "autograd", "small"]

# For each D: the states in which level 2 is not for it, what is, and for up to how many images. "small" is level
# "autograd" of a D that level 2 holds for.
_refused: weakref.WeakKeyDictionary[Any, dict[tuple, tuple[Instead, float]]] = weakref.WeakKeyDictionary()

_MOST_STATES = 64  # a D whose state differs in every step would fill the memory


def remember(D: Network, img: Tensor, c: Any, instead: Instead, **asked: Any) -> None:
    """Remember the level that D takes instead of level 2 in its present state, for what `level_instead` is asked."""
    if (owner := _owner(D)) is not None:
        states = _refused.setdefault(owner, {})
        if len(states) >= _MOST_STATES:
            states.clear()
        states[_state(D, img, c, **asked)] = instead, math.inf if instead == 1 else len(img)


def level_instead(
    D: Network, img: Tensor, c: Any = None, *, with_loss: bool = True, picked: Picked = None
) -> Instead | None:
    """1 or "autograd" if D was refused in its present state, "small" if it was, for a step with a loss or without one.

    The state holds the modules of D, their modes, their hooks, which parameters require gradients, and attributes that
    are strings, truth values or None. It also holds the shape and dtype of the images. A function that is made anew for
    each call is known by its code and by the modules that it refers to.
    """
    owner = _owner(D)
    states = _refused.get(owner) if owner is not None else None
    instead, n = states.get(_state(D, img, c, with_loss, picked), (None, 0)) if states else (None, 0)
    return instead if len(img) <= n else None


def forget_all() -> None:
    """Forget all refusals, because a rule has changed."""
    _refused.clear()


def _owner(D: Network) -> Any:
    """The object that a refusal of D is kept for: a module, or the code of a function. None if D is neither."""
    while isinstance(D, functools.partial | types.MethodType):
        D = D.func if isinstance(D, functools.partial) else D.__func__
    return D if isinstance(D, nn.Module) else getattr(D, "__code__", None)


def _state(D: Network, img: Tensor, c: Any, with_loss: bool = True, picked: Picked = None) -> tuple:
    asked = with_loss, getattr(picked, "__code__", type(picked))
    given = img.shape[1:], img.dtype, type(c), torch.is_autocast_enabled(img.device.type), *asked
    return given, tuple(map(_state_of, modules_of(D)))


def _state_of(module: nn.Module) -> tuple:
    held = vars(module)  # in few calls: every step of a refused D asks
    attributes = tuple([value for value in held.values() if isinstance(value, _TOLD)])
    learned = tuple([p is not None and p.requires_grad for p in module._parameters.values()])
    hooks = [*held["_forward_pre_hooks"], 0, *held["_forward_hooks"], 0, *held["_backward_pre_hooks"], 0]
    return id(module), type(module), attributes, learned, *hooks, *held["_backward_hooks"]


_TOLD = bool, str, type(None)  # types of attributes that tell one state of a module from another
