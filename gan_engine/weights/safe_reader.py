"""Files of other programs, read without running anything in them: pickles, and what torch.save wrote.

A pickle is a program for a small machine. One command looks a name up in a module, another calls what was found there:
`os.system` is as easy to name as a tensor. So a pickle may say the names in this file only. This file makes what they
stand for, of numbers and text. No module of the pickle is imported. A class is a `Record`: its name and its state.

A file must not take much more memory than it has bytes. A pickle numbers its objects, and Python makes a table up to
the highest number. A zip may be small and its contents large, and so may a tensor and its numbers.
"""

import io
import math
import pickle
import pickletools
import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from gan_engine.system.checkpoint import CheckpointError, require_plain_zip
from gan_engine.system.names import listed

# The first object of a file of torch.save from before PyTorch 1.6. It is a number, so it can be looked at.
_LEGACY_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")

_NUMBERS = re.compile(r"[<>|=]?(?:[fiu][1248]|b1|\?)")

# The modules whose classes are read as records. Nobody imports these modules, so a class in them can be any class.
_RECORDED = ("torch.nn.modules", "torch_utils", "training", "R3GAN", "BaselineGAN", "dnnlib.tflib")


class Record:
    """An object of a foreign class: what the class is called, and what the object held. It does nothing.

    Attributes:
        name: module and name of the class.
        state: the attributes of the object, usually a dict.
    """

    name = ""
    state: Any = None

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"<{self.name}>"


class _Dict(dict):
    """A dict whose other attributes, such as the `_metadata` of a state_dict, are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Function:
    """A function that a pickle may call, and cannot change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"a pickle may not set {name} of a function")

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("a pickle may not change a function")


def read(path: str | Path) -> Any:
    """What the file holds: dicts, lists, tuples, texts, numbers, tensors on the CPU, numpy arrays, and `Record`s.

    Objects of `torch_utils.persistence`, the format of public StyleGAN networks, are records too. The source text that
    they carry is dropped.

    Raises:
        CheckpointError: there is no such file; it is neither a pickle nor a file of torch.save; it is damaged; it names
            anything outside the list of this module. The message has all such names, or the first. Nothing was made.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        if data[:2] == b"PK":
            return _read_torch(path, data, _refuse_names)
        if _LEGACY_MAGIC in data[:32]:
            return _read_torch(path, data)
        return _read_pickle(path, data)
    except CheckpointError:
        raise
    except Exception as error:  # any bytes may stand behind a right beginning, and a reader meets them with any error
        message = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"{path}: want a pickle or a file of torch.save, got {len(data)} bytes that begin with {data[:8]!r}: "
            f"{type(error).__name__}: {message}"
        ) from error


# Files of torch.save: PyTorch's own reader of weights executes nothing, and refuses what it does not know.


def _read_torch(path: Path, data: bytes, check: Callable[[Path, bytes], None] | None = None) -> Any:
    if check is not None:
        check(path, data)
    try:
        with torch.serialization.safe_globals([Namespace]):
            return _loaded(data)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found is None:
            raise
        _refuse(path, [found.group(1)])


def _refuse_names(path: Path, data: bytes) -> None:
    """Read the names in a zip of torch.save before anything is made. Raises CheckpointError for unknown names."""
    if not any(name.endswith("data.pkl") for name in zipfile.ZipFile(io.BytesIO(data)).namelist()):
        raise CheckpointError(f"{path}: want a zip of torch.save, got a zip without data.pkl")
    require_plain_zip(io.BytesIO(data))
    names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(data))
    if unknown := sorted(set(names) - {"argparse.Namespace"}):
        _refuse(path, unknown)


def _loaded(data: bytes) -> Any:
    """What PyTorch's reader of weights makes of `data`, if it is no larger than they are."""
    if data[:2] == b"PK":
        require_plain_zip(io.BytesIO(data))
    tree = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    for tensor in parts(tree, Tensor):
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = f"{tensor.layout} {list(tensor.shape)} on {tensor.device.type}"
            raise pickle.UnpicklingError(f"want dense tensors, got {kind}")
        _require_numbers(tensor.shape, tensor.untyped_storage().nbytes() // tensor.element_size())
    return tree


def _require_numbers(size: Any, numbers: int) -> None:
    if math.prod(size) > numbers:
        raise pickle.UnpicklingError(f"want a tensor of at most {numbers} numbers, got {list(size)}")


def _refuse(path: Path, names: list[str]) -> NoReturn:
    raise CheckpointError(f"{path}: want numbers and text only, got {listed(names)}; nothing was read")


# Plain pickles


def _read_pickle(path: Path, data: bytes) -> Any:
    whole, damage = _commands(data)
    names = _Names(io.BytesIO(whole))
    try:
        names.load()
    except Exception:
        if damage is not None:
            raise damage from None
        raise
    finally:  # a pickle that breaks off may name what is to be refused before
        if names.unknown:
            _refuse(path, names.unknown)
    return _plain(_Reader(io.BytesIO(whole)).load(), {})


def _commands(data: bytes) -> tuple[bytes, Exception | None]:
    """The commands of a pickle up to the first that is damaged, and what is wrong with that one."""
    file, end = io.BytesIO(data), 0
    try:
        for count, (command, argument, _) in enumerate(pickletools.genops(file)):
            if command.name in ("PUT", "LONG_BINPUT") and argument > count:
                raise pickle.UnpicklingError(f"want an object with a number of at most {count}, got {argument}")
            end = file.tell()
    except Exception as error:
        return data[:end], error
    return data[:end], None


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """`value` with arrays in the place of `_Array`, in containers and records at any depth. `known` ends circles."""
    if isinstance(value, _Array):
        return value.array
    if not isinstance(value, dict | list | tuple | Record):
        return value
    if id(value) in known:
        return known[id(value)][1]
    known[id(value)] = value, value
    if isinstance(value, Record):
        value.state = _plain(value.state, known)
    elif isinstance(value, dict):
        for key, item in list(value.items()):
            value[key] = _plain(item, known)
    elif isinstance(value, list):
        value[:] = [_plain(item, known) for item in value]
    else:
        known[id(value)] = value, tuple(_plain(item, known) for item in value)
    return known[id(value)][1]


def parts(tree: Any, kind: type) -> Iterator[Any]:
    """Every object of `kind` in containers and records, once, however often they hold it."""
    left, seen = [tree], set()
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, kind):
            yield value
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list | tuple):
            left += value
        elif isinstance(value, Record):
            left.append(value.state)


def _call(module: str, name: str) -> Any:
    """What a pickle gets for a name: a function of `_FUNCTIONS`, or a class that only records. KeyError: nothing."""
    full = f"{module}.{name}"
    if full in _FUNCTIONS:
        return _Function(_FUNCTIONS[full])
    if full in _DICTS:  # a class of its own for each mention: pickle makes objects of classes alone
        return type(name, (_Dict,), {})
    if any(module == root or module.startswith(f"{root}.") for root in _RECORDED) or full in _RECORDED_NAMES:
        return type("Recorded", (Record,), {"name": full})
    raise KeyError(full)


class _Names(pickle.Unpickler):
    """Walks through a pickle and calls nothing: every name stands for an object that takes everything."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.unknown: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        try:
            _call(module, name)
        except KeyError:
            self.unknown.append(f"{module}.{name}")
        return type("Nothing", (_Nothing,), {})

    def persistent_load(self, identity: Any) -> Any:
        return _Nothing()


class _Nothing:
    def __new__(cls, *arguments: Any, **options: Any) -> "_Nothing":
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass

    def add(self, value: Any) -> None:
        pass


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _call(module, name)
        except KeyError as error:
            raise pickle.UnpicklingError(f"unknown name {error}") from None

    def persistent_load(self, identity: Any) -> NoReturn:
        raise pickle.UnpicklingError("parts of this pickle lie outside of the file")


# What the names make


class _DType:
    """A numpy.dtype that is under construction: its code, then its byte order."""

    def __init__(self, code: Any, *options: Any) -> None:
        if not isinstance(code, str) or not _NUMBERS.fullmatch(code):
            raise pickle.UnpicklingError(f"want arrays of numbers, got dtype {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """A numpy.ndarray that is under construction; `_plain` takes its values out."""

    def __init__(self, *arguments: Any) -> None:
        self.array = np.empty(0, np.float32)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, values = state
        self.array = _array(values, dtype, shape, "F" if fortran else "C")


def _array(values: Any, dtype: Any, shape: Any, order: str = "C") -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(values, bytes | bytearray):
        raise pickle.UnpicklingError("want arrays of numbers, got an array of objects")
    return np.frombuffer(bytes(values), dtype.dtype).reshape(shape, order=order).copy()


def _frombuffer(values: Any, dtype: Any, shape: Any, order: Any, *options: Any) -> np.ndarray:
    return _array(values, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype: Any, values: Any = b"") -> Any:
    return _array(values, dtype, ()).item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes in a pickle of protocol 2"""
    if encoding != "latin1" or not isinstance(text, str):
        raise pickle.UnpicklingError(f"want text in latin1, got {encoding!r}")
    return text.encode("latin1")


def _nothing(*arguments: Any) -> None:
    return None


def _storage(data: Any) -> Any:
    """A storage that was pickled outside of torch.save: the bytes of a torch.save of its own."""
    return _loaded(bytes(data))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *options: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`, with storages that are those of PyTorch"""
    if isinstance(storage, torch.UntypedStorage) or not isinstance(storage, torch.TypedStorage):
        raise pickle.UnpicklingError(f"want a storage, got {type(storage).__name__}")
    numbers = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    _require_numbers(size, numbers)
    flat = torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage, 0, (numbers,))
    return flat.as_strided(tuple(size), tuple(stride), int(offset))


def _parameter(data: Any, *options: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError(f"want a tensor in a parameter, got {type(data).__name__}")
    return data


def _persistent(meta: Any) -> Record:
    """An object of torch_utils.persistence: {type, version, module_src, class_name, state}"""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise pickle.UnpicklingError("want an object with a class_name, got another")
    record = type("Recorded", (Record,), {"name": meta["class_name"]})()
    record.__setstate__(meta.get("state"))
    return record


_FUNCTIONS: dict[str, Callable] = {
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch.storage._load_from_bytes": _storage,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.device": _nothing,
    "torch.Size": _nothing,
    "_codecs.encode": _encode,
}
for _module in ("numpy.core", "numpy._core"):
    _FUNCTIONS |= {
        f"{_module}.multiarray._reconstruct": _Array,
        f"{_module}.multiarray.scalar": _scalar,
        f"{_module}.numeric._frombuffer": _frombuffer,
    }
_FUNCTIONS |= {f"{module}.{kind.__name__}": kind for module in ("builtins", "__builtin__") for kind in (set, frozenset)}
_FUNCTIONS |= {"numpy.dtype": _DType, "numpy.ndarray": _nothing}
_FUNCTIONS |= {f"torch.{name}": _nothing for name in ("float16", "bfloat16", "float32", "float64", "int64", "bool")}
_DICTS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_RECORDED_NAMES = ("argparse.Namespace",)
