"""A benchmark session: the device, the rows that it writes, and the summary at its end."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import isa, peers, rows, summary
from benchmarks.timing import Timing, compare
from gan_engine.ops.samples import OPS
from gan_engine.system import malloc as allocator

ROOT = Path(__file__).parents[1]


class Session:
    """Device, environment, output file and peers, which all comparisons of a run share."""

    def __init__(self, config: pytest.Config) -> None:
        self.device = config.getoption("--benchmark-device") or ("cuda" if torch.cuda.is_available() else "cpu")
        self.seconds = config.getoption("--benchmark-seconds")
        if self.device == "cpu" and (reason := isa.mixture()):
            raise pytest.UsageError(f"--benchmark: {reason}")
        self.environment = rows.environment(self.device)
        now = datetime.datetime.now().strftime("%Y-%m-%d-%H%M%S")
        default = ROOT / "runs" / "benchmarks" / f"{now}-{rows.file_name(self.environment)}.jsonl"
        self.path = config.getoption("--benchmark-rows") or default
        peers_path = config.getoption("--benchmark-peers")
        self.peers = peers.load(peers_path, OPS) if peers_path else {}
        self.peer_name = peers_path.resolve().stem if peers_path else ""
        self.errors: dict[Any, dict[str, str]] = {}  # {case: {name: error}}, from the check against the definition
        self.measured = False
        torch.backends.cudnn.benchmark = True

    def compare(
        self, case: Mapping[str, str], roles: Mapping[str, str], calls: Mapping[str, Any], errors: Mapping[str, str]
    ) -> dict[str, Timing]:
        """Time `calls` and write their rows. Calls in `errors` are not timed: a wrong result has no speed."""
        timed = {name: call for name, call in calls.items() if name not in errors}
        tuned = case["malloc"] == "tuned"
        timings = compare(timed, seconds=self.seconds, device=self.device, tuned=tuned)
        timings |= {name: Timing(error=error) for name, error in errors.items()}
        rows.append(self.path, rows.rows_of({**self.environment, **case}, roles, timings))
        self.measured = True
        return timings


@pytest.fixture(scope="session")
def session(pytestconfig: pytest.Config) -> Session:
    pytestconfig.stash[_SESSION] = Session(pytestconfig)
    return pytestconfig.stash[_SESSION]


_SESSION = pytest.StashKey[Session]()


@pytest.fixture
def malloc(request: pytest.FixtureRequest) -> str:
    """The setting of the C allocator. Tuning cannot be undone, so benchmarks with the default setting run first."""
    if request.param == "tuned":
        done = allocator.tune()
        if not done.startswith("malloc tuned"):
            pytest.skip(done)
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "malloc" in metafunc.fixturenames:
        asked = metafunc.config.getoption("--benchmark-malloc")
        on_gpu = (metafunc.config.getoption("--benchmark-device") or "cuda") == "cuda" and torch.cuda.is_available()
        # Tensors on a GPU do not come from malloc.
        settings = ["default"] if on_gpu else ["default", "tuned"] if asked == "both" else [asked]
        metafunc.parametrize("malloc", settings, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    words = config.getoption("--benchmark-filter").split()
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    deselected = [item for item in ours if not all(word in item.name for word in words)]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
    kept = [item for item in items if item not in deselected]
    items[:] = sorted(kept, key=_is_tuned)


def _is_tuned(item: pytest.Item) -> bool:
    return hasattr(item, "callspec") and item.callspec.params.get("malloc") == "tuned"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = config.stash.get(_SESSION, None)
    if session is None or not session.measured:
        return
    measured = rows.read(session.path)
    text = summary.table(measured)
    written = [session.path, session.path.with_suffix(".txt"), session.path.with_suffix(".png")]
    written[1].write_text(text)
    summary.plot(measured, written[2])
    terminalreporter.section("benchmarks")
    terminalreporter.write(text)
    terminalreporter.write_line(f"\nWritten: {', '.join(map(str, written))}")
