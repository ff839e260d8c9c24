"""Which implementation runs a call, and why the others do not.

One rule serves every op: of the backends that exist for it, in its order, the first that does not refuse runs, and a
refusal is a sentence. Three ways to ask for one by name are one mechanism, and such a request never falls back:

    bias_act(x, b, act="lrelu", backend="triton")      # one call
    with backends.use("reference"): ...                # a block (process-wide, also inside torch.compile)
    GAN_ENGINE_BACKEND=cpu python train.py             # a process

torch.jit.trace and torch.export record "reference", in operators of PyTorch that need no gan_engine to run.

Everything here is plain dicts and strings, filled at import, so that torch.compile(fullgraph=True) traces through it.
"""

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from gan_engine.system import native

ORDER = ("cuda", "triton", "cpu", "reference")

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
    "reference": None,
}

# The device types whose tensors a backend takes. "reference" is plain PyTorch and takes any.
DEVICES: dict[str, tuple[str, ...]] = {
    "cuda": ("cuda",),
    "triton": ("cpu", "cuda") if INTERPRET else ("cuda",),
    "cpu": ("cpu",),
}

_kernels: dict[str, dict[str, Any]] = {}
_refusals: dict[str, Callable[[str, torch.Tensor], str | None]] = {}
_orders: dict[str, tuple[str, ...]] = {}
_built: dict[str, bool] = {}
_forced: str | None = None
_wrong: str | None = None  # what is wrong with GAN_ENGINE_BACKEND


def register(
    op: str,
    *,
    has: tuple[str, ...] = ("cuda", "triton", "cpu"),
    built: bool = True,
    refuse: Callable[[str, torch.Tensor], str | None] = lambda backend, x: None,
    order: tuple[str, ...] = ORDER,
    kernels_of: str | None = None,
) -> None:
    """Make `op` known, with kernels on the backends it `has`, in gan_engine.system.native and gan_engine.kernels.<op>.

    An op that is made of another one runs where that does: `kernels_of` names it, and the rest is taken from there.
    An op that is not `built` runs PyTorch's own kernels there, which nothing can be missing for.
    `refuse(backend, x)` gives the op's own reason against a backend (a sentence) or None; `order` is ORDER unless the
    benchmark on a real device showed another to be faster for this op.
    """
    if kernels_of is not None:
        for table in (_kernels, _refusals, _built, _orders):
            table[op] = table[kernels_of]
        return
    _kernels[op] = {"cuda": native.cuda, "cpu": native.cpu}
    if "triton" in has and MISSING["triton"] is None:
        _kernels[op]["triton"] = importlib.import_module(f"gan_engine.kernels.{op}")
    _refusals[op] = refuse
    _built[op] = built
    _orders[op] = tuple(name for name in order if name in has or name == "reference")


def refusal(op: str, backend: str, x: torch.Tensor) -> str | None:
    """Why `backend` does not run `op` on `x`: a sentence, or None if it does."""
    if backend == "reference":
        return None
    if backend not in _orders[op]:
        return f"{op} has no {backend} kernel"
    missing = MISSING[backend] if _built[op] else None
    if missing is not None:
        return missing
    if x.device.type not in DEVICES[backend]:
        return f"takes {' or '.join(DEVICES[backend])} tensors, not {x.device.type}"
    if recorded():
        return (
            "torch.jit.trace and torch.export record operators of PyTorch alone, so that what they make runs anywhere"
        )
    return _refusals[op](backend, x)


def recorded() -> bool:
    """Whether a recorder of PyTorch follows what is called, to run it elsewhere or with other shapes."""
    return torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()


def choose(op: str, x: torch.Tensor, backend: str | None = None) -> str:
    """The backend that runs `op` on `x`: the one asked for, else the first in the op's order that does not refuse.

    Raises RuntimeError with the reason if the one asked for refuses, ValueError if there is none of that name.
    """
    wanted = backend if backend is not None else asked()
    if wanted is None:
        for name in _orders[op]:
            if refusal(op, name, x) is None:
                return name
    if wanted not in ORDER:
        raise ValueError(f"backend: want one of {', '.join(ORDER)}, got {wanted!r}")
    reason = refusal(op, wanted, x)
    if reason is not None:
        raise RuntimeError(f"{op}: backend {wanted!r} was asked for and cannot run: {reason}")
    return wanted


def asked() -> str | None:
    """The backend that this process asks for; ValueError if GAN_ENGINE_BACKEND names none that there is."""
    if _wrong is not None:
        raise ValueError(_wrong)
    return _forced


def free(backend: str | None) -> bool:
    """Whether nobody asks for a backend by name: neither the call, whose `backend` this is, nor its process."""
    return backend is None and asked() is None


def open_to(backend: str) -> bool:
    """Whether this process asks for `backend`, or for none: for kernels that take the place of PyTorch's own."""
    return asked() in (None, backend)


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


@contextlib.contextmanager
def use(backend: str) -> Iterator[None]:
    """Ask for `backend` inside a `with` block: in every thread, whose values are right on any backend."""
    before = _forced
    force(backend)
    try:
        yield
    finally:
        force(before)


_named = os.environ.get("GAN_ENGINE_BACKEND", "").strip()  # nothing but spaces asks for nothing
# A wrong name is an error of the first call, not of the import: commands tell it in a line, as they tell a wrong flag.
if _named and _named not in ORDER:
    _wrong = f"GAN_ENGINE_BACKEND: want one of {', '.join(ORDER)}, or nothing, got {_named!r}"
elif _named:
    force(_named)
