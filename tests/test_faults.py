"""Faults that a long training run meets. A run loses at most the time since its last checkpoint.

fault                               the user sees
SIGKILL, ten times                  nothing: the run, resumed each time, ends with the weights of an unbroken run
the disk is full                    which checkpoint was not written, the space it needs, the space that is free
the disk is full for metrics only   a warning; the run continues
the run directory is read-only      an error, before any data are read
the data folder is missing          an error at the start that names the folder; a running run does not need it
other images in the data folder     an error: they are not the images of the run
a checkpoint is damaged             its name; the checkpoint before it is used
a checkpoint of another run         the fields that differ
a checkpoint with code in it        its contents; the code does not run
a number in the data is NaN         an error: images must be finite numbers
a loss is not finite                which term, layer or gradient, and the last good checkpoint (test_run.py)
one of several processes dies       its error, from all processes (test_distributed.py)
"""

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import train
from gan_engine.runs import monitors
from gan_engine.system import checkpoint
from gan_engine.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
TINY = [
    *("dcgan", "--res", "16", "--width", "4", "--z-dim", "8", "--batch-size", "16", "--kimg", "0.16"),
    *("--precision", "fp32", "--device", "cpu", "--no-tensorboard", "--no-tune-malloc", "--seed", "3"),
    *("--checkpoint-kimg", "0.032", "--metrics-kimg", "0.032", "--grid-kimg", "1"),
]
TOY = [*TINY, "--data", "toy"]


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(cwd, capsys):
    """train.main(arguments) -> (exit status, printed text)."""

    def call(*arguments):
        status = train.main(list(arguments))
        return status, "".join(capsys.readouterr())

    return call


def newest(run_dir):
    state = checkpoint.load(checkpoint.find(run_dir))
    return state["nimg"], {name: state[name] for name in ("G", "D", "G_ema")}


def assert_same(a, b):
    assert a[0] == b[0]
    for net in a[1]:
        for name, value in a[1][net].items():
            assert torch.equal(value, b[1][net][name]), f"{net}.{name}"


# This process imports everything once. It forks a child for a run that is never killed. Then it forks a child for each
# attempt of a second run, and kills it at a random time.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import matplotlib.figure, torch, torch._dynamo  # a run imports these two late, and the children would, each by itself
torch.set_num_threads(1)
from gan_engine.system import checkpoint
from gan_engine import train
from gan_engine.training.trainer import Trainer

def slow(self, step=Trainer.step):
    step(self)
    time.sleep(0.02)

moments = random.Random(int(sys.argv[1]))
arguments, killed = sys.argv[2:], 0
whole = os.fork()
if whole == 0:
    os._exit(train.main([*arguments, "--out", "whole"]))
_, status = os.waitpid(whole, 0)
if status:
    sys.exit(f"whole: status {os.waitstatus_to_exitcode(status)}")
Trainer.step = slow
arguments += ["--out", "killed"]
while True:
    child = os.fork()
    if child == 0:
        started = any(Path("killed/checkpoints").glob("kimg-*.pt"))  # a checkpoint that was cut off has another name
        os._exit(train.main([*arguments, *(["--resume", "killed"] if started else [])]))
    if killed < 10:
        time.sleep(moments.uniform(0.05, 0.5))
        os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
    if not os.WIFSIGNALED(status):
        sys.exit(f"{killed} kills, status {os.waitstatus_to_exitcode(status)}")
"""


def test_ten_kills_cost_nothing(run, cwd):
    long = [*TOY, "--kimg", "2.4", "--checkpoint-kimg", "0.08"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    killer = [sys.executable, "-c", KILLER, "1", *long]
    done = subprocess.run(killer, env=environment, capture_output=True, text=True)
    assert "10 kills, status 0" in done.stderr, done.stderr[-3000:]
    assert_same(newest("whole"), newest("killed"))


def test_a_full_disk(cwd, run):
    (cwd / "small").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", "small"], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs leave to mount a small file system")
    try:
        status, shown = run(*TOY, "--kimg", "16", "--keep", "50", "--out", "small/run")
        assert status == 1
        assert "not written: No space left on device; needs about 0." in shown
        assert "older checkpoints are unchanged" in shown
        nimg, _ = newest("small/run")
        assert nimg >= 32
    finally:
        subprocess.run(["umount", "small"], check=True)


def test_a_disk_that_is_full_for_metrics_only(run, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(monitors, "_append_line", full)
    with pytest.warns(UserWarning, match=r"metrics.jsonl: not written: No space left on device; the run goes on"):
        status, _ = run(*TOY, "--out", "run")
    assert status == 0 and newest("run")[0] == 160


def test_a_read_only_run_directory(run):
    status, shown = run(*TOY, "--out", "/proc/run")
    assert status == 2 and "out: want a directory that can be written, got /proc/run: " in shown


def test_a_data_folder_that_changes_or_disappears(run, cwd):
    pictures = cwd / "pictures"
    pictures.mkdir()
    for i in range(20):
        Image.new("L", (16, 16), 10 * i).save(pictures / f"{i}.png")
    assert run(*TINY, "--data", "pictures", "--out", "run")[0] == 0
    before = newest("run")
    Image.new("L", (16, 16), 255).save(pictures / "0.png")
    status, shown = run("--resume", "run", "--kimg", "0.32")
    assert status == 2 and "got other data in pictures" in shown
    for path in pictures.iterdir():
        path.unlink()
    pictures.rmdir()
    status, shown = run("--resume", "run", "--kimg", "0.32")
    assert status == 2 and "data source 'pictures': no such file or folder" in shown
    assert_same(before, newest("run"))


def test_data_that_disappear_during_a_run(run, cwd, monkeypatch):
    (cwd / "pictures").mkdir()
    Image.new("L", (16, 16), 10).save(cwd / "pictures/0.png")

    def step(self, step=Trainer.step):
        for path in Path("pictures").iterdir():
            path.unlink()
        step(self)

    monkeypatch.setattr(Trainer, "step", step)
    assert run(*TINY, "--data", "pictures", "--out", "run")[0] == 0


def test_a_damaged_checkpoint(run):
    assert run(*TOY, "--out", "run", "--keep", "3")[0] == 0
    last = checkpoint.find("run")
    data = bytearray(last.read_bytes())
    data[len(data) // 2] ^= 1
    last.write_bytes(data)
    with pytest.warns(UserWarning, match=f"skipped a checkpoint. .*{last.name}: damaged"):
        status, shown = run("--resume", "run")
    assert status == 0 and "from kimg-000000.128.pt" in shown
    assert newest("run")[0] == 160
    status, shown = run("--resume", str(checkpoint.find("run").with_name("kimg-000000.128.pt")), "--out", "other")
    assert status == 0  # the file itself, by name
    (Path("run/checkpoints") / "kimg-000009.000.pt").write_bytes(bytes(data))
    status, shown = run("--resume", "run/checkpoints/kimg-000009.000.pt")
    assert status == 2 and "kimg-000009.000.pt: damaged: its checksum does not fit its content" in shown


def test_a_checkpoint_of_another_run(run):
    assert run(*TOY, "--out", "run")[0] == 0
    status, shown = run("--resume", "run", "--lr", "0.1", "--kimg", "1")
    assert status == 2
    assert "a resumed run keeps its configuration, but these differ:\n  lr: the run has 0.0004, now 0.1" in shown


class Code:
    def __reduce__(self):
        return os.mkdir, ("made by the checkpoint",)


def test_a_checkpoint_with_code(run, cwd):
    with zipfile.ZipFile(cwd / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"config": Code()}, protocol=2))
    status, shown = run("--resume", "evil.pt")
    assert status == 2 and "evil.pt: cut short, or no checkpoint of gan_engine" in shown
    assert not (cwd / "made by the checkpoint").exists()


def test_a_nan_in_the_data(run, cwd):
    images = np.zeros((4, 16, 16), np.float32)
    images[2, 3, 3] = np.nan
    np.savez(cwd / "images.npz", images=images)
    status, shown = run(*TINY, "--data", "images.npz")
    assert status == 2 and "images must be floats in [0, 1]" in shown
    assert "got float32 with values that are not finite" in shown
