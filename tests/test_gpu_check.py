"""`make gpu-check` keeps its results if a stage fails, hangs or has no time left. These stages need no GPU."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_check

ROOT = Path(__file__).parents[1]
ROW = {
    **{
        "date": "2026-01-31T12:00:00+00:00",
        "commit": None,
        "device": "Fake GPU",
        "isa": None,
        "threads": 1,
        "gan-engine": None,
    },
    **{"torch": "2.11.0", "triton": None, "python": "3.12.1", "op": "bias_act", "sample": "4x128x128x128"},
    **{"dtype": "fp32", "mode": "forward", "malloc": "default", "role": "ours", "peer": "triton", "ms": 0.125},
    **{"peak_mib": None, "vs_eager": None, "vs_compile": None, "vs_peer": None, "over_floor": None, "error": None},
}
DEVICE = {"name": "Fake GPU", "capability": "9.0", "memory_gib": 80.0}


@pytest.fixture
def check(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "GRACE", 0.5)
    rows = tmp_path / "rows.jsonl"

    def run(*stages, budget=60.0):
        todo = [gpu_check.Stage(name, (sys.executable, "-c", code), seconds) for name, code, seconds in stages]
        code = gpu_check.check(DEVICE, {"torch": "2.11.0"}, todo, rows, tmp_path / "out" / "fake", budget)
        text = (tmp_path / "out" / "fake.md").read_text()
        return code, json.loads((tmp_path / "out" / "fake.json").read_text()), text

    run.rows = rows
    return run


def test_everything_passes(check, monkeypatch):
    write = f"open({str(check.rows)!r}, 'w').write({json.dumps(ROW)!r} + '\\n')"
    monkeypatch.setattr("benchmarks.rows.commit", lambda: "abc1234+")
    code, found, text = check(("build", "print('built')", 20), ("benchmarks", write, 20))
    assert code == 0
    assert found["commit"] == "abc1234+"  # spelt as in the rows
    assert [stage["status"] for stage in found["stages"]] == ["passed", "passed"]
    assert found["device"] == DEVICE and found["versions"] == {"torch": "2.11.0"}
    assert found["rows"] == [ROW]
    assert "Fake GPU" in text and "torch 2.11.0" in text and "0.125" in text


def test_a_failure_is_reported_and_does_not_stop_the_other_stages(check):
    code, found, text = check(("op tests", "print('FAILED tests/a.py::b - wrong'); exit(1)", 20), ("last", "", 20))
    assert code == 1
    assert [stage["status"] for stage in found["stages"]] == ["failed", "passed"]
    assert found["stages"][0]["failures"] == ["FAILED tests/a.py::b - wrong"]
    assert "tests/a.py::b - wrong" in text


def test_a_stage_that_hangs_is_ended_and_its_rows_are_kept(check):
    hang = (
        f"import subprocess, sys; file = open({str(check.rows)!r}, 'w');"
        f"file.write({json.dumps(ROW)!r} + '\\n' + {json.dumps(ROW)[:40]!r}); file.flush();"
        "print('tests/a.py::b[c d] PASSED [ 10%]'); print('tests/a.py::e SKIPPED (no GPU) [ 20%]');"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    begin = time.monotonic()
    code, found, _ = check(("benchmarks", hang, 2), ("last", "", 20))
    assert time.monotonic() - begin < 20
    assert code == 1
    assert [stage["status"] for stage in found["stages"]] == ["out of time", "passed"]
    assert found["stages"][0]["tests"] == {"passed": 1, "skipped": 1}
    assert found["rows"] == [ROW]


def test_no_stage_begins_after_the_budget(check):
    code, found, _ = check(("first", "import time; time.sleep(60)", 60), ("second", "", 60), budget=1.5)
    assert code == 1
    assert [stage["status"] for stage in found["stages"]] == ["out of time", "out of time"]
    assert found["stages"][1]["seconds"] == 0.0


def test_the_stages_fit_into_eight_minutes(tmp_path):
    *first, last = gpu_check.stages(tmp_path)
    assert sum(stage.seconds for stage in first) < 420
    assert all((ROOT / part).exists() for stage in [*first, last] for part in stage.command if part == "tests/ops")


def test_without_a_gpu_it_says_so_and_stops(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--out", str(tmp_path / "out")])
    assert gpu_check.main() == 2
    assert "want a CUDA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
