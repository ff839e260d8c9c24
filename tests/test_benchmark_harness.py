"""The benchmark harness times right results only, compares them fairly, and reports errors."""

import importlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import peers, rows, summary
from benchmarks.check import wrong_results
from benchmarks.steps import MODES, _second_order_functional, copy_floor, step
from benchmarks.timing import Timing, compare, peak_mib
from gan_engine.system import malloc

ROOT = Path(__file__).parents[1]
CASE = {"op": "bias_act", "sample": "4x128x128x128", "dtype": "fp32", "mode": "forward+backward", "malloc": "default"}
ENVIRONMENT = rows.environment("cpu")
on_linux = pytest.mark.skipif(platform.system() != "Linux", reason="only measured on Linux")
on_glibc = pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in getattr(os, "confstr_names", {}), reason="not glibc")


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_module_can_be_imported(path):
    importlib.import_module(f"benchmarks.{path.stem}")


def test_quantiles():
    timing = Timing(tuple(float(ms) for ms in (5, 1, 4, 2, 3)))
    assert (timing.quantile(0.2), timing.median, timing.quantile(0.8)) == (1, 3, 4)
    assert Timing((7.0,)).quantile(0.2) == 7


def test_peers_take_turns_and_an_error_leaves_the_others():
    calls = []

    def fail():
        raise ValueError("no\nmore")

    timings = compare(
        {"slow": lambda: (calls.append("slow"), time.sleep(0.004)), "fast": lambda: calls.append("fast"), "bad": fail},
        seconds=0,
        rounds=(4, 9),
    )
    assert timings["bad"] == Timing(error="ValueError: no")
    assert len(timings["slow"].ms) == len(timings["fast"].ms) == 4
    assert timings["slow"].median > max(4, timings["fast"].median)
    assert all({*calls[-2 * i - 2 : len(calls) - 2 * i]} == {"slow", "fast"} for i in range(4))


def test_rounds_end_at_the_most():
    assert len(compare({"one": lambda: None}, seconds=60, rounds=(1, 3))["one"].ms) == 3


@on_linux
def test_peak_memory_counts_what_is_freed_again():
    peak = peak_mib(lambda: torch.ones(2**23) + 1)
    if peak is None:
        pytest.skip("/proc/self/clear_refs cannot be written here")
    assert 60 < peak < 80


@on_glibc
def test_peak_memory_of_tuned_malloc_is_without_the_holes_of_its_heap():
    code = """
import torch
from benchmarks.timing import peak_mib
from gan_engine.system import malloc

def call():  # holds 16 MiB, then 17, has a hole of 8 by then, and small blocks that the heap grows for
    small = [torch.ones(2**14) for _ in range(64)]
    a, b = torch.ones(2**21), torch.ones(2**21)
    del a
    return small, b, torch.ones(9 * 2**18)

torch.set_num_threads(1)
malloc.tune()
kept = [torch.ones(2**21) for _ in range(8)]
del kept[::2]
call()
print(peak_mib(call, tuned=True))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    if done.stdout == "None\n":
        pytest.skip("/proc/self/clear_refs cannot be written here")
    assert 20 < float(done.stdout) < 23


@pytest.fixture
def call():
    """f(x [2, 3], b [3]) = x^2 b, x, b and dy, in float64."""
    x, b, dy = (
        torch.randn(s, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) for s in ((2, 3), 3, (2, 3))
    )
    return lambda x, b: x * x * b, [x.requires_grad_(), b.requires_grad_()], dy


def test_modes(call):
    f, (x, b), dy = call
    g_x, g_b = 2 * x * b * dy, (x * x * dy).sum(0)
    by_x, by_b, by_dy = g_x * 2 * b * dy + g_b * 2 * x * dy, (g_x * 2 * x * dy).sum(0), g_x * 2 * x * b + g_b * x * x
    want = (f(x, b), g_x, g_b, by_x, by_b, by_dy)
    for mode, count in zip(MODES, (1, 3, 6), strict=True):
        torch.testing.assert_close(step(f, mode, [x, b], dy)(), want[:count])
    torch.testing.assert_close(_second_order_functional(f, [x.detach(), b.detach()], dy), want)


def test_the_floor_moves_what_every_order_moves():
    x, y = torch.randn(10), torch.randn(30)
    copied = [copy_floor(mode, [x], y) for mode in MODES]
    assert [dict(zip(c.__code__.co_freevars, (v.cell_contents for v in c.__closure__)))["passes"] for c in copied] == [
        1,
        2,
        3,
    ]
    assert all(c() == () for c in copied)


def test_wrong_results_are_reported(call):
    f, inputs, dy = call
    inputs, dy = [t.detach().float().requires_grad_() for t in inputs], dy.float()

    def fails(x, b):
        raise RuntimeError("unfinished")

    functions = {
        "same": f,
        "value": lambda x, b: f(x, b) * 1.001,
        "gradient": lambda x, b: f(x, b.detach()),
        "bad": fails,
    }
    wrong = wrong_results(functions, "forward", inputs, dy, eager=f, reference=f)
    assert set(wrong) == {"value", "bad"}
    assert "want an error of at most" in wrong["value"] and wrong["bad"] == "RuntimeError: unfinished"
    nan = wrong_results(
        {"nan": lambda x, b: f(x, b) * float("nan")}, "forward+backward", inputs, dy, eager=f, reference=f
    )
    assert "nan" in nan


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_slope_that_rounding_chooses_is_not_compared(mode: str):
    def relu(x: Tensor, shift: float = 0.0) -> Tensor:
        return F.relu(x + shift)

    def error(function: Callable[[Tensor], Tensor], near: float = 1.0) -> str:
        x = torch.tensor([1.0, -1.0, near], requires_grad=True)
        return wrong_results({"": function}, mode, [x], torch.ones(3), eager=relu, reference=relu).get("", "")

    assert error(lambda x: relu(x, -2e-8), near=1e-8) == ""
    assert "result" in error(lambda x: relu(x, -2e-3), near=1e-3)
    assert "result" in error(lambda x: relu(x) + (x - x.detach()) * (x < 0))  # a wrong slope where y is 0


def test_what_one_more_rounding_changes_is_not_wrong():
    def sine(x: Tensor) -> Tensor:
        return torch.sin(1000 * x)

    def exact(x: Tensor) -> Tensor:
        return sine(x.double()).to(x.dtype)

    x = torch.rand(1000)
    functions = {"rounded": sine, "another factor": lambda x: exact(x * (1 + 1e-6))}
    assert set(wrong_results(functions, "forward", [x], torch.ones(1000), eager=exact, reference=sine)) == {
        "another factor"
    }


def measured(malloc: str = "default", **ms: float) -> list[dict]:
    roles = {"cpu": "ours", "eager": "eager", "channels_last": "eager", "compile": "compile", "copy": "floor"}
    timings = {name: Timing((value,) * 3, 10.0) for name, value in ms.items()}
    timings["broken"] = Timing(error="wrong: by much")
    case = {**ENVIRONMENT, **CASE, "malloc": malloc}
    return rows.rows_of(case, {**roles, "broken": "ours"}, timings)


def test_ratios_are_to_the_fastest_of_a_role():
    ours, *_, broken = measured(cpu=2.0, eager=9.0, channels_last=8.0, compile=1.0, copy=0.5)
    assert (ours["vs_eager"], ours["vs_compile"], ours["vs_peer"], ours["over_floor"]) == (4.0, 0.5, None, 4.0)
    assert broken["error"] == "wrong: by much" and "ms" not in broken


def test_rows_survive_a_kill_and_count_once(tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    rows.append(path, measured(cpu=2.0, eager=9.0))
    rows.append(path, measured(cpu=3.0, eager=9.0))
    with path.open("a") as file:
        file.write('{"op": "bias_')
    assert [row.get("ms") for row in rows.read(path)] == [3.0, 9.0, None]


def test_the_summary_shows_slower_cases_and_no_speed_for_wrong_results(tmp_path):
    found = measured(cpu=2.0, eager=9.0, compile=1.0, copy=0.5) + measured("tuned", cpu=1.0, eager=9.0, compile=2.0)
    text = summary.table(found)
    assert max(map(len, text.splitlines())) <= 120
    line = next(line for line in text.splitlines() if " cpu " in line)
    assert "4.50x" in line and "0.50x <" in line and "4.00x" in line
    assert any("broken" in line and "wrong" in line and "x" not in line.split("wrong")[1] for line in text.splitlines())
    assert "broken: wrong: by much" in text
    summary.plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_whole_steps_sum_their_phases_up_when_all_are_there():
    def measured(mode, ours, eager, compiled=None):
        row = {"op": "family step", "sample": "gan", "dtype": "fp32", "mode": mode, "malloc": "tuned"}
        row |= {"device": "a", "isa": "avx2", "threads": 1, "commit": "b"}
        row |= {"per_step": {"G": 0.5, "D": 0.75, "D + penalties": 0.25, "G path length": 0}, "peak_mib": 1.0}
        ms = {"ours": ours, "eager": eager, "compile": compiled}
        return [row | {"role": role, "peer": role, "ms": value} for role, value in ms.items() if value is not None]

    phases = [*measured("G", 2.0, 4.0, 3.0), *measured("D", 4.0, 4.0, 5.0)]
    assert summary.whole_steps(phases) == []
    (row,) = summary.whole_steps([*phases, *measured("D + penalties", 4.0, 8.0)])
    assert (row["mode"], row["ms"]) == ("whole step", 0.5 * 2 + 0.75 * 4 + 0.25 * 4)
    assert row["vs_eager"] == (0.5 * 4 + 0.75 * 4 + 0.25 * 8) / 5
    assert row["vs_compile"] is None  # compile has no row for penalties
    (row,) = summary.whole_steps([*phases, *measured("D + penalties", 4.0, 8.0, 6.0)])
    assert row["vs_compile"] == (0.5 * 3 + 0.75 * 5 + 0.25 * 6) / 5
    for difference in ({"device": "c"}, {"isa": "avx512"}, {"threads": 2}):
        other = [row | difference for row in measured("D + penalties", 4.0, 8.0)]
        assert summary.whole_steps([*phases, *other]) == []


def test_another_librarys_ops(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    adapter = tmp_path / "some_adapter.py"
    adapter.write_text("def bias_act(x): return 'file'")
    package = tmp_path / "some_library" / "ops"
    package.mkdir(parents=True)
    (tmp_path / "some_library" / "__init__.py").write_text("NAME = 'package'")
    (package / "__init__.py").touch()
    (package / "bias_act.py").write_text("from .. import NAME\ndef bias_act(x): return NAME")
    assert peers.load(adapter, ["bias_act", "upfirdn2d"])["bias_act"](0) == "file"
    assert peers.load(package, ["bias_act", "upfirdn2d"])["bias_act"](0) == "package"
    with pytest.raises(ValueError, match=r"want at least one of upfirdn2d in .*, got none"):
        peers.load(package, ["upfirdn2d"])
    with pytest.raises(FileNotFoundError, match="want a Python file or a directory"):
        peers.load(tmp_path / "missing", ["bias_act"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["benchmarks"], "only collected with --benchmark"),
        (["--benchmark", "--benchmark-filter", "bias_act bf16 second tuned"], "test_op[tuned-bias_act-"),
    ],
)
def test_benchmarks_are_only_collected_with_the_flag(flags, said):
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "--benchmark-device", "cpu"]
    done = subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True)
    assert said in done.stdout, done.stdout + done.stderr
    functions = [line for line in done.stdout.splitlines() if "<Function" in line]
    assert all("tuned" in line and "bf16" in line for line in functions) and bool(functions) == ("--benchmark" in flags)


@on_glibc
def test_malloc_is_tuned():
    code = "from gan_engine.system import malloc; print(malloc.tune()); print(malloc.tune())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line[:13] for line in done.stdout.splitlines()] == ["malloc tuned:"] * 2


def test_malloc_says_why_it_is_not_tuned(monkeypatch):
    monkeypatch.setattr(malloc, "_has_glibc", lambda: False)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert malloc.tune() == "malloc not tuned: want glibc, got another C library"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert malloc.tune() == "malloc not tuned: want Linux, got Darwin"
