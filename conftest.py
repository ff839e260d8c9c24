"""`pytest --benchmark`: a flag on top of pytest-benchmark, without which nothing in benchmarks/ is collected.

Paths are given with an equals sign, --benchmark-peers=DIR: pytest looks for its root before it knows our options, and
takes an existing path that stands alone for one to search.
"""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gan_engine benchmarks")
    group.addoption("--benchmark", action="store_true", help="Run benchmarks/, in place of tests/ if no path is given.")
    group.addoption(
        "--benchmark-filter",
        default="",
        metavar="TEXT",
        help="Run the benchmarks whose name holds every word of TEXT: 'bias_act fp32 4x128'.",
    )
    group.addoption(
        "--benchmark-rows",
        type=Path,
        metavar="=PATH",
        help="Append every measurement to PATH at once, one JSON object a line; the summary (.txt) and the plot (.png) "
        "go beside it. Default: a new file in runs/benchmarks.",
    )
    group.addoption(
        "--benchmark-peers",
        type=Path,
        metavar="=DIR",
        help="Measure another library's ops too: a Python file or package with functions that have our names.",
    )
    group.addoption(
        "--benchmark-malloc",
        choices=("default", "tuned", "both"),
        default="both",
        help="How glibc gets memory for CPU tensors (see gan_engine.system.malloc).",
    )
    group.addoption(
        "--benchmark-seconds",
        type=float,
        default=4.0,
        metavar="SECONDS",
        help="Time for the rounds of one comparison, beside compilation; at least 5 rounds are run. Default: 4.",
    )
    group.addoption(
        "--benchmark-device", choices=("cpu", "cuda"), help="Where to measure. Default: the GPU, if there is one."
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--benchmark"):
        return
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("--benchmark needs pytest-benchmark: pip install pytest-benchmark")
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("--benchmark measures one thing at a time: run it without -n")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(BENCHMARKS)]
    # Its table says nothing of peers; it is for comparing runs.
    config.option.benchmark_quiet = config.option.benchmark_quiet or not config.option.benchmark_compare


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    left_out = collection_path.is_relative_to(BENCHMARKS) and not config.getoption("--benchmark")
    return True if left_out else None


def pytest_report_header(config: pytest.Config) -> str | list[str] | None:
    if config.getoption("--benchmark"):
        from gan_engine import backends

        return [f"{name}: {reason}" for name, reason in backends.MISSING.items() if reason is not None]
    asked = any(Path(arg.partition("::")[0]).resolve().is_relative_to(BENCHMARKS) for arg in config.args)
    return "benchmarks: only collected with --benchmark" if asked and not config.getoption("--benchmark") else None
