"""A run that goes on from a collapsed state says so, and growth is measured from where a history begins."""

import json

import pytest
import torch

from gan_engine import train
from gan_engine.runs.history import read_metrics
from gan_engine.system import checkpoint
from gan_engine.training.health import FIRST_SIZE, PREFIX
from gan_engine.training.watch import BACK_TO
from tests.training.runs import collapse_after

FLAGS = ["--no-tensorboard", "--device", "cpu", "--grid-kimg", "100", "--metrics-kimg", "100"]
MLP = ["vanilla", "--data", "toy", "--res", "16", "--hidden", "16", "--batch-size", "64", "--keep", "9", *FLAGS]


def end(run_dir):
    return json.loads((run_dir / "run.json").read_text())["starts"][-1]["end"]["reason"]


def growth(run_dir):
    return [row[PREFIX + "growth/D"] for row in read_metrics(run_dir) if PREFIX + "growth/D" in row]


@pytest.fixture
def collapsed(tmp_path, monkeypatch):
    """A run that went on although an alarm of collapse stands from 8.192 kimg on."""
    collapse_after(monkeypatch, 5000)
    run_dir = tmp_path / "run"
    flags = ["--kimg", "10.24", "--checkpoint-kimg", "2.048", "--out", str(run_dir)]
    assert train.main([*MLP, *flags]) == 0
    return run_dir


@pytest.mark.parametrize("mode", ["stop", "rollback"])
def test_a_start_from_a_collapsed_state_is_refused(collapsed, mode, capsys):
    before = (collapsed / "metrics.jsonl").read_text()
    flags = ["--kimg", "20", "--on-collapse", mode, "--rollbacks", "1", *FLAGS]
    assert train.main(["--resume", str(collapsed), *flags]) == 2
    err, healthy = capsys.readouterr().err, collapsed / "checkpoints/kimg-000004.096.pt"
    assert f"want a healthy checkpoint for {mode}, got " in err
    assert "in which an alarm stands: collapse: two images of G differ by 5%" in err
    assert f"--resume={healthy} is the newest healthy one; --on-collapse warn goes on from here" in err
    assert (collapsed / "metrics.jsonl").read_text() == before
    assert train.main(["--resume", str(collapsed), *flags, "--out", str(collapsed.with_name("other"))]) == 2
    assert train.main(["--resume", str(healthy), *flags]) == 0
    assert end(collapsed).startswith("collapse: two images of G differ by 5%")
    assert any(BACK_TO in row for row in read_metrics(collapsed)) == (mode == "rollback")


def test_the_best_checkpoint_is_named_where_it_is_the_newest_healthy_one(collapsed, capsys):
    flags = ["--kimg", "20", "--on-collapse", "stop", *FLAGS]
    healthy = collapsed / "checkpoints/kimg-000004.096.pt"
    healthy.rename(collapsed / "best.pt")
    (collapsed / "checkpoints/kimg-000002.048.pt").unlink()
    assert train.main(["--resume", str(collapsed), *flags]) == 2
    assert f"; --resume={collapsed / 'best.pt'} is the newest healthy one; " in capsys.readouterr().err
    (collapsed / "best.pt").write_bytes(b"damaged")
    assert train.main(["--resume", str(collapsed), *flags]) == 2
    assert "; no healthy one is left; " in capsys.readouterr().err


def test_a_state_that_may_be_collapsed_is_not_gone_back_to(collapsed):
    """Its reading shows a collapse, which is no alarm yet."""
    near = collapsed / "checkpoints/kimg-000006.144.pt"
    assert train.main(["--resume", str(near), "--kimg", "20", "--on-collapse", "rollback", *FLAGS]) == 0
    assert checkpoint.load(checkpoint.find(collapsed))["nimg"] == 8192
    assert end(collapsed).startswith("collapse: ") and end(collapsed).endswith("no healthy state to go back to")
    assert not any(BACK_TO in row for row in read_metrics(collapsed))


@pytest.fixture
def large(tmp_path):
    """A checkpoint with weights that are four times as large as new ones."""
    assert train.main([*MLP, "--kimg", "2.048", "--out", str(tmp_path / "first")]) == 0
    state = checkpoint.load(checkpoint.find(tmp_path / "first"))
    for net in ("G", "D"):
        state[net] = {name: 4 * value for name, value in state[net].items()}
    checkpoint.save(tmp_path / "large.pt", state)
    return tmp_path / "large.pt"


def test_weights_of_another_run_have_not_grown(large, tmp_path):
    new, other = tmp_path / "new", tmp_path / "other"
    assert train.main([*MLP, "--init-from", str(large), "--kimg", "6.144", "--out", str(new)]) == 0
    assert growth(new) == pytest.approx([1] * 3, abs=0.1)
    assert train.main(["--resume", str(large), "--kimg", "8.192", "--out", str(other), *FLAGS]) == 0
    assert growth(other) == pytest.approx([1] * 3, abs=0.1)
    for run_dir in (new, other):
        assert not any("alarms" in row for row in read_metrics(run_dir))
        assert [row["nimg"] for row in read_metrics(run_dir) if FIRST_SIZE + "D" in row] == [
            4096 if run_dir is other else 2048
        ]


def test_a_run_that_goes_on_measures_growth_as_if_nothing_had_happened(large, tmp_path):
    for kimg in ("2.048", "4.096"):
        run_dir = tmp_path / kimg
        assert train.main([*MLP, "--init-from", str(large), "--kimg", kimg, "--out", str(run_dir)]) == 0
    assert train.main(["--resume", str(tmp_path / "2.048"), "--kimg", "4.096", *FLAGS]) == 0
    assert growth(tmp_path / "2.048") == growth(tmp_path / "4.096")
    first = [row for row in read_metrics(tmp_path / "2.048") if FIRST_SIZE + "D" in row]
    assert [row["nimg"] for row in first] == [2048]
    D = checkpoint.load(large)["D"]
    size = torch.nn.utils.get_total_norm([value for name, value in D.items() if name.endswith(("weight", "bias"))])
    assert first[0][FIRST_SIZE + "D"] == pytest.approx(float(size))
