"""What every test shares: the backends as a parameter, and memory that is never accidentally zero."""

from collections.abc import Iterator

import pytest
import torch

from gan_engine import backends, native

ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []

# The C++ kernels are built once per instruction set and tested on each that this CPU can run.
BACKENDS = ["cuda", "triton", *(f"cpu-{isa}" for isa in ISAS or ["none"]), "reference"]


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Uninitialised memory reads as NaN: with deterministic algorithms on, torch.empty fills it."""
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a backend that can run here; the others are skipped with their reasons."""
    name, _, isa = request.param.partition("-")
    if backends.MISSING[name] is not None:
        pytest.skip(f"{name}: {backends.MISSING[name]}")
    if isa:
        before = native.cpu.module.isa()
        native.cpu.module.use_isa(isa)
    yield name
    if isa:
        native.cpu.module.use_isa(before)


@pytest.fixture
def device(backend: str) -> str:
    """Where the tensors of a backend live: the GPU if there is one and the backend takes it."""
    takes = backends.DEVICES.get(backend, ("cpu",))
    return "cuda" if "cuda" in takes and torch.cuda.is_available() else "cpu"
