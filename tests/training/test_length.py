"""The length of a run: in images or in minutes, its plan in plain words, and a good end by the clock."""

import dataclasses
import html
import itertools
import json
import re
from types import SimpleNamespace

import pytest
import torch

from gan_engine import models, train
from gan_engine.presets import PRESETS
from gan_engine.saved_config import to_dict
from gan_engine.system import checkpoint
from gan_engine.training import plan, run
from gan_engine.training.clock import Clock
from gan_engine.training.run_flags import parse
from tests.training.runs import DCGAN, assert_equal

TINY = [
    *("dcgan", "--data", "toy", "--res", "16", "--width", "4", "--z-dim", "8", "--batch-size", "16"),
    *("--precision", "fp32", "--device", "cpu", "--no-tensorboard", "--no-tune-malloc", "--grid-kimg", "0.048"),
]


@pytest.fixture
def a_second_each(tmp_path, monkeypatch):
    """Every step takes one second by the clock of the run, and all files go to a new folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "time", SimpleNamespace(perf_counter=itertools.count().__next__))
    return tmp_path


def start_of(folder, number=-1):
    return json.loads((folder / "run.json").read_text())["starts"][number]


def weights(folder):
    state = checkpoint.load(checkpoint.find(folder))
    return {f"{net}.{k}": v for net in ("G", "D", "G_ema") for k, v in state[net].items()}


@pytest.mark.parametrize(
    ("flags", "kimg", "minutes"),
    [
        ("", PRESETS["garments"]().kimg, 3),
        ("--minutes 10", None, 10),
        ("--kimg 7", 7, None),
        ("--kimg=7 --minutes=10", 7, 10),
        ("dcgan", 100, None),
        ("dcgan --minutes 2", None, 2),
    ],
)
def test_the_flag_that_is_named_is_the_length(flags, kimg, minutes):
    config = parse(flags.split())
    assert (config.kimg, config.minutes) == (kimg, minutes)


def test_a_clock_with_a_limit():
    clock = Clock(dataclasses.replace(DCGAN, kimg=0.16, minutes=0.1))
    assert (clock.total, clock.over) == (160, False)
    for _ in range(3):
        clock.advance()
    clock.seconds = 3.5
    assert clock.done == pytest.approx(3.5 / 6) and not clock.over
    clock.seconds = 6.5
    assert clock.over and clock.out_of_time and clock.nimg == 48 and clock.done == 1
    endless = Clock(DCGAN)
    endless.seconds = 1e9
    assert not endless.over
    timed = Clock(dataclasses.replace(DCGAN, kimg=None, minutes=0.1))
    timed.nimg, timed.seconds = 10**9, 3
    assert timed.done == 0.5 and not timed.over


def test_a_run_without_any_end_is_refused():
    with pytest.raises(ValueError, match="kimg: want a number, or minutes, got None for both"):
        dataclasses.replace(DCGAN, kimg=None)


def test_no_limit_is_null_in_the_record_of_a_run():
    assert to_dict(parse(["--minutes", "10"]))["kimg"] is None


def test_pretraining_takes_half_of_the_time_at_most():
    config = dataclasses.replace(DCGAN, model=models.srgan.Config(), pretrain_kimg=0.064, kimg=None, minutes=0.1)
    clock, waited = Clock(config), []
    for seconds in (0, 1, 2, 3, 4):
        clock.seconds = seconds
        waited.append(clock.pretraining)
        clock.advance()
    assert waited == [True, True, True, False, False]
    clock.limit = 600
    assert not clock.pretraining  # more time does not send D away again
    clock = Clock(dataclasses.replace(config, minutes=10))
    for _ in range(4):
        assert clock.pretraining
        clock.advance()
    assert not clock.pretraining


def test_a_run_that_ends_by_the_clock_ends_well(a_second_each, capsys):
    folder = a_second_each / "run"
    assert train.main([*TINY, "--minutes", "0.1", "--out", "run"]) == 0
    shown = capsys.readouterr()
    assert "end        96 images in 6 s, in run: its 0.1 minutes are over" in shown.out
    assert "dcgan 0:06 of 0:06, 0.096 kimg, " in shown.err
    for name in ("report.html", "training.gif", "samples/kimg-000000.096.png", "checkpoints/kimg-000000.096.pt"):
        assert (folder / name).exists()
    entry = start_of(folder)
    assert entry["end"] == {"reason": "its 0.1 minutes are over", "kimg": 0.096, "seconds": 6}
    assert entry["images_per_second"] == 16 and entry["threads"] >= 1
    assert train.main(["--resume", "run"]) == 2
    wrong = "has trained 0.1 of 0.1 minutes; go on with a larger --minutes, or with --kimg"
    assert wrong in capsys.readouterr().err
    (folder / "report.html").unlink()
    assert train.main(["--resume", "run"]) == 0 and (folder / "report.html").exists()


def test_a_run_that_its_first_step_ends_says_what_is_true(a_second_each, capsys):
    assert train.main([*TINY, "--minutes", "0.001", "--out", "run"]) == 0
    shown = capsys.readouterr()
    assert "end        16 images in 1 s, in run: its 0.001 minutes are over" in shown.out and "plan " not in shown.out
    assert "dcgan 1 of 0.06 s, 0.016 kimg, " in shown.err
    for told in (shown.out, html.unescape((a_second_each / "run/report.html").read_text())):
        longer = re.search(r"^go on .* --resume=run (--minutes [\d.]+)", told, re.M)[1].split()
        assert longer == ["--minutes", "0.085"]
    assert train.main(["--resume", "run", *longer]) == 0


def test_a_run_goes_on_with_more_minutes_or_with_images(a_second_each):
    assert train.main([*TINY, "--kimg", "0.144", "--out", "whole"]) == 0
    assert start_of(a_second_each / "whole")["end"]["reason"] == "its 0.144 kimg are done"
    for more in (["--minutes", "0.15"], ["--kimg", "0.144"]):
        folder = a_second_each / more[0]
        assert train.main([*TINY, "--minutes", "0.05", f"--out={folder}"]) == 0
        assert weights(folder).keys() and checkpoint.load(checkpoint.find(folder))["nimg"] == 48
        assert train.main(["--resume", str(folder), *more]) == 0
        assert_equal(weights(a_second_each / "whole"), weights(folder))


def test_a_rate_that_falls_falls_by_the_clock(a_second_each, capsys):
    assert train.main([*TINY, "--lr-decay", "1", "--minutes", "0.1", "--out", "run"]) == 0
    state = checkpoint.load(checkpoint.find("run"))
    assert state["optimizers"]["G"]["param_groups"][0]["lr"] == pytest.approx(PRESETS["dcgan"]().lr / 6)
    assert train.main(["--resume", "run", "--minutes", "0.2"]) == 2
    assert train.main(["--resume", "run"]) == 2
    said = capsys.readouterr().err
    assert "minutes: the run has 0.1, now 0.2\n  (its learning rate falls towards its end, by --lr-decay;" in said
    assert "has trained 0.1 of 0.1 minutes; its learning rate has fallen to its end; --init-from" in said


def test_a_run_whose_rate_has_fallen_is_not_told_to_go_on_with_more_images(a_second_each, capsys):
    assert train.main([*TINY, "--lr-decay", "1", "--kimg", "0.032", "--out", "run"]) == 0
    for longer, said in (
        ([], "is at 0.032 of 0.032 kimg; its learning rate has fallen to its end; --init-from begins a new run"),
        (
            ["--kimg", "1"],
            "kimg: the run has 0.032, now 1.0\n  (its learning rate falls towards its end, by --lr-decay;",
        ),
    ):
        assert train.main(["--resume", "run", *longer]) == 2
        told = capsys.readouterr().err
        assert said in told and "larger --kimg" not in told


def test_the_plan_is_told_after_some_steps(a_second_each, capsys):
    assert train.main([*TINY, "--kimg", "0.16", "--out", "run"]) == 0
    out = capsys.readouterr().out
    assert "plan       dcgan (16x16 pixels, width 4): 80 images to go, about 5 seconds at 16 images a second\n" in out


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"kimg": 100}, "dcgan (16x16 pixels, width 4): 100,000 images to go, about 7 minutes at 230 images a second"),
        (
            {"model": models.points.Config(), "precision": "fp32", "kimg": 100},
            "dcgan (points): 100,000 points to go, about 7 minutes at 230 points a second",
        ),
        ({"kimg": None, "minutes": 3}, "41,000 images to go, about 3 minutes at 230 images a second"),
        ({"model": PRESETS["gan3d"]().model, "kimg": 1000}, "dcgan (32x32x32 voxels, width 32): 1,000,000 volumes"),
        ({"model": PRESETS["stylegan2"]().model, "kimg": 1}, "(64x64 pixels): 1,000 images to go, about 4 seconds at"),
        (
            {"model": models.srgan.Config(), "pretrain_kimg": 2},
            "at 230 images a second, while D waits for 2 kimg of pretraining; later steps take longer",
        ),
        (
            {"model": models.srgan.Config(), "pretrain_kimg": 2, "kimg": None, "minutes": 3},
            "while D waits for 2 kimg or half of the time of pretraining; later steps take longer",
        ),
        ({"model": models.vanilla.Config(), "minutes": 1}, "dcgan (32x32 pixels): 160 images to go, about 1 second at"),
    ],
)
def test_a_plan_in_plain_words(changes, want):
    config = dataclasses.replace(DCGAN, **changes)
    assert want in plan.line(config, Clock(config), 230.4)


def test_a_plan_has_a_step_to_go():
    config = dataclasses.replace(DCGAN, kimg=None, minutes=0.1)
    clock = Clock(config)
    clock.seconds = 5.9
    assert "16 images to go, about 8 seconds at 2 images a second" in plan.line(config, clock, 2)


def test_durations_are_said_as_people_say_them():
    seconds = (1, 89, 95, 180, 5000, 9000, 36000, 400000, 4e6)
    said = [plan.duration(value) for value in seconds]
    assert said[:5] == ["1 second", "89 seconds", "2 minutes", "3 minutes", "83 minutes"]
    assert said[5:] == ["2.5 hours", "10 hours", "4.5 days", "46.5 days"]


def test_a_run_leaves_the_threads_of_the_process_as_they_were(a_second_each, capsys):
    before = torch.get_num_threads()
    assert train.main([*TINY, "--kimg", "0.016", "--threads", str(before + 2), "--out", "run"]) == 0
    assert start_of(a_second_each / "run")["threads"] == before + 2 and torch.get_num_threads() == before


def test_processes_agree_on_the_time():
    config = dataclasses.replace(DCGAN, minutes=1)
    slowest = SimpleNamespace(first=False, size=2, max=lambda microseconds: 2_000_000)
    trainer = SimpleNamespace(config=config, clock=Clock(config), processes=slowest, step=lambda: None, health=None)
    run.Run(trainer)._step()
    assert trainer.clock.seconds == 2
