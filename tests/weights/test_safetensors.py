"""Files .safetensors: what `convert` writes of a network of ours, who reads it, and files of others."""

import os
import shlex
import stat
import sys

import pytest
import torch

import gan_engine
from gan_engine import convert, evaluate, generate, models, train
from gan_engine.system import checkpoint
from gan_engine.system.checkpoint import CheckpointError
from tests.weights.conversion import built, converted, save_ours


def test_safetensors_and_back():
    pytest.importorskip("safetensors")
    config = models.srgan.Config(variant="rrdb", base="none", width=4, blocks=1, d_width=2)
    G = save_ours("a.pt", config)
    converted("a.pt", "b.safetensors")
    converted("b.safetensors", "c.pt")
    assert built("c.pt")[0].config == config and "D" not in checkpoint.load("c.pt")
    converted("a.pt", "d.safetensors", "--to", "esrgan")
    converted("d.safetensors", "e.pt")
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        for path in ("c.pt", "e.pt"):
            assert torch.equal(built(path)[0](x), G(x))


def test_safetensors_are_ordinary_files(tmp_path):
    pytest.importorskip("safetensors")
    save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3))
    before = os.umask(0o027)
    try:
        converted("a.pt", "b.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b.safetensors").stat().st_mode) == 0o640


def test_damaged_safetensors_are_one_sentence(tmp_path, capsys):
    pytest.importorskip("safetensors")
    save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3))
    converted("a.pt", "a.safetensors")
    capsys.readouterr()
    whole = (tmp_path / "a.safetensors").read_bytes()
    for content in (whole[:-1], whole[:100], b"hi\n", b""):
        (tmp_path / "b.safetensors").write_bytes(content)
        assert convert.main(["b.safetensors", "c.pt"]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith(f"error: b.safetensors: want a whole .safetensors, got {len(content)} bytes")
        assert shown.count("\n") == 1
    assert not (tmp_path / "c.pt").exists()


@pytest.mark.parametrize("about", ["[1]", "3", "[" * 100_000, "{}", '{"model": 3}'])
def test_a_safetensors_of_another_configuration_is_one_sentence(capsys, about):
    library = pytest.importorskip("safetensors.torch")
    library.save_file({"weight": torch.ones(1)}, "a.safetensors", {"gan_engine": about})
    assert convert.main(["a.safetensors", "b.pt"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: a.safetensors: ") and error.count("\n") == 1


def test_a_safetensors_that_cannot_be_read_is_named(tmp_path, capsys):
    pytest.importorskip("safetensors")
    (tmp_path / "a.safetensors").mkdir()
    for name, why in (("a", "Is a directory"), ("b", "No such file or directory")):
        assert convert.main([f"{name}.safetensors", "c.pt"]) == 2
        assert capsys.readouterr().err == f"error: {name}.safetensors: cannot be read: {why}\n"


def test_other_commands_take_a_safetensors_of_ours(tmp_path):
    pytest.importorskip("safetensors")
    G = save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3))
    converted("a.pt", "b.safetensors")
    z = torch.randn(2, 3)
    assert torch.equal(gan_engine.load("b.safetensors", "cpu")(z), G(z))
    for name in ("a.pt", "b.safetensors"):
        assert generate.main([name, "--num", "4", "--out", f"{name}.png", "--device", "cpu"]) == 0
    assert (tmp_path / "a.pt.png").read_bytes() == (tmp_path / "b.safetensors.png").read_bytes()


def test_what_a_safetensors_of_ours_lacks_is_said(capsys):
    pytest.importorskip("safetensors")
    save_ours("a.pt", models.vanilla.Config(resolution=32, hidden=(4,), z_dim=3))
    converted("a.pt", "b.safetensors")
    assert evaluate.main(["b.safetensors", "--device", "cpu"]) == 2
    assert "data: want --data beside b.safetensors, which has weights alone" in capsys.readouterr().err
    assert train.main(["--resume", "b.safetensors"]) == 2
    assert "b.safetensors: want a checkpoint of a training with config, got ['model'," in capsys.readouterr().err


def test_training_begins_with_a_safetensors_of_ours(capsys):
    pytest.importorskip("safetensors")
    save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3))
    converted("a.pt", "b.safetensors")
    sizes = ["--resolution", "8", "--channels", "1", "--hidden", "4", "--z-dim", "3"]
    run = ["--init-from", "b.safetensors", "--data", "toy", "--kimg", "0.008", "--batch-size", "4", "--device", "cpu"]
    assert train.main(["vanilla", *sizes, *run, "--no-tensorboard", "--no-tune-malloc", "--out", "run"]) == 0
    assert "the file has no D" in capsys.readouterr().out


def test_other_commands_say_what_a_foreign_safetensors_is():
    library = pytest.importorskip("safetensors.torch")
    save_ours("a.pt", models.srgan.Config(variant="rrdb", base="none", width=4, blocks=1, d_width=2))
    converted("a.pt", "it's.safetensors", "--to", "esrgan")
    with pytest.raises(
        CheckpointError, match=r"it's\.safetensors: want a checkpoint of gan_engine, got a file"
    ) as caught:
        gan_engine.load("it's.safetensors", "cpu")
    command = str(caught.value).partition("python -m gan_engine.convert ")[2]
    assert convert.main(shlex.split(command)) == 0
    assert gan_engine.load("it's.pt", "cpu")(torch.rand(1, 3, 8, 8)).shape == (1, 3, 32, 32)
    library.save_file({"weight": torch.ones(1)}, "b.safetensors", {"gan_engine": '{"model": {"family": "vanilla"}}'})
    with pytest.raises(CheckpointError, match=r"^b\.safetensors: its generator does not fit this version"):
        gan_engine.load("b.safetensors", "cpu")


def test_safetensors_without_its_package_is_said(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3))
    assert convert.main(["a.pt", "b.safetensors"]) == 2
    assert "want the extra weights: pip install safetensors" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
