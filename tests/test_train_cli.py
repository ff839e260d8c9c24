"""The command: what it runs by default, what it refuses before it makes anything, and that SIGKILL costs nothing."""

import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import models, presets, train
from gan_engine.runs import directory
from gan_engine.system import checkpoint, malloc
from gan_engine.training.run_flags import parse
from gan_engine.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
TINY = [
    *("dcgan", "--data", "toy", "--res", "16", "--width", "4", "--z-dim", "8", "--batch-size", "16"),
    *("--kimg", "0.16", "--precision", "fp32", "--device", "cpu", "--no-tensorboard", "--no-tune-malloc"),
    *("--checkpoint-kimg", "0.032", "--metrics-kimg", "0.032", "--grid-kimg", "1"),
]

DYING = """
import os, signal, sys
from gan_engine import train
from gan_engine.training.trainer import Trainer

def step(self, step=Trainer.step):
    step(self)
    if self.nimg == 112:
        os.kill(os.getpid(), signal.SIGKILL)

Trainer.step = step
train.main(sys.argv[1:])
"""

SLOW = """
import sys, time
from gan_engine import train
from gan_engine.training import progress
from gan_engine.training.trainer import Trainer

def step(self, step=Trainer.step):
    step(self)
    time.sleep(0.3)

Trainer.step = step
progress.bar = lambda clock, *, name, shown: progress.Bar(clock, name, shown=shown, mininterval=0, miniters=1)
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def weights(run_dir):
    state = checkpoint.load(checkpoint.find(run_dir))
    return state["nimg"], {f"{net}.{k}": v for net in ("G", "D", "G_ema") for k, v in state[net].items()}


def test_no_arguments_are_the_default_preset_on_the_embedded_images():
    config = parse([])
    assert (config.preset, config.data, config.model.resolution) == ("garments", "fashion-mnist", 32)
    config = parse(["--data", "some/folder", "--res", "64"])
    assert (config.preset, config.data) == ("dcgan", "some/folder")
    assert parse(["vanilla", "--loss", "hinge", "--hidden", "8", "9"]).model.hidden == (8, 9)


def test_runs_are_numbered_and_recorded(cwd, capsys):
    assert train.main(TINY) == 0
    assert train.main(TINY) == 0
    assert sorted(path.name for path in (cwd / "runs").iterdir()) == ["dcgan-1", "dcgan-2"]
    record = json.loads((cwd / "runs/dcgan-1/run.json").read_text())
    assert record["config"]["model"]["family"] == "dcgan" and record["config"]["batch_size"] == 16
    assert record["starts"][0]["versions"]["torch"] == torch.__version__
    ops = record["starts"][0]["ops"]
    assert {"normed", "biased", "bias_act"} <= ops.keys() and not {"grid_sample", "mix"} & ops.keys()
    assert all(what["calls"] > 0 for by_backend in ops.values() for what in by_backend.values())
    out = capsys.readouterr().out
    assert "ops        bias_act " in out and "; run.json says why" in out and "toy: 4,096 images" in out
    assert_equal(weights(cwd / "runs/dcgan-1"), weights(cwd / "runs/dcgan-2"))  # same seed, same run


def test_a_killed_run_resumed_equals_one_that_was_not(cwd):
    assert train.main([*TINY, "--out", "whole"]) == 0
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", DYING, *TINY, "--out", "killed"]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -9
    assert weights("killed")[0] == 96  # and 16 more images are lost
    assert train.main([*TINY, "--out", "killed", "--resume", "latest"]) == 0
    assert_equal(weights("whole"), weights("killed"))
    starts = json.loads(Path("killed/run.json").read_text())["starts"]
    assert [start["kimg"] for start in starts] == [0, 0.096]


def test_resume_by_directory_by_file_and_by_latest(cwd, capsys):
    assert train.main(TINY) == 0
    longer = [*TINY, "--kimg", "0.192"]
    assert train.main([*longer, "--resume", "latest"]) == 0
    assert weights("runs/dcgan-1")[0] == 192
    assert train.main([*TINY, "--kimg", "0.224", "--resume", "runs/dcgan-1"]) == 0
    file = "runs/dcgan-1/checkpoints/kimg-000000.192.pt"
    assert train.main([*TINY, "--kimg", "0.224", "--resume", file, "--out", "other"]) == 0
    assert_equal(weights("other"), weights("runs/dcgan-1"))
    assert train.main([*TINY, "--resume", "other"]) == 2
    assert "is at 0.224 of 0.16 kimg; go on with a larger --kimg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["stylegan9"], "want one of garments, dcgan, vanilla, upsample_gan"),
        (["--lerning-rate", "1"], "--lerning-rate"),
        (["--loss", "chi"], "invalid choice 'chi'"),
        (["--batch-size", "many"], "many"),
        (["--res", "48"], "resolution: want a power of two from 16 to 256, got 48"),
        (["--kimg", "0"], "kimg: want more than 0, got 0"),
        (["--precision", "fp16", "--device", "cpu"], "fp16 is for GPUs"),
        (["--device", "tpu9"], "device: want auto, cpu, cuda or cuda:N, got 'tpu9'"),
        (["--data", "no/such/folder"], "no/such/folder"),
        (["--resume", "latest"], "resume: no run with a checkpoint in runs/; name its directory"),
        (["--device", "cpu:3"], "device: want auto, cpu, cuda or cuda:N, got 'cpu:3'"),
        (["--data", ""], "data: want one of toy, "),
        (["--out", "/dev/null"], "out: want a directory that can be written, got /dev/null: "),
        (["--out", "/dev/null/sub"], "out: want a directory that can be written, got /dev/null/sub: "),
        (["--out", "/proc/x"], "out: want a directory that can be written, got /proc/x: "),
        (["--seed", "99999999999999999999999"], "seed: want 0 to 2^63 - 1"),
        (["vanilla", "--resume", "latest"], "resume: no run of the preset vanilla with a checkpoint in runs/"),
        (["--resume", "no/such/run"], "no such checkpoint or run directory"),
        (["--batch-size", str(2**70)], "batch_size: want at most 1,048,576"),
        (["--kimg", "1e300"], "kimg: want at most 1,000,000,000"),
        (["--width", str(2**40)], "width: want at most 1,048,576"),
        (["--lr", "inf"], "lr: want a finite number, got inf"),
        (["--metrics-kimg", "1e-320"], "metrics_kimg: want at least 1e-06"),
        (["vanilla", "--hidden", str(2**20), str(2**20)], "memory: 39,"),
        (["vanilla", "--res", str(2**20), "--hidden", "1", "--channels", "1"], "memory: 61,572.7 GB for weights"),
        (["lapgan", "--levels", str(2**40)], "levels: want at most 1,048,576"),
        (
            ["stylegan2", "--data", "toy", "--resolution", "8", "--channel-base", "64", "--batch-size", "5"],
            "batch_size: want passes that split into equal groups of 2 to 4 images (mbstd_group 4)",
        ),
    ],
)
def test_a_wrong_call_says_so_and_makes_nothing(cwd, capsys, arguments, want):
    with pytest.raises(SystemExit) as exit:
        raise SystemExit(train.main(arguments))
    shown = "".join(capsys.readouterr())
    assert exit.value.code == 2
    assert want in " ".join(shown.replace("│", " ").split())
    assert len(shown.splitlines()) < 25
    assert list(cwd.iterdir()) == []


def test_a_run_is_not_overwritten(cwd, capsys):
    assert train.main([*TINY, "--out", "run"]) == 0
    before = weights("run")
    assert train.main([*TINY, "--out", "run"]) == 2
    assert "run holds a run already; go on with it by --resume run" in capsys.readouterr().err
    assert_equal(before, weights("run"))


def test_a_resumed_run_has_its_configuration_from_its_checkpoint(cwd, capsys):
    vanilla = ["vanilla", "--hidden", "8", "9", *TINY[1:5], *TINY[9:]]
    assert train.main([*vanilla, "--lr", "0.001"]) == 0
    assert train.main(["--resume", "latest", "--kimg", "0.192"]) == 0
    state = checkpoint.load(checkpoint.find("runs/vanilla-1"))
    assert state["nimg"] == 192
    assert (state["config"]["lr"], state["config"]["model"]["hidden"]) == (0.001, [8, 9])
    assert train.main(["--resume", "latest", "--kimg", "1", "--lr", "1", "--z-dim", "5"]) == 2
    err = capsys.readouterr().err
    assert "lr: the run has 0.001, now 1.0" in err and "model.z_dim: the run has 100, now 5" in err
    assert "preset" not in err and "hidden" not in err
    assert train.main(["dcgan", "--resume", "runs/vanilla-1", "--kimg", "1"]) == 2
    assert "preset: want vanilla, the preset of the resumed run, got dcgan" in capsys.readouterr().err


@pytest.mark.parametrize("missing", ["config", "rng"])
def test_a_checkpoint_with_a_part_missing_is_refused_by_name(cwd, capsys, missing):
    assert train.main([*TINY, "--out", "run"]) == 0
    state = checkpoint.load(checkpoint.find("run"))
    del (state if missing in state else state["processes"][0])[missing]
    checkpoint.save("other/a.pt", state)
    assert train.main(["--resume", "other/a.pt", "--kimg", "1"]) == 2
    assert f"other/a.pt: want a checkpoint of a training with {missing}, got [" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"config": None}, "its configuration does not fit this version of gan_engine: want a dict, got NoneType"),
        ({"config": {"preset": 3}}, "its configuration does not fit this version"),
        ({"processes": []}, "processes: want a list with a dict for each process"),
        ({"nimg": -1}, "nimg: want 0 to 2^63 - 1, got -1"),
        ({"seconds": float("nan")}, "seconds: want a finite number, got nan"),
        ({"G": {}}, "want an entry, got none"),
        ({"sampler": {"sha256": 5}}, "sampler["),
        ({"optimizers": {"G": []}}, "optimizers"),
        ({"z_generator": torch.zeros(3)}, "z_generator: want torch.uint8 [5056], got torch.float32 [3]"),
        ({"precision": []}, "precision: want auto, fp32, bf16 or fp16, got []"),
    ],
    ids=str,
)
def test_a_checkpoint_with_anything_in_it_is_refused_in_a_line(tmp_path, cwd, capsys, change, want):
    if not BEFORE:
        assert train.main([*TINY, "--out", "run"]) == 0
        BEFORE.append(checkpoint.load(checkpoint.find("run")))
    checkpoint.save("other/a.pt", BEFORE[0] | change)
    capsys.readouterr()
    assert train.main(["--resume", "other/a.pt", "--kimg", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and want in line


BEFORE = []  # the state of one run


def test_data_may_move_but_not_change(cwd, capsys):
    def picture(folder, value):
        Path(folder).mkdir(exist_ok=True)
        for i in range(3):
            Image.new("L", (16, 16), value + i).save(f"{folder}/{i}.png")

    picture("before", 10)
    assert train.main([*TINY, "--data", "before", "--out", "run"]) == 0
    os.rename("before", "after")
    assert train.main(["--resume", "run", "--data", "after/", "--kimg", "0.192"]) == 0
    picture("after", 20)
    assert train.main(["--resume", "run", "--kimg", "0.224"]) == 2
    assert "got other data in after" in capsys.readouterr().err


def test_runs_that_start_together_have_a_directory_each(cwd):
    with (
        directory.claimed(parse(TINY), None) as first,
        directory.claimed(parse(TINY), None) as second,
    ):
        assert [str(first), str(second)] == ["runs/dcgan-1", "runs/dcgan-2"]


def test_a_number_taken_in_between_is_passed_over(cwd, monkeypatch):
    numbers = iter([1, 2])
    Path("runs/dcgan-1").mkdir(parents=True)
    monkeypatch.setattr(directory, "_next_run", lambda preset: Path(f"runs/{preset}-{next(numbers)}"))
    with directory.claimed(parse(TINY), None) as run_dir:
        assert run_dir == Path("runs/dcgan-2")


def test_a_damaged_record_costs_earlier_starts_only(cwd):
    assert train.main([*TINY, "--out", "run"]) == 0
    Path("run/run.json").write_text('{"config": {')
    with pytest.warns(UserWarning, match=r"run.json: damaged, and written anew"):
        assert train.main(["--resume", "run", "--kimg", "0.192"]) == 0
    assert len(json.loads(Path("run/run.json").read_text())["starts"]) == 1
    assert not list(Path("run").glob(".gan_engine-*"))


def test_a_run_that_never_saved_begins_anew(cwd):
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/run.json").write_text('{"starts": []}')
    Path("run/metrics.jsonl").write_text('{"nimg": 16, "old": 1}\n')
    assert train.main([*TINY, "--out", "run"]) == 0
    assert "old" not in Path("run/metrics.jsonl").read_text()


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_run_whose_reader_is_gone_goes_on_and_saves(cwd, interrupt):
    """The same happens in `train 2>&1 | tee log`, when tee has ended."""
    command = [sys.executable, "-c", SLOW, *TINY, "--out", "run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not process.stdout.readline().startswith(b"run "):
            pass
        process.stdout.close()
        if interrupt:
            time.sleep(1)
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == (128 + signal.SIGINT if interrupt else 0)
    nimg = checkpoint.load(checkpoint.find("run"))["nimg"]
    assert 0 < nimg < 160 if interrupt else nimg == 160


def test_malloc_is_tuned_on_the_cpu_unless_told_not_to(cwd, monkeypatch, capsys):
    monkeypatch.setattr(malloc, "tune", lambda: "malloc was looked at")
    assert train.main([*TINY, "--tune-malloc"]) == 0
    assert "memory     malloc was looked at\n" in capsys.readouterr().out
    assert train.main(TINY) == 0
    assert "malloc" not in capsys.readouterr().out


def test_classes_need_labels(cwd, capsys):
    (cwd / "images").mkdir()
    Image.new("L", (16, 16)).save(cwd / "images/a.png")
    np.savez("a.npz", images=np.zeros((2, 16, 16), np.uint8))
    with tarfile.open("plain.tar", "w") as archive:
        archive.add("images/a.png", "a.png")
    with tarfile.open("a.tar", "w") as archive:
        archive.add("images/a.png", "a.png")
        archive.add("images/a.png", "b.png")
        entry = tarfile.TarInfo("a.cls")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"0"))
    got_cls = (
        "got a: 2 images 1x16x16, no labels, .*no labels from .cls files: want a class for each image, got one for"
    )
    for source, want in (
        ("images", r"conditional: want data with classes \(a folder for each\), got images: 1 image"),
        ("plain.tar", r"conditional: want data with classes \(a folder for each, or \.cls files\), got plain: 1 image"),
        ("a.npz", r"conditional: want data with classes \(an array labels\), got a: 2 images"),
        ("a.tar", f"conditional: want data with classes, {got_cls} 1 of 2 images"),
    ):
        assert train.main([*TINY, "--conditional", "--data", source]) == 2
        assert re.search(f"{want}.*; --no-conditional trains without classes", capsys.readouterr().err)
    assert train.main(["cgan", "--resolution", "16", "--data", "images"]) == 2
    assert capsys.readouterr().err.endswith("; the preset dcgan needs no classes\n")
    assert not (cwd / "runs").exists()


def test_conditional_run(cwd):
    assert train.main([*TINY, "--conditional", "--out", "run"]) == 0
    assert checkpoint.load(checkpoint.find("run"))["class_names"]


def assert_equal(a, b):
    (nimg_a, a), (nimg_b, b) = a, b
    assert nimg_a == nimg_b and a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different


def test_a_preset_fits_the_resolution_and_the_device(monkeypatch):
    def sizes(*flags):
        config = parse(["stylegan2", "--device", "cpu", *flags])
        return config.batch_size, config.model.channel_base, config.r1_gamma, config.pl_weight

    assert sizes() == (16, 4096, pytest.approx(5e-3 * 64**2 / 16), 0)
    assert sizes("--res", "512") == (8, 4096, pytest.approx(5e-3 * 512**2 / 8), 0)
    assert sizes("--res", "512", "--r1-gamma", "3", "--channel-base", "2048") == (8, 2048, 3, 0)
    monkeypatch.setattr(presets, "choose_device", lambda name: torch.device("cuda"))
    assert sizes() == (32, 16384, pytest.approx(2e-4 * 64**2 / 32), 2)
    assert sizes("--res", "1024") == (4, 32768, pytest.approx(2e-4 * 1024**2 / 4), 2)
    for processes, res, batch_size in [(2, "256", 32), (3, "64", 60), (8, "64", 64), (8, "1024", 32)]:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        assert sizes("--res", res)[0] == batch_size


def test_a_mistyped_preset_is_named_with_the_nearest_one(capsys):
    assert train.main(["dcgann", "--kimg", "1"]) == 2
    assert "preset: want one of garments, dcgan, " in (error := capsys.readouterr().err)
    assert "got dcgann; did you mean dcgan?" in error
    assert train.main(["dcgan\n\x1b[31m"]) == 2
    assert r"got dcgan\n\x1b[31m" in capsys.readouterr().err


def test_two_runs_never_share_a_directory(tmp_path, capsys):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    code = f"""
import pathlib, sys
from gan_engine.runs import directory
with directory.locked(pathlib.Path({str(run_dir)!r})):
    print("locked", flush=True)
    sys.stdin.readline()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert train.main(["vanilla", "--data", "toy", "--kimg", "0.064", "--out", str(run_dir)]) == 2
        assert f"{run_dir} is in use by another run" in capsys.readouterr().err
        other.kill()
    assert train.main(["vanilla", "--data", "toy", "--kimg", "0.064", "--no-tensorboard", "--out", str(run_dir)]) == 0


def test_every_preset_is_listed(capsys):
    assert train.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    *rows, empty, legend = lines[1:]
    assert [row.split()[0] for row in rows] == list(presets.PRESETS) == list(presets.COSTS)
    assert empty == "" and legend.startswith("minutes: of one core")
    minutes = lines[0].index("minutes")
    assert [row[minutes:].split()[0] for row in rows[:3]] == ["3", "4", "2"] and rows[7][minutes:].startswith(
        "         "
    )
    assert lines[1].split()[1:7] == ["fashion-mnist", "1x32x32", "364", "k", "168", "k"]


def counted(config):
    classes = {"c_dim": 10} if config.conditional else {}
    nets = models.build(dataclasses.replace(config.model, **classes))
    return tuple(sum(p.numel() for p in net.parameters()) for net in nets)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_the_list_has_the_parameters_of_the_networks(monkeypatch, name):
    monkeypatch.setattr(torch.nn.init, "_no_grad_normal_", lambda tensor, *_, **__: tensor)  # which takes most of it
    config = presets.PRESETS[name]()
    assert presets.parameters(config) == counted(config)


def test_the_list_follows_the_device(monkeypatch):
    monkeypatch.setattr(presets, "choose_device", lambda name: torch.device("cuda"))
    config = presets.stylegan2()
    assert presets.parameters(config) == counted(config) != presets.COSTS["stylegan2"][:2]


@pytest.mark.parametrize("error", [ValueError("out of range"), OSError(28, "No space left"), RuntimeError("x")])
def test_a_run_that_fails_on_its_way_was_no_wrong_call(cwd, monkeypatch, capsys, error):
    def fail(self):
        raise error

    monkeypatch.setattr(Trainer, "run", fail)
    assert train.main([*TINY, "--out", "run"]) == 1
    assert str(error) in capsys.readouterr().err.splitlines()[-1]
