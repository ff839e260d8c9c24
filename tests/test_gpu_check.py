"""`make gpu-check` keeps its results if a stage fails, hangs or has no time left. These stages need no GPU."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import flops, gradient_errors
from benchmarks import rows as measured
from benchmarks.eager import eager_pytorch
from benchmarks.gpu_check import __main__ as command
from benchmarks.gpu_check import cases, check, gpu_tests, ops, page, stages, steps
from gan_engine import models

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
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
def checked(monkeypatch, tmp_path):
    monkeypatch.setattr(stages, "GRACE", 0.5)
    monkeypatch.setattr(check, "GRACE", 0.5)
    rows = tmp_path / "rows.jsonl"

    def run(*todo, budget=60.0):
        made = [stages.Stage(name, (sys.executable, "-c", code), seconds) for name, code, seconds in todo]
        code = check.check(DEVICE, {"torch": "2.11.0"}, made, rows, tmp_path / "out" / "fake", budget, stages.Stop())
        text = (tmp_path / "out" / "fake.md").read_text()
        return code, json.loads((tmp_path / "out" / "fake.json").read_text()), text

    run.rows = rows
    return run


def test_everything_passes(checked, monkeypatch):
    write = f"open({str(checked.rows)!r}, 'w').write({json.dumps(ROW)!r} + '\\n')"
    monkeypatch.setattr("benchmarks.rows.commit", lambda: "abc1234+")
    code, found, text = checked(("build", "print('built')", 20), ("benchmarks", write, 20))
    assert code == 0
    assert found["commit"] == "abc1234+"  # spelt as in the rows
    assert [stage["status"] for stage in found["stages"]] == ["passed", "passed"]
    assert found["device"] == DEVICE and found["versions"] == {"torch": "2.11.0"}
    assert found["rows"] == [ROW]
    assert all(part in text for part in ("Fake GPU", "torch 2.11.0", "capability: 9.0, ", "0.125"))


def test_a_failure_is_reported_and_does_not_stop_the_other_stages(checked):
    code, found, text = checked(("op tests", "print('FAILED tests/a.py::b - wrong'); exit(1)", 20), ("last", "", 20))
    assert code == 1
    assert [stage["status"] for stage in found["stages"]] == ["failed", "passed"]
    assert found["stages"][0]["failures"] == ["FAILED tests/a.py::b - wrong"]
    assert "tests/a.py::b - wrong" in text


def test_a_stage_that_hangs_is_ended_and_its_rows_are_kept(checked):
    hang = (
        f"import subprocess, sys; file = open({str(checked.rows)!r}, 'w');"
        f"file.write({json.dumps(ROW)!r} + '\\n' + {json.dumps(ROW)[:40]!r}); file.flush();"
        "print('tests/a.py::b[c d] PASSED [ 10%]'); print('tests/a.py::e SKIPPED (no GPU) [ 20%]');"
        "subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    )
    begin = time.monotonic()
    code, found, _ = checked(("benchmarks", hang, 2), ("last", "", 20))
    assert time.monotonic() - begin < 20
    assert code == 1
    assert [stage["status"] for stage in found["stages"]] == ["out of time", "passed"]
    assert found["stages"][0]["tests"] == {"passed": 1, "skipped": 1}
    assert found["rows"] == [ROW]


def test_no_stage_begins_after_the_budget(checked):
    code, found, _ = checked(("first", "import time; time.sleep(60)", 60), ("second", "", 60), budget=1.5)
    assert code == 1
    assert [stage["status"] for stage in found["stages"]] == ["out of time", "out of time"]
    assert found["stages"][1]["seconds"] == 0.0


def test_time_that_a_stage_leaves_goes_to_the_next(checked):
    _, found, _ = checked(("first", "", 20), ("second", "", 20), ("third", "", 10), budget=60.0)
    first, second, third = (stage["limit"] for stage in found["stages"])
    assert first == 20 and second > 25 and third > second


def test_cases_say_how_they_ended(checked):
    lines = "print('case a b: done, 1.0 s'); print('case c: skipped: no time is left')"
    _, found, text = checked(("operators", lines, 20))
    assert found["stages"][0]["cases"] == ["a b: done, 1.0 s", "c: skipped: no time is left"]
    assert "* 1 case skipped: no time is left: c" in text and "a b" not in text


def test_a_dry_stage_says_how_many_cases_it_skipped(checked):
    lines = "".join(f"print('case {name}: stopped at its first CUDA call: AssertionError: no CUDA');" for name in "abc")
    collected = "print('4388 tests collected, for 2 processes')"
    code, found, text = checked(
        ("steps", lines + "print('case d: done, 1.0 s')", 20),
        ("GPU tests", collected, 20),
        ("broken", lines + "1/0", 20),
    )
    assert code == 1  # of the last stage alone
    assert [stage["status"] for stage in found["stages"]] == [
        "dry: 3 of 4 skipped",
        "dry: 4388 of 4388 skipped",
        "failed",
    ]
    assert found["stages"][1]["tests"] == {"collected": 4388} and "| 4388 collected |" in text
    assert "* 3 cases stopped at their first CUDA call: AssertionError: no CUDA\n" in text  # names are in the .json
    assert found["stages"][0]["cases"][0].startswith("a: stopped at its first CUDA call")
    assert checked(("steps", lines, 20))[0] == 0


def test_a_dry_build_may_run_out_of_time_but_may_not_fail(tmp_path):
    build, info, *_ = stages.stages(tmp_path / "rows.jsonl", dry=True)
    assert (build.name, info.name) == ("build", "info")
    assert not check.failed(build, "out of time") and check.failed(build, "failed")
    assert check.failed(info, "out of time")
    assert check.failed(stages.stages(tmp_path / "rows.jsonl")[0], "out of time")


KILLED = """
import sys
from benchmarks.gpu_check import __main__ as command, check, stages

check.find_device = lambda: {"name": "Fake GPU"}
check.find_versions = dict
waits = "import os, time; print('began', os.getpid(), flush=True); time.sleep(60)"
codes = {"first": "print('done')", "waits": waits, "last": ""}
made = [stages.Stage(name, (sys.executable, "-c", code), 60) for name, code in codes.items()]
command.stages = lambda *_, **__: made
sys.exit(command.main(["--out", sys.argv[1]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_check_that_is_killed_keeps_the_stages_that_ended(number, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True)

    def result(suffix):
        return next(tmp_path.glob(f"*-fake-gpu{suffix}")).read_text()

    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*.log")) or not re.search(r"^began \d+\n", result(".log"), re.MULTILINE):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    killed = number == signal.SIGKILL
    waiting = "under way" if killed else "interrupted"
    assert [stage["status"] for stage in json.loads(result(".json"))["stages"]] == ["passed", waiting, "not run"]
    assert f"| waits | {waiting}" in result(".md") and "| last  | not run" in result(".md")
    assert process.returncode == (-number if killed else 128 + number) and err == ""
    if killed:  # the stage has outlived the check
        os.kill(int(re.search(r"^began (\d+)", result(".log"), re.MULTILINE)[1]), signal.SIGKILL)
    else:
        assert "\nwaits: interrupted, " in out and "KeyboardInterrupt" not in out
        (written,) = (line for line in out.splitlines() if line.startswith("written: "))
        assert all(f"-fake-gpu{suffix}" in written for suffix in (".md", ".json", ".log"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_hands_on_a_folder_only_if_it_is_given():
    """A dry run writes to another folder than a check, unless the caller names one."""

    def printed(*arguments):
        env = {name: value for name, value in os.environ.items() if name != "OUT"}
        command = ["make", "-n", "gpu-check", *arguments]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout

    assert "--dry-run" in (dry := printed("ARGS=--dry-run")) and "--out" not in dry
    assert "--out elsewhere" in printed("OUT=elsewhere")


@pytest.mark.parametrize(("arguments", "folder"), [([], "benchmarks/results"), (["--dry-run"], "build/gpu-check")])
def test_results_go_to_the_folder_that_help_names(arguments, folder, monkeypatch, capsys):
    monkeypatch.setattr(check, "find_device", lambda: DEVICE)
    monkeypatch.setattr(check, "find_versions", dict)
    names = []
    monkeypatch.setattr(check, "check", lambda device, versions, todo, rows, name, *_: names.append(name))
    command.main(arguments)
    assert [name.parent for name in names] == [ROOT / folder]
    with pytest.raises(SystemExit):
        command.main(["--help"])
    words = " ".join(capsys.readouterr().out.split())
    assert "(default: benchmarks/results; build/gpu-check for a dry run)" in words


def test_the_stages_fit_into_eight_minutes(tmp_path):
    todo = stages.stages(tmp_path / "rows.jsonl", peers=tmp_path)
    assert sum(stage.seconds for stage in todo) + stages.GRACE <= 480
    assert [stage.name for stage in todo][:5] == ["build", "info", "compile kernels", "GPU tests", "steps of dcgan-64"]
    assert all((ROOT / file).exists() for file in (*gpu_tests.FILES, *gpu_tests.OTHER_FILES))
    (left_out,) = [
        stage.name for stage in stages.stages(tmp_path) if stage.name == "another library" and stage.left_out
    ]
    assert left_out


def test_without_a_gpu_it_says_so_and_stops(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert command.main(["--out", str(tmp_path / "out")]) == 2
    assert "gpu-check: want a CUDA GPU" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, and the stages would run")
def test_a_dry_run_names_what_it_skips_at_the_first_cuda_call(capsys):
    assert steps.main(["--dry-run", "dcgan-64"]) == 0
    assert ops.main(["--dry-run"]) == ops.main(["--dry-run", "--sanitize"]) == 0
    ended = dict(line.removeprefix("case ").split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert len(ended) > 30 and all(how.startswith("stopped at its first CUDA call") for how in ended.values())
    assert {
        "dcgan-64 ours",
        "dcgan-64 ours, TF32 off",
        "dcgan-64 compile without penalties",
        "sanitize bias_act",
    } <= set(ended)
    assert steps.main(["dcgan-64"]) == 1  # without --dry-run a missing GPU is a failure
    assert "case dcgan-64 ours: failed" in capsys.readouterr().out


def test_a_case_ends_in_its_time_and_does_not_end_the_others(capsys):
    def slow():
        while True:
            time.sleep(0.01)

    def wrong():
        raise ValueError("of ours")

    todo = {"slow": slow, "wrong": wrong, "good": lambda: None}
    assert cases.run(todo, seconds=60, cap=0.2) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "case slow: stopped after 0 s" and lines[1] == "case wrong: failed: ValueError: of ours"
    assert lines[2].startswith("case good: done")
    assert cases.run({"slow": slow}, seconds=0.4, share=0.5) == 0
    assert capsys.readouterr().out == "case slow: stopped after 0 s\n"
    assert cases.run({"good": lambda: None}, seconds=0) == 0
    assert capsys.readouterr().out == "case good: skipped: no time is left\n"


def test_steps_are_measured_phase_by_phase(tmp_path, monkeypatch):
    """On a CPU, where neither memory nor launches are counted."""
    model = models.dcgan.Config(resolution=16, z_dim=8, width=4, d_norm=False)
    changes = {"model": model, "batch_size": 4, "r1_gamma": 1.0, "penalty_interval": 2}
    config = dataclasses.replace(steps.config_of("dcgan-64"), **changes)
    monkeypatch.setattr(steps, "config_of", lambda name: config)
    monkeypatch.setattr(steps, "WARM_UP", 1)
    todo = steps.cases("dcgan-64", tmp_path / "rows.jsonl", device=CPU, seconds=0.01)
    for name in ("dcgan-64 ours", "dcgan-64 eager", "dcgan-64 ours without penalties"):
        todo[name].keywords["profile"] = False
        todo[name]()
    found = measured.read(tmp_path / "rows.jsonl")
    modes = {(row["sample"], row["role"], row["mode"]) for row in found}
    with_r1 = {
        ("dcgan-64 4 images", role, mode) for role in ("ours", "eager") for mode in ("D, G", "D with penalties, G")
    }
    assert with_r1 <= modes and ("dcgan-64 without penalties 4 images", "ours", "mean") in modes
    results = {"device": DEVICE, "date": "", "versions": {}, "commit": None, "seconds": 1, "stages": [], "rows": found}
    assert "| D with penalties, G | ours, graphs off" in page.report(results)


class Stopped(BaseException):
    pass


def test_a_form_that_is_stopped_keeps_what_it_has_measured(tmp_path, monkeypatch):
    """The first step, and of the kinds those that were timed; what one step of each kind counts is weighed."""
    model = models.dcgan.Config(resolution=16, z_dim=8, width=4, d_norm=False)
    config = dataclasses.replace(
        steps.config_of("dcgan-64"), model=model, batch_size=4, r1_gamma=1.0, penalty_interval=4
    )
    trainer, path = steps.make(config, CPU), tmp_path / "rows.jsonl"
    form = steps.Form("dcgan-64", "ours", trainer, path)
    kinds = steps.kinds(trainer)
    assert [number for _, number in kinds] == [0, 1, 2, 3] and trainer.step_count == 0
    form.time([("first step", [0])], 0)
    assert [row["mode"] for row in measured.read(path)] == ["first step"]
    form.time([("mean", [number for _, number in kinds])], 0)
    ordinary = trainer.step

    def stops_in_ordinary_steps():
        if trainer.step_count:
            raise Stopped
        ordinary()

    monkeypatch.setattr(trainer, "step", stops_in_ordinary_steps)
    with pytest.raises(Stopped):
        form.time([(mode, [number]) for mode, number in kinds], 0)
    assert {row["mode"] for row in measured.read(path)} == {"first step", "mean", "D with penalties, G"}

    monkeypatch.setattr(trainer, "step", ordinary)
    form.time([(mode, [number]) for mode, number in kinds], 0)
    penalised = {"launches": 90, "kernels": 100, "span": 1000, "busy": 900}
    plain = {"launches": 30, "kernels": 40, "span": 500, "busy": 100}
    counts = iter((penalised, plain))
    monkeypatch.setattr(steps, "profiled", lambda step: next(counts))
    form.profile()
    found = {row["mode"]: row for row in measured.read(path)}
    assert (found["D, G"]["launches"], found["D, G"]["busy"]) == (30, 0.2)
    assert (found["mean"]["launches"], found["mean"]["kernels"], found["mean"]["busy"]) == (45, 55, 0.48)
    assert "launches" not in found["first step"]


def test_kernels_that_cannot_run_are_no_success():
    """compute-sanitizer would find no error in kernels that were never called."""
    sample = ops.OPS["bias_act"].tiny[:1]
    with pytest.raises(RuntimeError, match="not called on cuda: "):
        ops.call_once("bias_act", sample, ("cpu", "cuda"), (torch.float32,), "cpu")


def test_operators_are_measured_in_bytes(tmp_path):
    sample = ops.enlarged(next(s for s in ops.OPS["scale_bias_act"].real if s.name == "8x128x64x64"), 2**23)
    assert sample.shapes["x"] == (16, 128, 64, 64) and sample.shapes["noise"] == (16, 1, 64, 64)
    assert sample.shapes["scale"] == (16, 128) and sample.shapes["b"] == (128,)
    tiny = next(s for s in ops.OPS["bias_act"].tiny if len(s.shapes["x"]) == 4)
    path = tmp_path / "rows.jsonl"
    ops.measure("bias_act", tiny, torch.float32, "forward", "NHWC", path=path, device="cpu")
    found = measured.read(path)
    assert {row["role"] for row in found} >= {"ours", "eager", "floor"}
    assert all(row["gb_s"] > 0 for row in found if row.get("ms"))


def test_only_tests_of_gpu_backends_are_kept():
    code = r"""
import sys
import pytest

found = []
class Watch:
    def pytest_collection_finish(self, session): found.extend(item.nodeid for item in session.items)
pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-p", "benchmarks.gpu_check.only_gpu", *sys.argv[1:]],
            plugins=[Watch()])
print(*found, sep="\n", file=sys.stderr)
"""
    files = ["tests/ops/test_bias_act.py", "tests/ops/test_pixel_norm.py"]

    def kept(share):
        env = {**os.environ, "GPU_CHECK_SHARE": share}
        done = subprocess.run([sys.executable, "-c", code, *files], cwd=ROOT, env=env, capture_output=True, text=True)
        return set(done.stderr.splitlines())

    first, second = kept("1/2"), kept("2/2")
    everything = first | second
    assert first and second and not first & second
    assert not any("cpu" in name.split("[")[-1] or "reference" in name.split("[")[-1] for name in everything)
    assert any(name.endswith("cuda]") or "cuda-" in name for name in everything)


def test_flops_are_counted_by_precision_without_computing():
    model = models.stylegan2.Config(
        resolution=32, z_dim=8, w_dim=8, mapping_layers=2, channel_base=128, channel_max=16, half_resolutions=1
    )
    config = dataclasses.replace(steps.config_of("stylegan2_64"), model=model, batch_size=4)
    counted = flops.phases(config, torch.bfloat16)
    assert list(counted) == ["D", "G", "D with penalties", "path length"]
    assert counted["D"][torch.bfloat16] > 0 and counted["G"][torch.bfloat16] > 0
    assert counted["path length"][torch.bfloat16] == 0 < counted["path length"][torch.float32]
    # The first 3x3 convolution of D, forward and for two gradients, over real and generated images.
    assert counted["D"][torch.float32] + counted["D"][torch.bfloat16] > 6 * 8 * 32 * 32 * 4 * 4 * 9
    mean = flops.per_step(config, counted)
    assert counted["D"][torch.float32] < mean[torch.float32] < sum(one[torch.float32] for one in counted.values())


def test_penalties_in_tf32_are_as_near_to_float32_as_the_loss_in_bfloat16():
    config = models.dcgan.Config(resolution=16, channels=3, z_dim=8, width=8, d_norm=False)
    with eager_pytorch():
        (row,) = gradient_errors.rows("dcgan", config, 4)
    assert 0 < float(row["TF32"]) < float(row["loss in bf16"])
    x = torch.tensor([[1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11]])
    rounded = gradient_errors.Rounded(10).rounded(x)  # ties go to the even number
    assert rounded.tolist() == [[1 + 2**-10, 1, 1 + 2**-9]]
