"""Benchmarks hold our kernels, PyTorch and torch.compile to one instruction set, and no summary mixes two sets."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import isa, page, rows, summary
from benchmarks.timing import Timing
from gan_engine.system import native

ROOT = Path(__file__).parents[1]
ISAS = native.cpu.module.isas() if native.WHY_NO_CPU is None else []
has_avx2 = pytest.mark.skipif("avx2" not in ISAS, reason=f"this machine runs {', '.join(ISAS) or 'no C++ kernels'}")


def pytest_benchmark(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "--benchmark", "--collect-only", "-p", "no:cacheprovider", *flags]
    clean = isa.environment_for("", os.environ) | environment
    return subprocess.run(
        [*command, "--benchmark-device", "cpu"], cwd=ROOT, env=clean, capture_output=True, text=True, check=False
    )


@has_avx2
@pytest.mark.parametrize("paths", [[], ["benchmarks"]], ids=["without a path", "with a path"])
def test_a_run_holds_our_kernels_and_pytorch_to_the_set(paths):
    done = pytest_benchmark(*paths, "--benchmark-isa", "avx2", "--benchmark-filter", "bias_act bf16 second tuned")
    assert "instruction set: avx2 for our kernels, avx2 for PyTorch" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("test session starts") == 1 and "test_op[tuned-" in done.stdout


def test_a_set_that_the_machine_lacks_is_refused():
    done = pytest_benchmark("--benchmark-isa", "avx1024")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = f"this machine runs {', '.join(ISAS)}, got avx1024" if ISAS else native.WHY_NO_CPU
    assert f"--benchmark-isa: {said}" in done.stderr


@has_avx2
def test_a_set_that_pytorch_cannot_be_held_to_is_refused(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert isa.refusal(ISAS[0]) is None
    assert isa.refusal("portable") == f"PyTorch cannot be held to portable on aarch64, and would run {ISAS[0]}"


def test_the_widest_set_takes_limits_from_the_environment():
    limited = isa.environment_for("avx2", {"HOME": "/"})
    assert limited["ATEN_CPU_CAPABILITY"] == "avx2" and limited["HOME"] == "/"
    assert isa.environment_for("avx512", limited) == {"HOME": "/"}


@has_avx2
def test_every_library_of_pytorch_obeys_the_environment():
    code = """
import torch
torch.ones(64, 64) @ torch.ones(64, 64)
torch.nn.functional.conv2d(torch.ones(1, 64, 32, 32), torch.ones(64, 64, 3, 3))
from torch._inductor import cpp_builder, cpu_vec_isa
print("ATen", torch.backends.cpu.get_cpu_capability())
print("inductor", cpu_vec_isa.pick_vec_isa(), *cpp_builder._get_cpu_arch_cflags("g++"))
"""
    verbose = {"MKL_VERBOSE": "1", "ONEDNN_VERBOSE": "1", "TORCHINDUCTOR_VEC_ISA_OK": "1"}
    environment = isa.environment_for("avx2", os.environ) | verbose
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "ATen AVX2" in done.stdout and "inductor avx2 march=x86-64-v3" in done.stdout
    convolutions = [line for line in done.stdout.splitlines() if "exec,cpu,convolution" in line]
    assert convolutions and all("avx512" not in line for line in convolutions)
    assert "(Intel(R) AVX-512)" not in done.stdout


@has_avx2
@pytest.mark.skipif(isa.of_pytorch() == "portable", reason="PyTorch runs no wider set")
def test_two_sets_at_once_are_named(monkeypatch):
    before = native.cpu.module.isa()
    try:
        native.cpu.module.use_isa("portable")
        assert isa.in_use() == "portable" and "our kernels run portable and PyTorch runs" in isa.mixture()
        native.cpu.module.use_isa(isa.of_pytorch())
        assert isa.mixture() is None
    finally:
        native.cpu.module.use_isa(before)


def measured(name: str | None, ours: float) -> list[dict]:
    case = {"op": "bias_act", "sample": "4x4", "dtype": "fp32", "mode": "forward", "malloc": "tuned"}
    environment = rows.environment("cpu") | {"device": "Some CPU", "isa": name, "threads": 2}
    timings = {"cpu": Timing((ours,) * 3, 1.0), "eager": Timing((6.0,) * 3, 1.0)}
    return rows.rows_of(environment | case, {"cpu": "ours", "eager": "eager"}, timings)


def test_rows_name_what_they_were_measured_on():
    assert rows.environment("cpu")["isa"] == isa.in_use()
    assert rows.machine(measured("avx2", 1.0)[0]) == "Some CPU, avx2, 2 threads"
    assert rows.file_name(measured("avx2", 1.0)[0]) == "some-cpu-avx2-2-threads"


def test_tables_and_panels_are_of_one_set(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows.append(path, [*measured("avx512", 1.0), *measured("avx2", 3.0)])
    old = {key: value for key, value in measured(None, 2.0)[0].items() if key != "isa"}
    rows.append(path, [old])
    found = rows.read(path)
    assert [row["isa"] for row in found] == ["avx512", "avx512", "avx2", "avx2", None]
    _, wide, narrow, unnamed = summary.table(found).split("Some CPU, ")
    assert wide.startswith("avx512, 2 threads") and "6.00x" in wide and "2.00x" not in wide
    assert narrow.startswith("avx2, 2 threads") and "2.00x" in narrow and "6.00x" not in narrow
    assert unnamed.startswith("2 threads")
    summary.plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_shows_sets_beside_each_other():
    marks = ["table: operators, fp32, 2 threads", "table: lost", "table: discriminators"]
    text = "a\n" + "".join(f"<!-- {mark} -->\nold\n<!-- end of table -->\n" for mark in marks)
    of_D = [
        {"isa": name, "device": "Some CPU", "D": "vit", "level": 1, "autograd ms": 6.0, "level None ms": ms}
        | {"aligned ms": None, "random ms": 4.0, "level None error": 2e-7, "random error": 3.0}
        | {"autograd MiB": 9.6, "level None MiB": 7.0}
        for name, ms in (("avx512", 3.0), ("avx2", 2.0))
    ]
    compared = [*measured("avx512", 1.0), *measured("avx2", 9.0)]
    found = page.written(text, compared, of_D)
    assert "| `bias_act`, 4x4 | forward | 0.67 | - | 6.00 | - |\n" in found
    assert found.index("avx2, Some CPU: than eager") < found.index("avx512, Some CPU: than eager")
    assert "| Some CPU, avx2, 2 threads | bias_act | 4x4 | fp32 | fwd | tuned | 0.67 (eager) |\n" in found
    assert "Some CPU, avx512, 2 threads |" not in found
    assert "| vit | 1 | 3.00 / - / 1.50 | 2.00 / - / 1.50 | 2e-07 / - / 3e+00 | 10 / 7 |\n" in found
    assert "old" not in found and found.startswith("a\n") and page.written(found, compared, of_D) == found
