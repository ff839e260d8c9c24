"""`pytest --benchmark` runs benchmarks/ with pytest-benchmark. Without this flag nothing there is collected.

Write paths with an equals sign: --benchmark-peers=DIR. pytest searches for its root directory before it knows our
options, and would take a path that stands alone for a folder of tests.
"""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gan_engine benchmarks")
    group.addoption("--benchmark", action="store_true", help="Run benchmarks/ instead of tests/, if no path is given.")
    group.addoption(
        "--benchmark-filter",
        default="",
        metavar="TEXT",
        help="Run only benchmarks whose name contains every word of TEXT, for example 'bias_act fp32 4x128'.",
    )
    group.addoption(
        "--benchmark-rows",
        type=Path,
        metavar="=PATH",
        help="Append each measurement to PATH as soon as it is made, one JSON object per line. The summary (.txt) and "
        "the plot (.png) are written to the same folder. Default: a new file in runs/benchmarks.",
    )
    group.addoption(
        "--benchmark-peers",
        type=Path,
        metavar="=DIR",
        help="Also measure the ops of another library: a Python file or package whose functions have our names.",
    )
    group.addoption(
        "--benchmark-malloc",
        choices=("default", "tuned", "both"),
        default="both",
        help="Settings of glibc's malloc for CPU tensors (see gan_engine.system.malloc). Default: both.",
    )
    group.addoption(
        "--benchmark-seconds",
        type=float,
        default=4.0,
        metavar="SECONDS",
        help="Time for the rounds of one comparison, without compilation. At least 5 rounds are run. Default: 4.",
    )
    group.addoption(
        "--benchmark-device",
        choices=("cpu", "cuda"),
        help="The device to measure. Default: the GPU, if there is one, else the CPU.",
    )
    group.addoption(
        "--benchmark-isa",
        metavar="SET",
        help="The instruction set of the CPU, for our kernels, PyTorch and torch.compile: avx512, avx2 or portable. "
        "Default: the widest that this machine runs.",
    )


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--benchmark"):
        return
    if not config.pluginmanager.hasplugin("benchmark"):
        raise pytest.UsageError("--benchmark: want pytest-benchmark (pip install pytest-benchmark), got none")
    if config.getoption("numprocesses", None):
        raise pytest.UsageError("--benchmark: want one process, got -n; parallel benchmarks disturb one another")
    if config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = [str(BENCHMARKS)]
    if isa := config.getoption("--benchmark-isa"):
        _hold_to(isa, config)
    # pytest-benchmark's own table does not show peers, so it is printed only to compare runs.
    config.option.benchmark_quiet = config.option.benchmark_quiet or not config.option.benchmark_compare


def _hold_to(isa: str, config: pytest.Config) -> None:
    """Run everything on that instruction set, in this process or in the one that it becomes."""
    from benchmarks import isa as sets
    from gan_engine.system import native

    if reason := sets.refusal(isa):
        raise pytest.UsageError(f"--benchmark-isa: {reason}")
    sets.run_again(isa, [sys.executable, *sys.orig_argv[1:]])
    native.cpu.module.use_isa(isa)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    ignored = collection_path.is_relative_to(BENCHMARKS) and not config.getoption("--benchmark")
    return True if ignored else None


def pytest_report_header(config: pytest.Config) -> str | list[str] | None:
    if config.getoption("--benchmark"):
        from benchmarks import isa
        from gan_engine import backends

        sets = f"instruction set: {isa.in_use()} for our kernels, {isa.of_pytorch()} for PyTorch and torch.compile"
        return [sets] + [f"{name}: {reason}" for name, reason in backends.MISSING.items() if reason is not None]
    asked = any(Path(arg.partition("::")[0]).resolve().is_relative_to(BENCHMARKS) for arg in config.args)
    return "benchmarks: only collected with --benchmark" if asked and not config.getoption("--benchmark") else None
