"""What every test shares: the backends as a parameter, and memory that is never accidentally zero."""

import os
import tempfile
from collections.abc import Iterator

import pytest
import torch

from gan_engine import backends
from gan_engine.system import native

# A cache of its own: a compilation that was killed leaves a broken file behind, which a later run would load.
_compiled = tempfile.TemporaryDirectory(prefix="gan_engine-inductor-", ignore_cleanup_errors=True)
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _compiled.name
# That the compiler knows this CPU's vector instructions is taken as given: to try each set takes 8 s of every process.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
# Decoded data of tests are nobody's.
_decoded = tempfile.TemporaryDirectory(prefix="gan_engine-decoded-", ignore_cleanup_errors=True)
os.environ["GAN_ENGINE_CACHE"] = _decoded.name

ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []

# The C++ kernels are built once per instruction set and tested on each that this CPU can run.
BACKENDS = ["cuda", "triton", *(f"cpu-{isa}" for isa in ISAS or ["none"]), "reference"]


# Files of a minute and more, which processes that share the tests must not come to last (nor, as they are few tests,
# put there: that is what --no-loadscope-reorder is for).
LONG = ("test_triton_interpreted.py", "test_compile_gpu.py", "test_cuda_emulation.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory reads as NaN: with deterministic algorithms on, torch.empty fills it."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _run_on(spec: str, op: str | None) -> Iterator[str]:
    name, _, isa = spec.partition("-")
    if backends.MISSING[name] is not None:
        pytest.skip(f"{name}: {backends.MISSING[name]}")
    if op is not None and (reason := backends.refusal(op, name, torch.empty(1, device=_device(name)))):
        pytest.skip(f"{name}: {reason}")
    if isa:
        before = native.cpu.module.isa()
        native.cpu.module.use_isa(isa)
    yield name
    if isa:
        native.cpu.module.use_isa(before)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a backend that can run here; the others are skipped with their reasons.

    A module about a single op names it in OP, and is spared the backends for which that has no kernel.
    """
    yield from _run_on(request.param, getattr(request.module, "OP", None))


@pytest.fixture(params=["cuda", "triton", f"cpu-{ISAS[0] if ISAS else 'none'}"])
def fastest(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `backend`, but only our kernels, and those in C++ only in the fastest of their builds."""
    yield from _run_on(request.param, None)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """Where the tensors of a backend live: the GPU if there is one and the backend takes it."""
    return _device(request.getfixturevalue("fastest" if "fastest" in request.fixturenames else "backend"))


def _device(backend: str) -> str:
    takes = backends.DEVICES.get(backend, ("cpu",))
    return "cuda" if "cuda" in takes and torch.cuda.is_available() else "cpu"
