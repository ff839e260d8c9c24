"""A pytest plugin that makes Triton's interpreter twice as fast, because repeated work is done only once.

Before a kernel runs, the interpreter replaces the built-in functions of triton.language by its own functions. It looks
at every member of the module to find them. It repeats this at every call of a function inside the kernel, although all
functions are replaced already; this takes about 30 % of the time. Here each set of modules is patched once per launch.

In the same way, the table of NumPy types is made once, and the type of a block once for each shape.

Programs of upfirdn2d run many at once: every array of the interpreter gets one more axis, in front, for the programs.
NumPy then does the work of all in one call, and each element is computed as before. The results of the interpreter do
not change.
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

# Kernels whose programs only differ by their elements: no program decides by its own numbers what to do next. A program
# of a strip makes its rows in a loop, and the last strip may have fewer: it is not together with the others.
ALIKE = ("_planar_kernel", "_channels_last_kernel", "_strip_kernel")
TOGETHER = 32  # programs at once: the arrays of a thousand elements each stay in the second-level cache


class Together(interpreter.InterpreterBuilder):
    """Every array has an axis in front for the programs, of length 1 where all programs have the same numbers.

    Those of scalars are as before: the interpreter gives a scalar an axis of length 1.
    """

    def set_grid_idx(self, x: int, y: int, z: int) -> None:
        self.programs = self.groups[x]

    def create_get_program_id(self, axis: int):
        return interpreter.TensorHandle(self.programs, tl.int32)

    def create_make_range(self, type, start: int, stop: int):
        return interpreter.TensorHandle(np.arange(start, stop, dtype=np.int32)[None], tl.int32)

    def create_splat(self, type, scalar):
        ones = (1,) * len(type.shape)
        return self.create_broadcast(self.create_reshape(scalar, ones, False), type.shape)

    def create_reshape(self, array, shape, allow_reorder):
        return super().create_reshape(array, (len(array.data), *shape), allow_reorder)

    def create_expand_dims(self, array, axis: int):
        return super().create_expand_dims(array, axis + 1)

    def create_broadcast(self, array, shape):
        return super().create_broadcast(array, (len(array.data), *shape))

    def create_masked_load(self, pointers, mask, other, *options):
        if other is None:  # tl.load of a pointer, without a mask
            return super().create_masked_load(pointers, mask, other, *options)
        return super().create_masked_load(*_of_one_shape(pointers, mask, other), *options)

    def create_masked_store(self, pointers, value, mask, *options):
        return super().create_masked_store(*_of_one_shape(pointers, value, mask), *options)


def _of_one_shape(*handles):
    arrays = np.broadcast_arrays(*(handle.data for handle in handles))
    return [interpreter.TensorHandle(array, handle.dtype) for array, handle in zip(arrays, handles, strict=True)]


def patch_once(fn) -> interpreter._LangPatchScope:
    """`_patch_lang`, but only once per launch for each set of the modules tl and tl.core that fn's globals hold."""
    seen = [value for value in fn.__globals__.values() if value is tl or value is tl.core]
    modules = tuple(any(value is module for value in seen) for module in (tl, tl.core))
    if modules in _patched:
        return interpreter._LangPatchScope()
    _patched.add(modules)
    return _patch_lang(fn)


def patch_tensor(tensor, scope) -> None:
    """`_patch_lang_tensor`, and a block of one number as an index: numpy 2.5 refuses the int() of Triton 3.6.

    Programs that run together must have the same number: they make as many rounds of a loop.
    """
    _patch_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: _the_only(self.handle.data))


def _the_only(array) -> int:
    (number,) = set(array.ravel().tolist())
    return int(number)


def groups(count: int, fn, arguments) -> list[np.ndarray]:
    """The programs of a kernel, in groups that run together."""
    programs = np.arange(count, dtype=np.int32)
    kinds = [programs]
    if fn.__name__ == "_strip_kernel":
        of = dict(zip(fn.__code__.co_varnames, arguments))
        strip = programs // (-(-of["channels"] // of["COLS"]) * of["across"]) % of["strips"]
        kinds = [programs[strip < of["strips"] - 1], programs[strip == of["strips"] - 1]]
    return [kind[i : i + TOGETHER] for kind in kinds for i in range(0, len(kind), TOGETHER)]


def launch(self, *args, **kwargs) -> None:
    _patched.clear()  # the launch before this one has removed its patches
    _block_types.clear()
    _tensors.clear()
    builder = interpreter.interpreter_builder
    if self.fn.__name__ in ALIKE:
        builder.groups = groups(*self.grid, self.fn, args)
        self.grid = (len(builder.groups),)
        builder.__class__ = Together
    try:
        _launch(self, *args, **kwargs)
    finally:
        builder.__class__ = interpreter.InterpreterBuilder


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
