"""Which implementation runs a call, and why the others do not: every op asks `choose`, and decides nothing beside it.

The backends of an op have an order: cuda, triton, cpu (kernels of csrc/ and kernels/), pytorch (PyTorch's own fast
operators) and reference (the definition, which runs every call). Two kinds of reasons stand against a backend. Both are
sentences:

    refusal     the backend cannot run the call: no GPU, a dtype, not built, a recorder at work
    no_gain     the backend can run the call, but another backend is as fast: few elements, few channels, few pixels

The automatic choice takes the first backend of the order that nothing stands against. A request by name runs whatever
the backend gains, or raises if the backend cannot run the call:

    bias_act(x, b, act="lrelu", backend="triton")      # one call: runs on triton, or raises
    with backends.use("reference"): ...                # a block (process-wide, also inside torch.compile)
    GAN_ENGINE_BACKEND=cpu python train.py             # a process

A request for a block or a process concerns the ops that have the backend. The others choose as if nothing were asked.
The numbers from which on a backend gains are all in gan_engine.ops.thresholds.

At the first use of a kernel on a device in a dtype, gan_engine.ops.self_check compares it with the reference. A kernel
that is wrong there is refused from then on.

torch.jit.trace and torch.export record operators of PyTorch alone ("reference", or a "pytorch" that is made of them),
which need no gan_engine to run.

Everything here is dicts, strings and functions, filled at import, so that torch.compile(fullgraph=True) traces through.
"""

import contextlib
import importlib
import importlib.util
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from gan_engine.system import native

# cuda comes before triton, by counted instructions an element (tests/gpu_ledger.csv, bfloat16, sm_90; not measured):
# bias_act takes 20 there and 19 to 21 in Triton, and scale_bias_act 15 and 24 to 25. upfirdn2d of 4 taps takes 6 to 32
# in channels_last and 6 to 38 in Triton; in contiguous memory it takes 8 to 44, and 14 to 68 in Triton. sum_of_squares
# and mix take 6 to 17 in both. Memory is their limit in both, and the CPU launches a Triton kernel more slowly.
ORDER = ("cuda", "triton", "cpu", "pytorch", "reference")
KERNELS = ("cuda", "triton", "cpu")  # the backends that are compiled from csrc/ and kernels/

# TRITON_INTERPRET is read when a kernel is decorated, so later changes of it cannot count here either.
INTERPRET = os.environ.get("TRITON_INTERPRET", "0") == "1"
OLDEST_TRITON = (3, 6)


def _why_no_triton() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return 'triton is not installed (pip install "gan-engine[gpu]")'
    if not torch.cuda.is_available() and not INTERPRET:
        return "needs a CUDA GPU, and PyTorch sees none (TRITON_INTERPRET=1 interprets the kernels on the CPU, slowly)"
    try:
        triton = importlib.import_module("triton")
        importlib.import_module("triton.language")
    except Exception as error:  # whatever an installation that does not fit this system raises
        return f"triton is installed but cannot be imported: {type(error).__name__}: {error}"
    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST_TRITON:
        return f"needs triton >= {'.'.join(map(str, OLDEST_TRITON))}, and {triton.__version__} is installed"
    return None


# Why a backend cannot run anything in this process; None where it can.
MISSING: dict[str, str | None] = {
    "cuda": native.WHY_NO_CUDA or (None if torch.cuda.is_available() else "needs a CUDA GPU, and PyTorch sees none"),
    "triton": _why_no_triton(),
    "cpu": native.WHY_NO_CPU,
    "pytorch": None,
    "reference": None,
}

# The device types whose tensors a backend takes; "pytorch" and "reference" take any.
DEVICES: dict[str, tuple[str, ...]] = {
    "cuda": ("cuda",),
    "triton": ("cpu", "cuda") if INTERPRET else ("cuda",),
    "cpu": ("cpu",),
}

# The objections of an op to its backends: a sentence, or None. `arguments` is what `choose` was given of the call, or
# None where only x is known.
Refusal = Callable[[torch.Tensor, Any], str | None]  # (x, arguments)
Rule = Callable[[str, torch.Tensor, Any], str | None]  # (backend, x, arguments)

_kernels: dict[str, dict[str, Any]] = {}
_orders: dict[str, tuple[str, ...]] = {}
_rules: dict[str, tuple[dict[str, Refusal], Rule | None]] = {}  # why a backend cannot run a call, and gains nothing
_recordable: dict[str, bool] = {}
_forced: str | None = None
_wrong: str | None = None  # what is wrong with GAN_ENGINE_BACKEND
_watching: tuple[list["Choice"], ...] = ()  # the lists of `watched` blocks under way
_entering = threading.Lock()


class Kernels(NamedTuple):
    """The kernels of an op, as the self-check tells them apart."""

    op: str
    backend: str
    device: str  # type
    number: int | None  # of the device
    dtype: torch.dtype


right: set[Kernels] = set()  # need no check any more
wrong: dict[Kernels, str] = {}  # what the self-check found, in a sentence
_first_use: Callable[..., bool] | None = None  # the self-check: (*Kernels) -> whether they may run


class _Thread(threading.local):
    trusting = False  # inside of `trusted`


_thread = _Thread()

_is_compiling = torch.compiler.is_compiling
_tracing_state = torch._C._get_tracing_state

_RECORDED = "torch.jit.trace and torch.export record operators of PyTorch alone, so that what they make runs anywhere"
_NOT_YET = (
    "was not checked yet, and cannot be checked while a CUDA graph or a backward pass is being recorded: call it once"
    " before"
)


class Refused(RuntimeError):
    """A backend was asked for by name, and cannot run the call."""


class Choice(NamedTuple):
    """One answer of `choose`, as `watched` notes it.

    Attributes:
        op: the op that asked.
        backend: the answer.
        shape, dtype: of x.
        asked: the backend that was asked for by name, if any.
        reasons: why each backend before the answer did not run; empty if the backend was asked for.
    """

    op: str
    backend: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    asked: str | None
    reasons: dict[str, str]


def _note(op: str, backend: str, x: torch.Tensor, arguments: Any, asked: str | None) -> None:
    reasons = {}
    if asked is None:
        for name in _orders[op][: _orders[op].index(backend)]:
            reason = refusal(op, name, x, arguments) or no_gain(op, name, x, arguments)
            reasons[name] = reason or (_NOT_YET if name in KERNELS else "gains nothing")
    choice = Choice(op, backend, tuple(x.shape), x.dtype, asked, reasons)
    for choices in _watching:
        choices.append(choice)


def register(
    op: str,
    *,
    has: tuple[str, ...] = KERNELS,
    refuse: dict[str, Refusal] | None = None,
    no_gain: Rule | None = None,
    recordable: bool = False,
    kernels_of: str | None = None,
) -> None:
    """Make `op` known, with the backends it `has` beside "reference".

    Kernels are looked for in gan_engine.system.native and gan_engine.kernels.<op>. An op that is made of another op
    runs on the kernels of that op, which `kernels_of` names, with rules of its own.

    `refuse` gives the op's own reasons why a backend cannot run a call, by backend. `no_gain` gives the reasons why a
    backend gains nothing. `recordable`: the op's "pytorch" is made of operators that torch.jit.trace and
    torch.export may record.
    """
    if kernels_of is not None:
        _kernels[op] = _kernels[kernels_of]
        has = tuple(name for name in _orders[kernels_of] if name in KERNELS) if has is KERNELS else has
    else:
        _kernels[op] = {"cuda": native.cuda, "cpu": native.cpu}
        if "triton" in has and MISSING["triton"] is None:
            _kernels[op]["triton"] = importlib.import_module(f"gan_engine.kernels.{op}")
    _orders[op] = tuple(name for name in ORDER if name in has or name == "reference")
    _rules[op], _recordable[op] = (refuse or {}, no_gain), recordable


def refusal(op: str, backend: str, x: torch.Tensor, arguments: Any = None) -> str | None:
    """Why `backend` cannot run `op` on `x`: a sentence, or None if it can."""
    if backend == "reference":
        return None
    if backend not in _orders[op]:
        return f"{op} has no {backend} kernel" if backend in KERNELS else f"{op} has no backend of that name"
    if MISSING[backend] is not None:
        return MISSING[backend]
    devices = DEVICES.get(backend)
    if devices is not None and x.device.type not in devices:
        return f"takes {' or '.join(devices)} tensors, not {x.device.type}"
    if (backend != "pytorch" or not _recordable[op]) and recorded():
        return _RECORDED
    refuse = _rules[op][0].get(backend)
    reason = None if refuse is None else refuse(x, arguments)
    if reason is None and wrong and not _thread.trusting and not _is_compiling():
        reason = wrong.get(_kernels_of(op, backend, x))
    return reason


def _kernels_of(op: str, backend: str, x: torch.Tensor) -> Kernels:
    return Kernels(op, backend, x.device.type, x.device.index, x.dtype)


def no_gain(op: str, backend: str, x: torch.Tensor, arguments: Any = None) -> str | None:
    """Why `backend`, which can run `op` on `x`, is no faster there than a backend behind it: a sentence, or None."""
    _, gains_nothing = _rules[op]
    return None if backend == "reference" or gains_nothing is None else gains_nothing(backend, x, arguments)


def is_exporting() -> bool:
    """True inside of torch.export. The self-check has torch.compile call this: PyTorch 2.11 knows no better there."""
    return torch.compiler.is_exporting()


def recorded() -> bool:
    """True if a recorder of PyTorch follows the calls, to run them elsewhere or with other shapes."""
    return _tracing_state() is not None or is_exporting()


def choose(op: str, x: torch.Tensor, backend: str | None = None, arguments: Any = None) -> str:
    """The backend that runs `op` on `x`: the one asked for, else the first in the order that nothing stands against.

    `arguments` is what the rules of the op read beside x.

    Raises Refused with the reason if the backend asked for cannot run, ValueError if there is none of that name.
    """
    if backend is None and (_forced is not None or _wrong is not None):
        backend = _wanted(op)
    chosen = _automatic(op, x, arguments) if backend is None else _named(op, backend, x, arguments)
    if _watching and not _thread.trusting:
        _note(op, chosen, x, arguments, backend)
    return chosen


def _automatic(op: str, x: torch.Tensor, arguments: Any) -> str:
    # `refusal` and `no_gain` written out: this is the start of every call. A compiler would note is_cpu in its graph.
    compiling = _is_compiling()
    device = "cpu" if not compiling and x.is_cpu else x.device.type
    refuse, gains_nothing = _rules[op]
    # Whatever exports says that it compiles too.
    to_be_recorded = _tracing_state() is not None or (compiling and is_exporting())
    kernel_gains_nothing = False
    for name in _orders[op]:
        if name == "pytorch":
            # PyTorch's own operators are as fast where a kernel gains nothing.
            if to_be_recorded and not _recordable[op]:
                continue
            if not kernel_gains_nothing and gains_nothing is not None and gains_nothing(name, x, arguments) is not None:
                continue
            if name not in refuse or refuse[name](x, arguments) is None:
                return name
        elif name == "reference":
            break
        elif to_be_recorded or MISSING[name] is not None or device not in DEVICES[name]:
            continue
        elif gains_nothing is not None and gains_nothing(name, x, arguments) is not None:
            kernel_gains_nothing = True
        elif (name not in refuse or refuse[name](x, arguments) is None) and may_run(op, name, x):
            return name
    return "reference"


def may_run(op: str, backend: str, x: torch.Tensor) -> bool:
    """Whether the self-check lets the kernels of `op` run where x is. It runs here, at their first use."""
    compiling = _is_compiling()
    if not compiling and x.is_cpu:
        device, index = "cpu", None
    else:
        device, index = x.device.type, x.device.index
    kernels = op, backend, device, index, x.dtype
    if not compiling and kernels in right:
        return True
    return _first_use is None or _first_use(*kernels)


def _named(op: str, wanted: str, x: torch.Tensor, arguments: Any) -> str:
    if wanted not in ORDER:
        raise ValueError(f"backend: want one of {', '.join(ORDER)}, got {wanted!r}")
    reason = refusal(op, wanted, x, arguments)
    if reason is None and wanted in KERNELS and not may_run(op, wanted, x):
        reason = wrong.get(_kernels_of(op, wanted, x), _NOT_YET)
    if reason is not None:
        raise Refused(f"{op}: backend {wanted!r} was asked for and cannot run: {reason}")
    return wanted


def _wanted(op: str) -> str | None:
    """The backend that this process asks for, if `op` has it."""
    if _wrong is not None:
        raise ValueError(_wrong)
    return _forced if _forced in _orders[op] else None


def inside(asked: str | None, chosen: str) -> str | None:
    """The request for the ops inside of an op that was asked for `asked`, and runs on `chosen`.

    A request of the process reaches the inner ops by itself, and concerns only those that have the backend.
    """
    return handed_on(asked, chosen) if asked is None and _forced is None else asked


def handed_on(asked: str | None, chosen: str) -> str | None:
    """The request for the ops that an op on `chosen` is made of.

    A GPU has two kinds of kernels, and each op chooses between them for itself, unless the call asked.
    """
    return asked if chosen in ("cuda", "triton") else chosen


def asked() -> str | None:
    """The backend that this process asks for; ValueError if GAN_ENGINE_BACKEND names none that there is."""
    if _wrong is not None:
        raise ValueError(_wrong)
    return _forced


def has(op: str, backend: str) -> bool:
    """True if `op` has `backend` at all, on any machine."""
    return backend in _orders[op]


def kernels(op: str, backend: str) -> Any:
    """The object whose functions launch the kernels of `op` on `backend`."""
    return _kernels[op][backend]


def ops() -> tuple[str, ...]:
    """The names of all registered ops, in the order in which they were registered."""
    return tuple(_kernels)


def force(backend: str | None) -> None:
    """Ask for `backend` in every call of this process that names none; None gives the choice back."""
    global _forced
    if backend is not None and backend not in ORDER:
        raise ValueError(f"backend: want one of {', '.join(ORDER)}, got {backend!r}")
    _forced = backend


def is_trusting() -> bool:
    """True in a thread inside of `trusted`."""
    return _thread.trusting


def at_first_use(check: Callable[..., bool]) -> None:
    """Let `check(*Kernels)` decide about every use of kernels that are not in `right`."""
    global _first_use
    _first_use = check


@contextlib.contextmanager
def trusted() -> Iterator[None]:
    """Inside, kernels of this thread run without a check, and `watched` notes nothing of it."""
    before, _thread.trusting = _thread.trusting, True
    try:
        yield
    finally:
        _thread.trusting = before


@contextlib.contextmanager
def watched() -> Iterator[list[Choice]]:
    """The answers of `choose` inside a `with` block, in every thread, in their order. No tensor is kept.

    Blocks may be inside each other, or overlap in several threads: each has all answers from its begin to its end.
    """
    global _watching
    choices: list[Choice] = []
    with _entering:
        _watching = (*_watching, choices)
    try:
        yield choices
    finally:
        with _entering:
            _watching = tuple(other for other in _watching if other is not choices)


@contextlib.contextmanager
def use(backend: str) -> Iterator[None]:
    """Ask for `backend` inside a `with` block, in every thread: values are right on any backend."""
    before = _forced
    force(backend)
    try:
        yield
    finally:
        force(before)


_in_environment = os.environ.get("GAN_ENGINE_BACKEND", "").strip()  # nothing but spaces asks for nothing
# A wrong name is an error of the first call, not of the import: commands tell it in a line, as they tell a wrong flag.
if _in_environment and _in_environment not in ORDER:
    _wrong = f"GAN_ENGINE_BACKEND: want one of {', '.join(ORDER)}, or nothing, got {_in_environment!r}"
elif _in_environment:
    force(_in_environment)
