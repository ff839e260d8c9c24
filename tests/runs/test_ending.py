"""Wherever a run is killed, --resume brings it to its end, and its last lines can be pasted."""

import dataclasses
import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from gan_engine import evaluate, generate, presets, train, translate, upscale
from gan_engine.config import Config
from gan_engine.runs import commands
from gan_engine.system import checkpoint
from gan_engine.training.run_flags import parse
from gan_engine.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
TINY = [
    *("vanilla", "--data", "toy", "--res", "16", "--hidden", "8", "--batch-size", "16", "--kimg", "0.064"),
    *("--precision", "fp32", "--device", "cpu", "--no-tensorboard", "--no-tune-malloc"),
    *("--checkpoint-kimg", "0.032", "--metrics-kimg", "0.016", "--grid-kimg", "0.032"),
]

# A process that has imported everything makes a child for each run: one that is killed at a moment, one that goes on.
KILLER = """
import os, signal, sys
import matplotlib.figure, torch, torch._dynamo  # a run imports these two late, and the children would, each by itself
torch.set_num_threads(1)
from gan_engine.system import checkpoint, whole_file
from gan_engine.runs import monitors, record
from gan_engine import report, train

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def when(end, function):
    def call(*arguments):
        die() if str(arguments[-1]).endswith(end) else function(*arguments)
    return call

def second(_, before=[]):
    die() if before else before.append(True)

MOMENTS = {
    "first grid": lambda: setattr(monitors, "write_picture", die),
    "run.json": lambda: setattr(os, "replace", when("run.json", os.replace)),
    "checkpoint": lambda: setattr(os, "replace", when("064.pt", os.replace)),
    "after the checkpoint": lambda: setattr(checkpoint, "_sync_directory", second),
    "animation": lambda: setattr(monitors, "animate", die),
    "plot": lambda: setattr(os, "replace", when("losses.png", os.replace)),
    "report": lambda: setattr(os, "replace", when("report.html", os.replace)),
}
for moment, patch in MOMENTS.items():
    out = moment.replace(" ", "_")
    for again in (False, True):
        child = os.fork()
        if child == 0:
            if not again:
                patch()
            there = again and any(name.endswith(".pt") for name in os.listdir(out + "/checkpoints")
                                  ) if os.path.isdir(out + "/checkpoints") else False
            os._exit(train.main([*sys.argv[1:], "--out", out, *(["--resume", out] if there else [])]))
        _, status = os.waitpid(child, 0)
        print(moment, os.waitstatus_to_exitcode(status), flush=True)
        if not again:
            left = [name for _, _, names in os.walk(out) for name in names if name.startswith(".gan_engine-")]
            print(len(left), flush=True)
"""


def test_a_kill_at_any_moment_is_made_good(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLER, *TINY]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    shown = done.stdout.splitlines()
    moments = ["first grid", "run.json", "checkpoint", "after the checkpoint", "animation", "plot", "report"]
    assert [line for line in shown if line.endswith(" -9")] == [f"{moment} -9" for moment in moments], done.stderr[
        -3000:
    ]
    assert [line for line in shown if line.endswith(" 0") and line[:-2] in moments] == [f"{each} 0" for each in moments]
    assert shown.count("1") == 4  # run.json, the checkpoint, the plot and the report were half written
    for run in tmp_path.iterdir():
        names = {path.name for path in run.rglob("*") if path.is_file()}
        assert {"report.html", "losses.png", "training.gif", "run.json", "metrics.jsonl"} <= names, run
        assert {"kimg-000000.064.png", "kimg-000000.064.pt"} <= names
        assert not any(name.startswith(".gan_engine-") for name in names)
    assert done.stdout.count("the training is over; its last pictures and its report are missing") == 4


def test_a_run_that_is_over_is_not_begun_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, "--out", "run"]) == 0
    last = capsys.readouterr().out
    assert train.main(["--resume", "run"]) == 2
    assert "is at 0.064 of 0.064 kimg; go on with a larger --kimg" in capsys.readouterr().err
    assert train.main(["--resume", str(checkpoint.find("run")), "--out", "other"]) == 2
    assert not Path("other").exists()
    os.unlink("run/report.html")
    assert train.main(["--resume", "run"]) == 0
    assert Path("run/report.html").exists() and "the training is over" in capsys.readouterr().out
    lines = last.splitlines()[-7:]
    assert [line.split()[0] for line in lines] == [
        "end",
        "pictures",
        "run/training.gif,",
        "report",
        "What",
        "draw",
        "go",
    ]
    assert lines[0].endswith(" s, in run: its 0.064 kimg are done")
    assert lines[1] == "pictures   run/samples/kimg-000000.064.png is the newest grid"


def test_a_run_without_its_last_files_is_a_success(tmp_path, monkeypatch, capsys):
    """The last checkpoint counts: what shows the run can be made later."""
    monkeypatch.chdir(tmp_path)
    replace = os.replace

    def full(old, new):
        if str(new).endswith(("training.gif", "losses.png", "report.html")):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(UserWarning, match="not written: No space left on device; the run goes on"):
        assert train.main([*TINY, "--out", "run"]) == 0
    shown = capsys.readouterr().err
    assert "warning: no report: run/report.html: not written: No space left on device; needs more than 0." in shown
    assert shown.endswith(
        f" MB free on that disk; this writes it later: {commands.python()} -m gan_engine.report run\n"
    )
    assert checkpoint.load(checkpoint.find("run"))["nimg"] == 64
    monkeypatch.setattr(os, "replace", replace)
    assert train.main(["--resume", "run"]) == 0
    assert all(Path("run", name).exists() for name in ("training.gif", "losses.png", "report.html"))


def as_a_shell_reads(words):
    command = ["bash", "-c", f"printf '%s\\0' {words}"]
    return [os.fsdecode(word) for word in subprocess.run(command, capture_output=True).stdout.split(b"\0")[:-1]]


@pytest.mark.parametrize("name", ["it's $x [1]", "-dash", "new\nline", "bytes \udcff"])
def test_the_last_lines_can_be_pasted(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, f"--out={name}"]) == 0
    commands = [line.partition("python -m gan_engine.")[2] for line in capsys.readouterr().out.splitlines()]
    draw, longer = [command.partition(" ") for command in commands if command and "info" not in command]
    monkeypatch.setattr(sys, "argv", ["generate", *as_a_shell_reads(draw[2]), "--num", "4"])
    generate.main()
    assert (tmp_path / name / "generated.png").exists()
    assert train.main(as_a_shell_reads(longer[2])) == 0
    assert checkpoint.load(checkpoint.find(tmp_path / name))["nimg"] == 128


def test_a_run_that_is_stopped_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def step(self, step=Trainer.step):
        step(self)
        if self.nimg == 32:
            os.kill(os.getpid(), 15)

    monkeypatch.setattr(commands.shutil, "which", lambda name: sys.executable)  # python on PATH is this Python
    with monkeypatch.context() as stopped:
        stopped.setattr(Trainer, "step", step)
        assert train.main([*TINY, "--out", "two words"]) == 128 + 15
    out = capsys.readouterr().out
    assert out.count("in two words: stopped by SIGTERM") == 1
    (line,) = [line for line in out.splitlines() if line.startswith("go on")]
    assert line == "go on      python -m gan_engine.train --resume='two words'"
    assert train.main(shlex.split(line)[5:]) == 0


READING = {"health/diversity": 0.9}
STANDS = {"alarms": ["collapse: two images of G are alike; try --lr 0.1"]}
HEALTH = {
    "nothing": ([{"loss/D": 1}], "", True),
    "one": ([READING], "1 reading, too few for an alarm", True),
    "none": ([READING] * 3, "no alarm in 3 readings", True),
    "stood": (
        [READING, READING | STANDS],
        "1 alarm stood in the last reading: collapse; the report says what to try in a new run",
        False,
    ),
    "ended": (
        [READING | STANDS, READING | {"alarms": ["ended: collapse"]}],
        "no alarm stood in the last of 2 readings; the report has 1 from before",
        True,
    ),
    "rolled back": (
        [READING | STANDS, {"health/rolled_back_to": 0, "alarms": ["rolled back to the healthy state of 0 kimg"]}],
        "no alarm stood in the last of 1 reading; the report has 1 from before",
        True,
    ),
}


@pytest.mark.parametrize(("rows", "said", "goes_on"), HEALTH.values(), ids=HEALTH)
def test_the_end_tells_the_health_of_a_run_and_an_ill_one_has_no_command_to_go_on(
    tmp_path, monkeypatch, capsys, rows, said, goes_on
):
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, "--out", "run", "--health-kimg", "None"]) == 0
    capsys.readouterr()
    with open("run/metrics.jsonl", "a") as metrics:
        metrics.writelines(json.dumps({"nimg": 64} | row) + "\n" for row in rows)
    os.unlink("run/report.html")
    assert train.main(["--resume", "run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("health")] == ([f"health     {said}"] if said else [])
    assert any(line.startswith("go on ") for line in lines) == goes_on
    assert ("go on " in Path("run/report.html").read_text()) == goes_on


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_family_has_commands_that_it_knows(preset, tmp_path):
    config: Config = presets.PRESETS[preset]()
    options = {"generate": generate.Options, "translate": translate.Options, "upscale": upscale.Options}
    options["evaluate"] = evaluate.Options
    for stopped, early in ((False, False), (True, False), (False, True)):
        if early:  # measurements ended the run
            (tmp_path / checkpoint.BEST).touch()
        found = commands.commands(tmp_path, config, stopped=stopped, early=early)
        if early:
            assert found[0][1].endswith(" --best") and "go on" not in dict(found)
        for _, command in found:
            verb, *arguments = shlex.split(command)
            if "--data=PICTURES" in arguments:
                assert parse(arguments).data == "PICTURES"
                continue
            if verb in options:
                parsed = tyro.cli(options[verb], args=arguments)
                assert parsed.checkpoint == tmp_path
            elif verb == "train":
                assert parse([preset, *arguments]).resume == str(tmp_path)
    if not config.lr_decay:
        assert dataclasses.replace(config, kimg=2 * config.kimg)


def test_a_log_has_a_line_for_each_report_and_no_carriage_returns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, "--out", "run"]) == 0
    shown = capsys.readouterr().err
    lines = [line for line in shown.splitlines() if line.startswith("vanilla ")]
    assert "\r" not in shown and len(lines) == 4
    assert [line.split(" kimg")[0] for line in lines] == [f"vanilla {n / 1000:g} of 0.064" for n in (16, 32, 48, 64)]
    assert all("img/s" in line and "loss/G" in line for line in lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert train.main([*TINY, "--out", "watched"]) == 0
    assert "\r" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("on_path", "inside", "word"),
    [(True, True, "python"), (False, True, "'my env/python'"), (False, False, "/x/python")],
)
def test_the_python_of_the_last_lines_is_this_one(tmp_path, monkeypatch, on_path, inside, word):
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path / "my env" / "python") if inside else "/x/python"
    monkeypatch.setattr(sys, "executable", here)
    monkeypatch.setattr(commands.shutil, "which", lambda name: here if on_path else "/usr/bin/python")
    assert commands.python() == word
