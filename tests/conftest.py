"""Fixtures for all tests: each backend in turn, and fresh memory filled with NaN instead of accidental zeros."""

import gc
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from gan_engine import backends
from gan_engine.system import native
from tests import compiled

# Each test run has its own cache: a killed compilation leaves a broken file, which a later run would load.
_compiled = tempfile.TemporaryDirectory(prefix="gan_engine-inductor-", ignore_cleanup_errors=True)
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _compiled.name
# Skip PyTorch's test of the compiler for each vector instruction set, which takes 8 s in every process.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")
# What Inductor's C++ compiler makes is kept for later runs: the same source gives the same name.
compiled.link(Path(_compiled.name))
compiled.use_gold(Path(_compiled.name))
# Tests keep their decoded data out of the user's cache.
_decoded = tempfile.TemporaryDirectory(prefix="gan_engine-decoded-", ignore_cleanup_errors=True)
os.environ["GAN_ENGINE_CACHE"] = _decoded.name
# What takes long and is the same in all processes of a test run, they share: those of pytest-xdist and those of tests.
if "GAN_ENGINE_TESTS_SHARE" not in os.environ:
    _shared = tempfile.TemporaryDirectory(prefix="gan_engine-shared-", ignore_cleanup_errors=True)
    os.environ["GAN_ENGINE_TESTS_SHARE"] = _shared.name
# Tests compare kernels with the reference themselves, and more strictly; test_self_check.py turns the self-check on.
os.environ["GAN_ENGINE_CHECK"] = "0"

# torch.manual_seed notes a traceback for each kind of device that is not there, which takes 0.4 ms in a test.
for _devices in (torch.cuda, torch.xpu, torch.mtia):
    if not _devices.is_available():
        _devices.manual_seed_all = lambda seed: None

# A shell starts its background jobs deaf to SIGINT, and so are their children, which tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []

# The C++ kernels are built once per instruction set and tested on each that this CPU can run.
BACKENDS = ["cuda", "triton", *(f"cpu-{isa}" for isa in ISAS or ["none"]), "pytorch", "reference"]


# Test files that take the longest. Parallel processes must start with them, or one process works alone at the end. Some
# hold few tests, and pytest-xdist would put them last without --no-loadscope-reorder. test_properties.py measures the
# errors of PyTorch that the interpreted and the emulated kernels are judged by, so these come behind it.
LONG = (
    *("test_properties.py", "test_export.py", "test_train_cli.py", "test_triton_interpreted.py"),
    *("test_cuda_emulation.py", "test_gpu_check.py", "test_distributed.py", "test_dynamic_sizes.py"),
    *("test_fake_cuda.py", "test_recorders.py", "test_compile_gpu.py", "test_translation_formats.py"),
)


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """A function: after full_disk(n) no file can pass n bytes, in C++ either. Needs no rights of root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from the tests: none of the 700,000 objects that they are made of is garbage.

    To look for it takes a third of the time of collecting them, and half a second in each full round later.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.hookimpl(trylast=True)  # behind -k, which may leave any of the items
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))
    if config.option.collectonly:
        return
    kept = _without_repeated_skips(items)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_sessionfinish(exitstatus: int) -> None:
    if exitstatus == pytest.ExitCode.OK:  # no compilation was cut short
        compiled.keep(Path(_compiled.name))


def _without_repeated_skips(items: list[pytest.Item]) -> dict[pytest.Item, None]:
    """Each test once for a backend that cannot run here: its skip says why, and thousands more would say it again."""
    kept: dict[pytest.Item, None] = {}
    seen = set()
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        name = parameters.get("backend", parameters.get("fastest"))
        test = item.nodeid.partition("[")[0], name
        if name not in BACKENDS or backends.MISSING[name.partition("-")[0]] is None or test not in seen:
            kept[item] = None
        seen.add(test)
    return kept


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """Make uninitialised memory read as NaN: torch.empty fills it while deterministic algorithms are on."""
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
    """The name of each backend in turn. A backend that cannot run here is skipped with its reason.

    A test module about a single op names the op in OP. Backends that have no kernel for this op are then skipped.
    """
    yield from _run_on(request.param, getattr(request.module, "OP", None))


@pytest.fixture(params=["cuda", "triton", f"cpu-{ISAS[0] if ISAS else 'none'}", "pytorch"])
def fastest(request: pytest.FixtureRequest) -> Iterator[str]:
    """Like `backend`, but only our own kernels, and the C++ kernels only for the widest instruction set."""
    yield from _run_on(request.param, None)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    """The device for a backend's tensors: the GPU if there is one and the backend accepts it, else the CPU."""
    return _device(request.getfixturevalue("fastest" if "fastest" in request.fixturenames else "backend"))


def _device(backend: str) -> str:
    accepted = backends.DEVICES.get(backend, ("cpu",))
    return "cuda" if "cuda" in accepted and torch.cuda.is_available() else "cpu"
