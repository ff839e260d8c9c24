"""A layer whose forward pass calls functions that have a face: the same code, calling the faces."""

import dis
import inspect
from collections.abc import Callable
from functools import cache
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from torch import nn

from gan_engine.patch.functions import face_for
from gan_engine.patch.rule import Layer


def rebound(layer: nn.Module) -> Layer | None:
    """The layer with its own forward pass, in which the names of functions stand for their faces."""
    forward = type(layer).forward
    if not inspect.isfunction(forward) or (forward.__module__ or "").partition(".")[0] in ("torch", "gan_engine"):
        return None
    found, names = _with_faces(forward)
    if not names:
        return None
    return Layer(f"its forward pass calls {', '.join(names)} of gan_engine.compat", {"forward": found}, list)


def forget() -> None:
    """Read the globals of each forward pass again: other ones may be in them since the last patch."""
    _with_faces.cache_clear()


@cache
def _with_faces(forward: FunctionType) -> tuple[FunctionType, tuple[str, ...]]:
    """The function with other globals, and the names of the faces that it calls, with a remark on some."""
    used = set(forward.__code__.co_names)
    if any(instruction.opname == "STORE_GLOBAL" for instruction in dis.get_instructions(forward)):
        return forward, ()
    changed: dict[str, Any] = {}
    names: list[str] = []
    for name in used & forward.__globals__.keys():
        value = forward.__globals__[name]
        if inspect.isfunction(value):
            faces, told = _faces({name: value})
            changed |= faces
        elif isinstance(value, ModuleType) and value.__name__.partition(".")[0] not in ("torch", "gan_engine"):
            faces, told = _faces({key: vars(value)[key] for key in used & vars(value).keys()})
            if faces:
                changed[name] = SimpleNamespace(**vars(value) | faces)
        else:
            continue
        names += told
    parts = forward.__code__, forward.__globals__ | changed, forward.__name__, forward.__defaults__
    rebuilt = FunctionType(*parts, forward.__closure__)
    rebuilt.__kwdefaults__ = forward.__kwdefaults__
    return rebuilt, tuple(sorted(names))


def _faces(values: dict[str, Any]) -> tuple[dict[str, Callable], list[str]]:
    faces, told = {}, []
    for name, value in values.items():
        face, why = face_for(value) if inspect.isfunction(value) else (None, None)
        if face is not None:
            faces[name] = face
            told.append(f"{name} ({why})" if why else name)
    return faces, told
