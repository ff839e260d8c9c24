"""A pytest plugin that makes Triton's interpreter several times as fast, because repeated work is done only once.

Before a kernel runs, the interpreter replaces the built-in functions of triton.language by its own functions, looks at
every member of the module to find them, and takes them back behind the kernel. It repeats this at every call of a
function inside the kernel. Here each set of modules is patched once, and stays so.

In the same way, the table of NumPy types is made once, and the type of a block once for each shape. Operators of two
blocks whose types leave nothing to convert go to NumPy at once. Sums of integers are not computed a second time in 64
bits, for an assertion of overflow that the interpreter then leaves out.

Programs of a kernel run many at once: every array of the interpreter gets one more axis, in front, for the programs.
NumPy then does the work of all in one call, and each element is computed as before. NumPy also reads memory, several
times as fast as the interpreter. The results of the interpreter do not change: tests/ops/test_triton_interpreted.py
compares their bits.
"""

import dataclasses
import types
from collections.abc import Callable

import numpy as np
import triton.language as tl
from triton.language.semantic import TritonSemantic
from triton.runtime import interpreter

_patch_lang = interpreter._patch_lang
_patch_tensor = interpreter._patch_lang_tensor
_launch = interpreter.GridExecutor.__call__
_patched: set[tuple[bool, ...]] = set()
_nothing = interpreter._LangPatchScope()
_seen: set[Callable] = set()
_get_np_dtype = interpreter._get_np_dtype
_np_dtypes: dict[str, np.dtype] = {}
_make_block_type = tl.block_type.__init__
_block_types: dict[tuple[int, ...], tl.block_type] = {}
_make_tensor = tl.tensor.__init__
_tensors: dict[int, dict[str, object]] = {}
_broadcast = TritonSemantic.broadcast_impl_value
_cast = TritonSemantic.cast
_cast_impl = interpreter.InterpreterBuilder.cast_impl
_sum = interpreter.ReduceOps.sum
_load = interpreter.InterpreterBuilder.create_masked_load
_check = interpreter.TensorHandle.__post_init__
_pairs: dict[tuple[int, int], tuple] = {}
_getitem = tl.tensor.__getitem__
_WHOLE = slice(None)
_expanded: dict[tuple[int, tuple[bool, ...]], tuple] = {}
_numbers: dict[tuple[float, str], np.ndarray] = {}

# Kernels whose programs only differ by their elements: no program decides by its own numbers what to do next. A program
# of a strip makes its rows in a loop, and the last strip may have fewer: it is not together with the others. The tiles
# that a program of bias_act's gradient sums are those of its slot: the programs of a slot are together.
ALIKE = {"_planar_kernel", "_channels_last_kernel", "_strip_kernel", "_kernel", "_mix_kernel", "_forward_kernel"}
ALIKE |= {"_backward_kernel", "_second_kernel", "_stats_kernel", "_merge_kernel", "_sums_kernel", "_add_kernel"}
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
        read = elements(self, pointers, mask, other)
        if read is None and other is None:  # tl.load of a pointer, without a mask
            return _load(self, pointers, mask, other, *options)
        return read if read is not None else _load(self, *_of_one_shape(pointers, mask, other), *options)

    def create_masked_store(self, pointers, value, mask, *options):
        return super().create_masked_store(*_of_one_shape(pointers, value, mask), *options)


def _of_one_shape(*handles):
    arrays = np.broadcast_arrays(*(handle.data for handle in handles))
    return [interpreter.TensorHandle(array, handle.dtype) for array, handle in zip(arrays, handles, strict=True)]


def patch_once(fn) -> interpreter._LangPatchScope:
    """`_patch_lang`, but only once for each set of the modules tl and tl.core that fn's globals hold, and for good."""
    if fn not in _seen:
        _seen.add(fn)
        values = [value for value in fn.__globals__.values() if value is tl or value is tl.core]
        modules = tuple(any(value is module for value in values) for module in (tl, tl.core))
        if modules not in _patched:
            _patched.add(modules)
            _patch_lang(fn)
    return _nothing


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
    of = dict(zip(fn.__code__.co_varnames, arguments))
    if fn.__name__ == "_strip_kernel":
        strip = programs // (-(-of["channels"] // of["COLS"]) * of["across"]) % of["strips"]
        kinds = [programs[strip < of["strips"] - 1], programs[strip == of["strips"] - 1]]
    elif "share" in of:
        slot = -(-of["width"] // of["COLS"]) if of["BY_COLUMN"] else of["channels"]
        kinds = [programs[i : i + slot] for i in range(0, count, slot)]
    return [kind[i : i + TOGETHER] for kind in kinds for i in range(0, len(kind), TOGETHER)]


def launch(self, *args, **kwargs) -> None:
    for kept in (_block_types, _tensors, _pairs, _expanded):
        kept.clear()
    builder = interpreter.interpreter_builder
    builder.memories = [Memory(argument) for argument in args if hasattr(argument, "untyped_storage")]
    if self.fn.__name__ in ALIKE:
        builder.groups = groups(*self.grid, self.fn, args)
        self.grid = (len(builder.groups),)
        builder.__class__ = Together
    try:
        _launch(self, *args, **kwargs)
    finally:
        builder.__class__ = interpreter.InterpreterBuilder
        builder.memories = []


class Memory:
    """The memory that a tensor is in, which NumPy reads as an array of any type."""

    def __init__(self, tensor):
        storage = tensor.untyped_storage()
        self.first, self.bytes, self.arrays = storage.data_ptr(), storage.nbytes(), {}

    def array(self, dtype: np.dtype) -> np.ndarray:
        if dtype not in self.arrays:
            shape = (self.bytes // dtype.itemsize,)
            about = {"data": (self.first, True), "shape": shape, "typestr": dtype.str, "version": 3}
            self.arrays[dtype] = np.asarray(types.SimpleNamespace(__array_interface__=about))
        return self.arrays[dtype]


FEW = 256  # elements, which Triton reads one after the other in the time that some calls of NumPy take


def elements(self, pointers, mask, other) -> interpreter.TensorHandle | None:
    """The elements at some pointers, read by NumPy from the tensor that they all point into.

    None, so that Triton reads them, where they are few or some points beyond the tensor.
    """
    at, kept = pointers.data, mask.data
    if at.size < FEW or at.ndim != kept.ndim:
        return None
    one = np.unravel_index(kept.argmax(), kept.shape)  # that is wanted, if any is
    address = at.item(*(i if n > 1 else 0 for i, n in zip(one, at.shape, strict=True)))
    element = pointers.get_element_ty()
    dtype = np_dtype(element)
    for memory in self.memories:
        if memory.first <= address < memory.first + memory.bytes:
            array = memory.array(dtype)
            places = (at - np.uint64(memory.first)) >> np.uint64(dtype.itemsize.bit_length() - 1)
            if ((places >= np.uint64(len(array))) & kept).any():
                return None
            read = array.take(places.view(np.int64), mode="clip")
            read = np.where(kept, read, dtype.type(0) if other is None else other.data)
            return interpreter.TensorHandle(read, element)
    return None


def masked_load(self, pointers, mask, other, *options):
    read = elements(self, pointers, mask, other)
    return read if read is not None else _load(self, pointers, mask, other, *options)


def total(self, input):
    """The sum along an axis, or of all elements, of each program."""
    if not isinstance(interpreter.interpreter_builder, Together):
        return _sum(self, input)
    array = input.handle.data
    if self.axis is None:
        array = array.reshape(len(array), -1)
    array = np.sum(array, axis=1 if self.axis is None else self.axis + 1, keepdims=self.keep_dims)
    of_a_program = list(array.shape[1:])
    type = tl.block_type(input.dtype, of_a_program) if of_a_program else input.dtype
    return tl.tensor(interpreter.TensorHandle(array.astype(np_dtype(input.dtype), copy=False), input.dtype), type)


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


def handle(self, data, dtype, attr=None) -> None:
    """Set the fields of a handle. Numbers of more bits than the dtype has are refused as before."""
    self.data, self.dtype, self.attr = data, dtype, {} if attr is None else attr
    if data.itemsize > 1:
        _check(self)


def cast(self, input, dst_ty, *options):
    return input if input.type.scalar is dst_ty.scalar else _cast(self, input, dst_ty, *options)


def cast_impl(self, src, dst_type):
    """Between float32 and bfloat16, whose exponents are alike, 16 bits come or go; Triton handles subnormal numbers."""
    kinds = src.dtype.scalar, dst_type.scalar
    if kinds == (tl.bfloat16, tl.float32) and not _subnormal(src.data, 7):
        return interpreter.TensorHandle((src.data.astype(np.uint32) << 16).view(np.float32), tl.float32)
    if kinds == (tl.float32, tl.bfloat16) and not _subnormal(bits := src.data.view(np.uint32), 23):
        return interpreter.TensorHandle((bits >> 16).astype(np.uint16), tl.bfloat16)
    return _cast_impl(self, src, dst_type)


def _subnormal(bits, fraction: int) -> bool:
    """Whether any number has no bit of the exponent, which lies above the fraction, and some bit below"""
    magnitude = bits & ((256 << fraction) - 1)
    return bool(((magnitude != 0) & (magnitude < 1 << fraction)).any())


def pair(a: tl.dtype, b: tl.dtype) -> tuple:
    """The type of the result of two operands, and how many axes of length 1 each needs; None: Triton decides.

    The last number is of a pointer and an offset: the bytes of an element.
    """
    key = id(a), id(b)
    if key not in _pairs:
        shapes, step = [t.shape if t.is_block() else () for t in (a, b)], 0
        if a.scalar.is_ptr() and b.scalar.is_int_signed():
            step = max(1, a.scalar.element_ty.primitive_bitwidth // 8)
        common, axes = None, [0, 0]
        if (step or (a.scalar == b.scalar and not a.scalar.is_ptr())) and (
            () in shapes or len({*map(len, shapes)}) == 1
        ):
            axes = [len(shapes[1 - k]) if shapes[k] == () else 0 for k in (0, 1)]
            sides = list(zip(*(shape or (1,) * more for shape, more in zip(shapes, axes)), strict=True))
            if all(m == n or 1 in (m, n) for m, n in sides):
                common = tl.block_type(a.scalar, [max(side) for side in sides]) if sides else a.scalar
        _pairs[key] = common, *axes, step, (a, b)  # which keeps these types alive, and so their ids
    return _pairs[key][:4]


def number(value: float, dtype: tl.dtype) -> np.ndarray | None:
    """A Python number as an operand beside a tensor of a dtype; None where Triton decides"""
    kinds = (int, float) if dtype.is_fp32() or dtype.is_fp64() else (int,) if dtype.name in ("int32", "int64") else ()
    if type(value) not in kinds or (not dtype.is_floating() and not -(2**31) <= value < 2**31):
        return None
    key = value, dtype.name
    if key not in _numbers:
        _numbers[key] = np.array([value if value != 0 else 0], dtype=np_dtype(dtype))  # Triton knows no constant -0.0
    return _numbers[key]


def getitem(self, places):
    """Axes of length 1 where an index is None; Triton decides about other indices."""
    type = self.type
    if not (type.is_block() and isinstance(places, tuple) and places.count(_WHOLE) == len(type.shape)):
        return _getitem(self, places, _semantic=interpreter.interpreter_semantic)
    key = id(type), tuple(place is None for place in places)
    if key not in _expanded:
        if any(place not in (None, _WHOLE) for place in places):
            return _getitem(self, places, _semantic=interpreter.interpreter_semantic)
        sizes = iter(type.shape)
        _expanded[key] = tl.block_type(type.scalar, [1 if place is None else next(sizes) for place in places]), type
    programs = (_WHOLE,) * isinstance(interpreter.interpreter_builder, Together)
    array = self.handle.data[programs + places]
    return tl.tensor(interpreter.TensorHandle(array, self.handle.dtype.scalar), _expanded[key][0])


def quick(name: str, ufunc: np.ufunc, compares: bool, reflected: bool = False) -> Callable:
    """An operator of tl.tensor that calls NumPy at once where the operands need no conversion."""
    plain, bitwise = getattr(tl.tensor, name), ufunc in (np.bitwise_and, np.bitwise_or)

    def operator(self, other):
        if isinstance(other, tl.constexpr):
            other = other.value
        one, own = self.handle, self.type
        if type(other) is tl.tensor:
            two = other.handle
            common, more_one, more_two, step = pair(own, other.type)
            x, y = one.data, two.data
            if step and ufunc is np.add:
                y = step * y.astype(np.uint64)
            if common is None or x.dtype != y.dtype or (bitwise and not own.scalar.is_int()):
                return plain(self, other, _semantic=interpreter.interpreter_semantic)
            if more_one and len(x) > 1:
                x = x.reshape(len(x), *(1,) * more_one)
            if more_two and len(y) > 1:
                y = y.reshape(len(y), *(1,) * more_two)
            dtype = one.dtype if step else one.dtype.scalar
        else:
            x, y, common = one.data, number(other, own.scalar), own
            if y is None or x.dtype != y.dtype or (bitwise and not own.scalar.is_int()):
                return plain(self, other, _semantic=interpreter.interpreter_semantic)
            dtype = own.scalar if reflected else one.dtype.scalar
        if compares:
            common = common.with_element_ty(tl.int1) if common.is_block() else tl.int1
        return tl.tensor(interpreter.TensorHandle(ufunc(y, x) if reflected else ufunc(x, y), dtype), common)

    return operator


tl.block_type.__new__ = block_type
tl.block_type.__init__ = lambda self, element_ty, shape: None  # __new__ has done this
tl.tensor.__init__ = tensor
TritonSemantic.broadcast_impl_value = broadcast
TritonSemantic.cast = cast
interpreter.TensorHandle.__init__ = handle
interpreter.InterpreterBuilder.cast_impl = cast_impl
interpreter.InterpreterBuilder.create_masked_load = masked_load
interpreter.ReduceOps.sum = total
interpreter.interpreter_builder.options = dataclasses.replace(
    interpreter.interpreter_builder.options, sanitize_overflow=False
)
interpreter._get_np_dtype = np_dtype
interpreter._patch_lang = patch_once
interpreter._patch_lang_tensor = patch_tensor
interpreter.GridExecutor.__call__ = launch
tl.tensor.__getitem__ = getitem
for operation, ufunc in {"add": np.add, "sub": np.subtract, "mul": np.multiply}.items():
    setattr(tl.tensor, f"__{operation}__", quick(f"__{operation}__", ufunc, compares=False))
    setattr(tl.tensor, f"__r{operation}__", quick(f"__r{operation}__", ufunc, compares=False, reflected=True))
for operation, ufunc in {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}.items():
    setattr(tl.tensor, f"__{operation}__", quick(f"__{operation}__", ufunc, compares=True))
for operation, ufunc in {"and": np.bitwise_and, "or": np.bitwise_or}.items():
    setattr(tl.tensor, f"__{operation}__", quick(f"__{operation}__", ufunc, compares=False))
