"""Pickles as StyleGAN2-ADA writes them, without its code, and pickles that call what no file may call."""

import os
from collections import OrderedDict

from torch import nn

SOURCE = "open('ran', 'w')"  # the source text that every object carries; whoever runs it leaves a file


class EasyDict(dict):
    pass


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the reader must not call this")


class Persistent:
    def __init__(self, class_name, state):
        self.meta = EasyDict(type="class", version=6, module_src=SOURCE, class_name=class_name, state=state)

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self.meta,)


def persistent(module, names=None, **modules):
    """A module as a tree of persistent objects. `names` gives its children other names; `modules` are more children."""
    children = {name: persistent(child) for name, child in module.named_children()}
    if names is not None:
        children = {names[name]: child for name, child in children.items() if name in names}
    state = {key: value for key, value in vars(module).items() if not callable(value)}
    return Persistent(type(module).__name__, state | {"_modules": OrderedDict(children | modules)})


def container(class_name, modules, **buffers):
    """A persistent module with these children and buffers."""
    state = vars(nn.Module()) | {"_modules": OrderedDict(modules), "_buffers": OrderedDict(buffers)}
    return Persistent(class_name, state)


class Calls:
    """An object whose pickle calls `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


BOMBS = {
    "system": (Calls(os.system, "touch ran"), f"{os.system.__module__}.system"),
    "eval": (Calls(eval, "open('ran', 'w')"), "eval"),
    "exec": (Calls(exec, "open('ran', 'w')"), "exec"),
    "import": (Calls(__import__, "antigravity"), "__import__"),
    "open": (Calls(open, "ran", "w"), "open"),
    "getattr": (Calls(getattr, {}, "pop"), "getattr"),
}
