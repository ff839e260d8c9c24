"""A CUDA device that is not there: its tensors have shapes, dtypes and devices, and no numbers. CPU tensors are real.

Import this module before torch and before gan_engine. It changes PyTorch for the whole process.

`FakeCuda` refuses what a training step must not do on a GPU, each time with the place in gan_engine:

    a mix              tensors of both devices in one operator
    a wait             the host reads a number of a tensor on the GPU, or a shape that depends on such numbers
    a blocking copy    from the CPU, unless it is pinned, contiguous, of the same dtype and non_blocking;
                       to the CPU, unless it is non_blocking

Between `recorded()` and its end, it also refuses what no CUDA graph can hold: any copy between the devices, and random
numbers of the CPU, which a graph would repeat for ever.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fake_cuda import build

build.load()

import torch  # noqa: E402
from torch._subclasses.fake_tensor import (  # noqa: E402
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

PACKAGE = str(Path(__file__).parents[2] / "gan_engine")
WAITS = (DataDependentOutputException, DynamicOutputShapeException)
# They wait on a GPU, which the shapes of their results do not show.
WAITING = {torch.ops.aten._linalg_check_errors.default}
COPIES = {
    torch.ops.aten._to_copy.default,
    torch.ops.aten.copy_.default,
    torch.ops.aten._foreach_copy_.default,
    torch.ops.aten.copy.default,
}
INDEXING = {
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_put.default,
    torch.ops.aten.index_put_.default,
    torch.ops.aten._unsafe_index.Tensor,
}
# They change their arguments in place and return nothing. PyTorch has no rule for shapes with a learning rate on a GPU.
IN_PLACE = {torch.ops.aten._fused_adam_.tensor_lr, torch.ops.aten._fused_sgd_.tensor_lr}
# Operators that launch nothing, beside those that return views.
NO_LAUNCH = {"detach", "_unsafe_view", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty"}
NO_LAUNCH |= {"new_empty_strided", "device", "is_pinned", "_pin_memory", "result_type"}


class FakeCudaError(RuntimeError):
    """A training step does on the GPU what it must not do."""


def place() -> str:
    """The innermost lines of gan_engine that led here, or where else it was asked for."""
    lines, frame = [], sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(PACKAGE):
            file = Path(frame.f_code.co_filename).relative_to(Path(PACKAGE).parent)
            lines.append(f"{file}:{frame.f_lineno}")
        frame = frame.f_back
    return " < ".join(lines[:3]) or "a backward pass of PyTorch's own operators"


class Count:
    """What was done on the device: operators, the bytes that they read and wrote, and how often each ran.

    Attributes:
        outside: operators that no CUDA graph holds.
        graphs: phases that are graphs.
    """

    def __init__(self) -> None:
        self.operators, self.bytes, self.outside, self.graphs = 0, 0, 0, 0
        self.by_name: dict[str, int] = {}

    @property
    def launches(self) -> int:
        """With graphs: for each of them one, and one for the copy of its batch to where it reads."""
        return self.outside + 2 * self.graphs

    def add(self, func: Any, tensors: list[torch.Tensor], *, in_graph: bool) -> None:
        self.outside += not in_graph
        name = str(func)
        self.operators += 1
        self.bytes += sum(_bytes(t) for t in tensors)
        self.by_name[name] = self.by_name.get(name, 0) + 1


def _bytes(t: torch.Tensor) -> int:
    number = t.element_size()
    for size, stride in zip(t.shape, t.stride(), strict=True):
        number *= size if stride else 1  # an expanded tensor counts what it holds
    return number


class FakeCuda(TorchDispatchMode):
    """Inside, operators on tensors of the device "cuda" compute shapes alone. Operators on CPU tensors run.

    Attributes:
        count: what ran on the device while `watched`; None outside.
        problems: sentences about what a step must not do, in the order in which it was done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.count: Count | None = None
        self.problems: list[str] = []
        self._in_graph: str | None = None
        self._pinned: dict[int, torch.UntypedStorage] = {}  # by address; held, so that no address comes twice

    @contextlib.contextmanager
    def watched(self) -> Iterator[Count]:
        """Inside, operators are counted, and what a step must not do is noted."""
        self.count = Count()
        try:
            yield self.count
        finally:
            self.count = None
            self._pinned.clear()

    @contextlib.contextmanager
    def recorded(self, phase: str) -> Iterator[None]:
        """Inside, what no CUDA graph can hold is noted too."""
        self._in_graph = phase
        if self.count is not None:
            self.count.graphs += 1
        try:
            yield
        finally:
            self._in_graph = None

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        leaves = _leaves([*args, *kwargs.values()])
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        if not _on_device(leaves):
            return self._on_cpu(func, args, kwargs, tensors)
        if func in WAITING or (func in INDEXING and any(t.dtype in (torch.bool, torch.uint8) for t in tensors[1:])):
            raise FakeCudaError(f"{func} makes the host wait for the GPU: {place()}")
        if func not in COPIES and len({t.device.type for t in tensors if t.ndim}) > 1:
            devices = ", ".join(f"{t.device.type} {list(t.shape)}" for t in tensors)
            raise FakeCudaError(f"{func} mixes tensors of both devices, {devices}: {place()}")
        given = args, kwargs
        if not all(isinstance(t, FakeTensor) for t in tensors):
            with torch._C.DisableTorchFunctionSubclass():
                given = pytree.tree_map(self._lift, given)
        try:
            with self.fake:
                out = None if func in IN_PLACE else func(*given[0], **given[1])
        except WAITS as error:
            raise FakeCudaError(f"{func} makes the host wait for the GPU: {place()}") from error
        results = [x for x in _leaves([out]) if isinstance(x, torch.Tensor)]
        if func in COPIES:
            self._copied(func, args, kwargs, tensors, results)
        if self.count is not None and not _launches_nothing(func):
            self.count.add(func, [*tensors, *results], in_graph=self._in_graph is not None)
        if func is torch.ops.aten._to_copy.default and results[0].device.type == "cpu":
            return torch.zeros(results[0].shape, dtype=results[0].dtype)  # real again
        return out

    def _lift(self, x: Any) -> Any:
        is_real = isinstance(x, torch.Tensor) and not isinstance(x, FakeTensor)
        return self.fake.from_tensor(x.detach()) if is_real else x

    def _on_cpu(self, func: Any, args: tuple, kwargs: dict, tensors: list[torch.Tensor]) -> Any:
        if func is torch.ops.aten.is_pinned.default:
            return args[0].untyped_storage().data_ptr() in self._pinned
        if func is torch.ops.aten._pin_memory.default:
            return self._pin(args[0].clone())  # pinned memory keeps the strides
        pinned = kwargs.pop("pin_memory", False) if "pin_memory" in kwargs else False
        if self._in_graph is not None and torch.Tag.nondeterministic_seeded in func.tags:
            self._note(f"{func} draws random numbers on the CPU, which a CUDA graph would repeat for ever")
        out = func(*args, **kwargs)
        return self._pin(out) if pinned else out

    def _pin(self, x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        self._pinned[storage.data_ptr()] = storage
        return x

    def _copied(self, func: Any, args: tuple, kwargs: dict, tensors: list, results: list) -> None:
        """Note a copy between the devices that blocks, or that no graph can hold."""
        source, result = tensors[-1], results[0] if results else tensors[0]
        if source.device.type == result.device.type:
            return
        copy = f"{func} copies {list(source.shape)} from {source.device.type} to {result.device.type}"
        if self._in_graph is not None:
            self._note(f"{copy}, which no CUDA graph can hold")
            return
        position = 2 if func is torch.ops.aten.copy_.default else len(args)
        blocks = not (kwargs.get("non_blocking") or any(args[position : position + 1]))
        if source.device.type == "cpu":
            pinned = source.untyped_storage().data_ptr() in self._pinned
            blocks |= not (pinned and _dense(source) and source.dtype == result.dtype)
        if blocks:
            self._note(f"{copy}, and blocks the host")

    def _note(self, sentence: str) -> None:
        if self.count is not None:
            where = f" in phase {self._in_graph}" if self._in_graph else ""
            self.problems.append(f"{sentence}{where}: {place()}")


def _dense(t: torch.Tensor) -> bool:
    """True if t fills its memory without gaps, in any order of its dimensions: one copy moves all of it."""
    return t.permute(sorted(range(t.ndim), key=lambda dim: -t.stride(dim))).is_contiguous()


def _leaves(values: list[Any]) -> list[Any]:
    """What is in lists and tuples in each other: those of PyTorch's pytree take a seventh of all the time."""
    found = []
    for value in values:
        found += _leaves(list(value)) if isinstance(value, list | tuple) else [value]
    return found


def _on_device(leaves: list[Any]) -> bool:
    return any(isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "cuda") for x in leaves)


def _launches_nothing(func: Any) -> bool:
    return func.is_view or str(func).split(".")[1] in NO_LAUNCH


class _Event:
    """Stands for torch.cuda.Event."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, *_: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass


def install() -> None:
    """Let PyTorch and gan_engine take the device for an H100 whose kernels are built."""
    torch._C._set_only_lift_cpu_tensors(True)
    answers = {
        "is_available": True,
        "is_initialized": True,
        "device_count": 1,
        "current_device": 0,
        "set_device": None,
        "get_device_capability": (9, 0),
        "get_device_name": "a GPU that is not there",
        "is_bf16_supported": True,
        "mem_get_info": (70 << 30, 80 << 30),
        "manual_seed_all": None,
        "set_rng_state": None,
        "is_current_stream_capturing": False,
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "_lazy_init": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.Event = torch.Event = _Event
    # PyTorch asks for plain tensors before it takes the operators for lists, which it takes on a GPU.
    for module in ("torch.nn.utils.clip_grad", "torch.optim.optimizer"):
        importlib.import_module(module)._has_foreach_support = lambda *_: True
    importlib.import_module("torch.cuda.amp.common").amp_definitely_not_available = lambda: False
    backends = importlib.import_module("gan_engine.backends")
    backends.MISSING["cuda"] = backends.MISSING["triton"] = None
    importlib.import_module("gan_engine.ops")
    backends.at_first_use(lambda *_: True)  # there are no numbers that the self-check could compare


install()
