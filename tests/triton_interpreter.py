"""A pytest plugin that makes Triton's interpreter twice as fast, because repeated work is done only once.

Before a kernel runs, the interpreter replaces the built-in functions of triton.language by its own functions. It looks
at every member of the module to find them. It repeats this at every call of a function inside the kernel, although all
functions are replaced already; this takes about 30 % of the time. Here each set of modules is patched once per launch.

In the same way, the table of NumPy types is made once, and the type of a block once for each shape. The results of the
interpreter do not change.
"""

import numpy as np
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

_patch_lang = interpreter._patch_lang
_patch_tensor = interpreter._patch_lang_tensor
_launch = interpreter.GridExecutor.__call__
_patched: set[tuple[bool, ...]] = set()
_get_np_dtype = interpreter._get_np_dtype
_np_dtypes: dict[str, np.dtype] = {}
_make_block_type = tl.block_type.__init__
_block_types: dict[tuple[int, ...], tl.block_type] = {}
_make_tensor = tl.tensor.__init__
_tensors: dict[int, dict[str, object]] = {}
_broadcast = TritonSemantic.broadcast_impl_value


def patch_once(fn) -> interpreter._LangPatchScope:
    """`_patch_lang`, but only once per launch for each set of the modules tl and tl.core that fn's globals hold."""
    seen = [value for value in fn.__globals__.values() if value is tl or value is tl.core]
    modules = tuple(any(value is module for value in seen) for module in (tl, tl.core))
    if modules in _patched:
        return interpreter._LangPatchScope()
    _patched.add(modules)
    return _patch_lang(fn)


def patch_tensor(tensor, scope) -> None:
    """`_patch_lang_tensor`, and a block of one number as an index: numpy 2.5 refuses the int() of Triton 3.6."""
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))


def launch(self, *args, **kwargs) -> None:
    _patched.clear()  # the launch before this one has removed its patches
    _block_types.clear()
    _tensors.clear()
    _launch(self, *args, **kwargs)


def np_dtype(dtype: tl.dtype) -> np.dtype:
    scalar = dtype.scalar
    if scalar.name not in _np_dtypes:
        _np_dtypes[scalar.name] = _get_np_dtype(scalar)
    return _np_dtypes[scalar.name]


def block_type(cls, element_ty, shape):
    """The block type of this element type and shape, made once. It keeps the element type alive, and so its id."""
    key = id(element_ty), *(getattr(n, "value", n) for n in shape)
    if key not in _block_types:
        made = object.__new__(cls)
        _make_block_type(made, element_ty, shape)
        _block_types[key] = made
    return _block_types[key]


def tensor(self, handle, type) -> None:
    """Set the fields of a tensor. All fields but the handle are the same for every tensor of a type."""
    if id(type) not in _tensors:
        _make_tensor(self, None, type)
        _tensors[id(type)] = self.__dict__.copy()
    self.__dict__.update(_tensors[id(type)], handle=handle)


def broadcast(self, lhs, rhs):
    """Return two blocks of the same shape unchanged; Triton's own function broadcasts the others."""
    a, b = lhs.type, rhs.type
    same = a.is_block() and b.is_block() and a.shape.values == b.shape.values
    return (lhs, rhs) if same else _broadcast(self, lhs, rhs)


tl.block_type.__new__ = block_type
tl.block_type.__init__ = lambda self, element_ty, shape: None  # __new__ has done this
tl.tensor.__init__ = tensor
TritonSemantic.broadcast_impl_value = broadcast
interpreter._get_np_dtype = np_dtype
interpreter._patch_lang = patch_once
interpreter._patch_lang_tensor = patch_tensor
interpreter.GridExecutor.__call__ = launch
