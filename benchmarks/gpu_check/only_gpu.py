"""A plug-in of pytest that keeps the tests of GPU backends, and of these the share of one process.

`pytest -p benchmarks.gpu_check.only_gpu`, with GPU_CHECK_SHARE=2/8 for the second of eight shares. A test stays if a
fixture gives it the backend cuda or triton, or if it names a GPU as its need. All tests of one operator are in one
share, because they compile the same kernels. The tests of torch.compile, which take seconds each, come last.

GPU_CHECK_SECONDS=60 skips the tests that have not begun after 60 seconds, and says how many they were.
"""

import os
import time

import pytest

GPU = {"cuda", "triton"}
FIXTURES = ("backend", "fastest")


BEGIN, SECONDS = time.monotonic(), float(os.environ.get("GPU_CHECK_SECONDS", "inf"))
SHARE = os.environ.get("GPU_CHECK_SHARE", "1/1")

_too_late: list[str] = []


def needs_gpu(item: pytest.Item) -> bool:
    """True if a fixture gives the test a GPU backend, or if the test is skipped without a GPU."""
    given = getattr(item, "callspec", None)
    if given is not None and any(given.params.get(name) in GPU for name in FIXTURES):
        return True
    reasons = (str(mark.kwargs.get("reason", "")) for mark in item.iter_markers("skipif"))
    return any(reason.startswith("no CUDA") for reason in reasons)


def subject(item: pytest.Item) -> str:
    """What tests must share to compile the same kernels: their file, and the operator that they are about."""
    given = getattr(item, "callspec", None)
    op = None if given is None else given.params.get("op")
    return f"{item.path.name} {getattr(getattr(op, 'function', None), '__name__', '')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    index, _, shares = SHARE.partition("/")
    ours = [item for item in items if needs_gpu(item)]
    sizes: dict[str, int] = {}
    for item in ours:
        sizes[subject(item)] = sizes.get(subject(item), 0) + 1
    kept = set(_dealt(sizes, int(shares))[int(index) - 1])
    chosen = [item for item in ours if subject(item) in kept]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
    items[:] = sorted(chosen, key=lambda item: "inductor" in item.name)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() - BEGIN > SECONDS:
        _too_late.append(item.nodeid)
        pytest.skip("no time is left")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _too_late:
        terminalreporter.write_line(f"case GPU tests {SHARE}: skipped, as no time is left: {len(_too_late)} tests")


def _dealt(sizes: dict[str, int], shares: int) -> list[list[str]]:
    """The subjects in shares of about equal numbers of tests: the largest subject goes to the smallest share."""
    dealt: list[list[str]] = [[] for _ in range(shares)]
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        min(dealt, key=lambda share: sum(sizes[other] for other in share)).append(name)
    return dealt
