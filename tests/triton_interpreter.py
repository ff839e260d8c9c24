"""A pytest plugin: Triton's interpreter in two thirds of its time, by leaving out what it does over and over.

Before a kernel runs, the interpreter replaces the built-in functions of triton.language by its own, which it finds by
looking at every member of the module. It does so anew at every call of a function inside the kernel, also those of a
loop, where all of them are replaced already: some 30 % of the time. Here each set of modules is patched once
a launch. Nor is its table of NumPy's types made anew for every array. What is interpreted, and how, stays as it is.
"""

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_patch_lang = interpreter._patch_lang
_launch = interpreter.GridExecutor.__call__
_patched: set[tuple[bool, ...]] = set()
_get_np_dtype = interpreter._get_np_dtype
_np_dtypes: dict[str, np.dtype] = {}


def patch_once(fn) -> interpreter._LangPatchScope:
    """As `_patch_lang`, which looks for these two modules among the globals of fn."""
    seen = [value for value in fn.__globals__.values() if value is tl or value is tl.core]
    modules = tuple(any(value is module for value in seen) for module in (tl, tl.core))
    if modules in _patched:
        return interpreter._LangPatchScope()
    _patched.add(modules)
    return _patch_lang(fn)


def launch(self, *args, **kwargs) -> None:
    _patched.clear()  # the one before took its patches back
    _launch(self, *args, **kwargs)


def np_dtype(dtype: tl.dtype) -> np.dtype:
    scalar = dtype.scalar
    if scalar.name not in _np_dtypes:
        _np_dtypes[scalar.name] = _get_np_dtype(scalar)
    return _np_dtypes[scalar.name]


interpreter._get_np_dtype = np_dtype
interpreter._patch_lang = patch_once
interpreter.GridExecutor.__call__ = launch
