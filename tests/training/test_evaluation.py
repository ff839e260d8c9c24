"""A run that is measured learns the same, keeps its best checkpoint, and ends when its patience does."""

import dataclasses
import errno
import json
import os
import signal

import numpy as np
import pytest
import torch

import gan_engine
from gan_engine import generate, train
from gan_engine.evaluate import Options, evaluate
from gan_engine.metrics.scores import Scores
from gan_engine.runs import monitors
from gan_engine.runs.history import read_metrics
from gan_engine.saved_config import from_dict, to_dict
from gan_engine.system import checkpoint
from gan_engine.training.watch import BACK_TO
from tests.training.runs import CYCLEGAN, DCGAN, MLP, assert_equal, collapse_after, weights

LARGE = dataclasses.replace(
    MLP, model=dataclasses.replace(MLP.model, resolution=32), batch_size=64, health_kimg=2.048, checkpoint_kimg=1e6
)
SIZES = dataclasses.replace(DCGAN, model=dataclasses.replace(DCGAN.model, resolution=32), kimg=0.064)


@pytest.fixture(autouse=True)
def few(tmp_path, monkeypatch):
    """An .npz of a few grey images, which the runs do not train on"""
    monkeypatch.setenv("GAN_ENGINE_CACHE", str(tmp_path / "cache"))
    images = torch.randint(0, 256, (20, 32, 32), generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "few.npz", images=images.byte().numpy())
    return str(tmp_path / "few.npz")


@pytest.fixture
def measured(few):
    return {"eval_kimg": 0.016, "eval_num": 10, "eval_data": few, "eval_metrics": "kid,pr"}


def script(monkeypatch, values):
    """Let the measurements be `values` in turn."""
    turn = iter(values)
    monkeypatch.setattr(
        Scores, "numbers", lambda self, subject, drawn: dict.fromkeys(self.names(subject), 0.5) | {KD: next(turn)}
    )


KD = "kd_fashion32 N=10"


def test_measurements_change_nothing_that_is_learnt(make, measured, monkeypatch):
    plain = make(SIZES)
    assert plain.run() is None
    noisy = Scores.draw
    monkeypatch.setattr(Scores, "draw", lambda *given, **keep: torch.rand(7) is None or noisy(*given, **keep))
    other = make(SIZES, **measured)
    assert other.run() is None
    assert_equal(weights(plain), weights(other))
    rows = [row for row in read_metrics(other.run_dir) if f"eval/{KD}" in row]
    assert [row["nimg"] for row in rows] == [16, 32, 48, 64]
    names = {name for row in rows for name in row if name.startswith("eval/")}
    assert names == {f"eval/{name}_fashion32 N=10" for name in ("kd", "precision", "recall")}


def test_the_best_checkpoint_is_kept_and_commands_take_it(make, measured, monkeypatch, tmp_path):
    script(monkeypatch, [3, 1, 2, float("nan")])
    trainer = make(SIZES, **measured)
    trainer.run()
    run_dir = trainer.run_dir
    assert checkpoint.load(run_dir / "best.pt")["nimg"] == 32
    assert checkpoint.find(run_dir, best=True) == run_dir / "best.pt"
    monkeypatch.undo()
    monkeypatch.setenv("GAN_ENGINE_CACHE", "0")
    best, last = gan_engine.load(run_dir, best=True), gan_engine.load(run_dir)
    assert best.path == run_dir / "best.pt" and not best.sample(2).equal(last.sample(2))
    options = {"data": measured["eval_data"], "num": 10, "metrics": "kid"}
    by_best = evaluate(Options(run_dir, best=True, **options))
    assert by_best == evaluate(Options(run_dir / "best.pt", **options)) != evaluate(Options(run_dir, **options))
    assert generate.main([str(run_dir), "--best", "--num", "2", "--out", str(tmp_path / "best.png")]) == 0
    make(SIZES, **measured).load_state_dict(checkpoint.load(run_dir / "best.pt"))
    (run_dir / "best.pt").unlink()
    with pytest.raises(checkpoint.CheckpointError, match=r"a run with best.pt, which train --eval-kimg keeps"):
        gan_engine.load(run_dir, best=True)


def test_patience_ends_a_run_and_goes_on_in_a_resumed_one(make, measured, monkeypatch):
    script(monkeypatch, [3, 4, 3, 5, 6])
    trainer = make(SIZES, **measured, patience=2)
    assert trainer.run() is None
    assert trainer.nimg == 48
    assert trainer.verdict == f"{KD} was no better than 3 in the last 2 measurements"
    again = make(SIZES, **measured, patience=3)
    again.load_state_dict(checkpoint.load(checkpoint.find(trainer.run_dir)))
    assert again.run() is None
    assert again.nimg == 64 and "in the last 3 measurements" in again.verdict


def test_more_is_better_for_some_numbers(make, measured, monkeypatch):
    monkeypatch.setattr(Scores, "numbers", lambda self, subject, drawn: dict.fromkeys(self.names(subject), next(turn)))
    turn = iter([0.2, 0.5, 0.3, 0.1])
    trainer = make(SIZES, **{**measured, "eval_metrics": "pr"})
    trainer.run()
    assert checkpoint.load(trainer.run_dir / "best.pt")["nimg"] == 32


def test_of_equal_numbers_the_last_is_kept_and_costs_patience(make, measured, monkeypatch):
    """Counts reach their most early, such as 8 of 8 Gaussians, and images become better afterwards."""
    script(monkeypatch, [3, 4, 3, 5])
    trainer = make(SIZES, **measured)
    trainer.run()
    assert checkpoint.load(trainer.run_dir / "best.pt")["nimg"] == 48
    assert trainer.evaluation._best_before() == (3, 3, 48)


def test_the_command_says_what_is_measured_and_why_it_ended(measured, monkeypatch, tmp_path, capsys):
    script(monkeypatch, [1, 2])
    flags = ["--data", "toy", "--batch-size", "16", "--kimg", "1", "--width", "4", "--eval-kimg", "0.016"]
    flags += ["--eval-num", "10", "--eval-metrics", "kid", "--eval-data", measured["eval_data"], "--patience", "1"]
    run_dir = tmp_path / "run"
    assert train.main(["dcgan", *flags, "--channels", "1", "--device", "cpu", "--out", str(run_dir)]) == 0
    out = capsys.readouterr()
    assert "20 images of few that it does not train on; best.pt by kd_fashion32 N=10, patience 1" in out.out
    assert "measured   0.016 kimg: kd_fashion32 N=10 1" in out.err + out.out
    end = json.loads((run_dir / "run.json").read_text())["starts"][-1]["end"]
    assert end["reason"] == "kd_fashion32 N=10 was no better than 1 in the last measurement"
    assert "kd_fashion32 N=10" in (run_dir / "report.html").read_text()


def test_what_cannot_be_measured_is_refused_before_the_run(make, measured):
    with pytest.raises(ValueError, match="patience: want --eval-kimg beside it"):
        make(SIZES, patience=2)
    with pytest.raises(ValueError, match="eval_metrics: want a generator that draws from noise"):
        make(CYCLEGAN, eval_kimg=1.0)
    for metrics, want in (
        ("ppl", "eval_metrics: ppl wants a generator with latents w"),
        ("fidd", "eval_metrics: want some of fid, kid, .*, got 'fidd'; did you mean fid"),
        ("modes", "eval_metrics: modes wants the data stacked"),
    ):
        with pytest.raises(ValueError, match=want):
            make(SIZES, eval_kimg=1.0, eval_metrics=metrics)
    with pytest.raises(ValueError, match="eval_extractor: want auto or fashion32, imagenet, inception, got 'fashion'"):
        make(SIZES, eval_kimg=1.0, eval_extractor="fashion")
    with pytest.raises(ValueError, match="eval_num: want at least 6 generated and real images for pr, got 3 and 20"):
        make(SIZES, **measured | {"eval_num": 3, "eval_metrics": "pr"})
    with pytest.raises(ValueError, match="eval_weights: want --eval-extractor inception beside them, got auto"):
        dataclasses.replace(SIZES, eval_weights="x.pth")
    config = dataclasses.replace(SIZES, **measured | {"eval_extractor": "inception", "eval_weights": "x.pth"})
    assert from_dict(to_dict(config), "here") == config


def resumed(make, state, **changes):
    trainer = make(SIZES, **changes)
    trainer.load_state_dict(state)
    return trainer


def test_a_run_that_goes_on_from_before_its_best_begins_anew(make, measured, monkeypatch, capsys):
    script(monkeypatch, [3, 2, 1, 4, 5, 2.5])
    trainer = make(SIZES, **measured, checkpoint_kimg=0.016, keep=9)
    trainer.run()
    run_dir = trainer.run_dir
    assert checkpoint.load(run_dir / "best.pt")["nimg"] == 48
    early = checkpoint.load(run_dir / "checkpoints" / "kimg-000000.032.pt")
    resumed(make, early, **measured).run()
    assert "the best checkpoint so far is best.pt.rewound now" in capsys.readouterr().out
    assert checkpoint.load(run_dir / "best.pt.rewound")["nimg"] == 48
    assert checkpoint.load(run_dir / "best.pt")["nimg"] == 64
    assert make(SIZES, **measured).evaluation._best_before() == (2.5, 0, 64)


def test_numbers_against_other_images_are_not_compared(make, measured, monkeypatch, tmp_path, capsys):
    script(monkeypatch, [1, 2, 7, 8])
    trainer = make(SIZES, **measured | {"eval_kimg": 0.032}, patience=2)
    trainer.run()
    np.savez(tmp_path / "others.npz", images=np.zeros((20, 32, 32), np.uint8))
    others = measured | {"eval_kimg": 0.032, "eval_data": str(tmp_path / "others.npz")}
    again = resumed(make, trainer.state_dict(), **others, kimg=0.128, patience=2)
    assert again.run() is None and again.verdict is None
    assert "best and patience begin anew" in capsys.readouterr().out
    assert checkpoint.load(trainer.run_dir / "best.pt")["nimg"] == 96
    assert checkpoint.load(trainer.run_dir / "best.pt.rewound")["nimg"] == 32


def test_measurements_that_a_rollback_has_undone_cost_no_patience(make, measured, monkeypatch):
    script(monkeypatch, [1])
    trainer = make(SIZES, **measured, kimg=0.016)
    trainer.run()
    rows = [{"nimg": nimg, f"eval/{KD}": 9} for nimg in (32, 48, 64)] + [{"nimg": 64, BACK_TO: 0.032}]
    with open(trainer.run_dir / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    assert make(SIZES, **measured).evaluation._best_before() == (1, 1, 16)


def test_an_alarm_ends_a_run_although_a_measurement_follows_in_the_same_step(make, measured, monkeypatch):
    script(monkeypatch, [4, 3, 2, 1])
    collapse_after(monkeypatch, 2500)
    trainer = make(LARGE, **measured | {"eval_kimg": 2.048}, kimg=8.192, on_collapse="stop")
    trainer.run()
    assert trainer.nimg == 6144 and trainer.verdict.startswith("collapse: ")
    assert [row["nimg"] for row in read_metrics(trainer.run_dir) if f"eval/{KD}" in row] == [2048, 4096, 6144]


@pytest.mark.parametrize("within", ["step", "measurement"])
def test_a_signal_leaves_a_measurement_out_or_saves_when_it_is_over(make, measured, monkeypatch, capsys, within):
    trainer, draw = make(SIZES, **measured, checkpoint_kimg=1e6), Scores.draw
    step = trainer.step

    def stop(when):
        if when == within and trainer.nimg == 32:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "step", lambda: (step(), stop("step")))
    monkeypatch.setattr(Scores, "draw", lambda *given, **keep: (stop("measurement"), draw(*given, **keep))[1])
    assert trainer.run() == signal.SIGTERM
    assert trainer.nimg == checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == 32
    assert capsys.readouterr().err.count("SIGTERM: saving; once more aborts") == 1
    rows = [row["nimg"] for row in read_metrics(trainer.run_dir) if f"eval/{KD}" in row]
    assert rows == ([16] if within == "step" else [16, 32])


def test_best_and_patience_do_not_depend_on_the_disk(make, measured, monkeypatch, capsys):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device")

    script(monkeypatch, [float("inf"), 1, 2, 3])
    monkeypatch.setattr(monitors, "_append_line", full)
    trainer = make(SIZES, **measured, patience=2)
    with pytest.warns(UserWarning, match=r"metrics.jsonl: not written: No space left"):
        trainer.run()
    assert not read_metrics(trainer.run_dir) and checkpoint.load(trainer.run_dir / "best.pt")["nimg"] == 32
    assert trainer.nimg == 64 and trainer.verdict == f"{KD} was no better than 1 in the last 2 measurements"
    assert "".join(capsys.readouterr()).count("the best so far") == 1


def test_a_damaged_best_checkpoint_is_set_aside_and_best_begins_anew(make, measured, monkeypatch, capsys):
    script(monkeypatch, [1, 2, 4, 3])
    trainer = make(SIZES, **measured | {"eval_kimg": 0.032})
    trainer.run()
    best = trainer.run_dir / "best.pt"
    whole = best.read_bytes()
    best.write_bytes(whole[: len(whole) // 2])
    resumed(make, trainer.state_dict(), **measured | {"eval_kimg": 0.032}, kimg=0.128).run()
    out = capsys.readouterr().out
    assert f"best       the best checkpoint so far is best.pt.damaged now: {best}: cut short, or no checkpoint" in out
    assert "; best and patience begin anew" in out
    assert best.with_name("best.pt.damaged").read_bytes() == whole[: len(whole) // 2]
    assert checkpoint.load(best)["nimg"] == 128
