"""Rectangles from the command line to the last picture: runs, resumed and begun from others, and all other commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_engine
from gan_engine import compare, convert, evaluate, export, generate, report, train, translate
from gan_engine.metrics import perceptual
from gan_engine.runs.history import read_metrics

TINY = ["--kimg=0.032", "--batch-size=8", "--device=cpu", "--no-tensorboard", "--threads=1", "--precision=fp32"]
DCGAN = ["dcgan", "--data=photos", "--width=4", "--z-dim=8", *TINY]
SIZES = ["--channel-base=64", "--channel-max=8", "--z-dim=8", "--w-dim=8"]
STYLEGAN2 = ["stylegan2", "--data=photos", *SIZES, "--pl-weight=2", *TINY]
needs_weights = pytest.mark.skipif(not perceptual.installed(), reason=f"{perceptual.PACKAGE} is not installed")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(16):
        noise = np.random.default_rng(i).integers(0, 256, (20 + i, 50 - i, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")


def size(path):
    with Image.open(path) as picture:
        return picture.size


def ok(command, *argv):
    assert not command.main([*map(str, argv)])


@pytest.mark.parametrize(
    ("flags", "resolution", "sides"),
    [
        ([*DCGAN, "--augment=ada", "--ada-groups=bgcfnc", "--mirror"], "12x16", (12, 16)),
        ([*DCGAN, "--augment=diffaugment", "--data=toy", "--channels=3", "--conditional"], "20x12", (20, 12)),
        (STYLEGAN2, "24x16", (24, 16)),
    ],
    ids=["ada", "diffaugment and classes", "stylegan2"],
)
def test_a_run_and_what_is_done_with_it(flags, resolution, sides, capsys):
    ok(train, *flags, "--res", resolution, "--out=run")
    out = capsys.readouterr().out
    assert f"images 3x{resolution}, " in out
    assert json.loads(Path("run/run.json").read_text())["config"]["model"]["resolution"] == list(sides)
    ok(train, "--resume=run", "--kimg=0.064")
    assert read_metrics("run")[-1]["nimg"] == 64
    assert train.main(["--resume=run", "--kimg=0.08", "--res=32"]) == 2
    assert "model.resolution: the run has {}x{}, now 32\n".format(*sides) in capsys.readouterr().err

    ok(generate, "run", "--out=sheet.png", "--num=9")
    scale = round(64 / max(sides))
    assert size("sheet.png") == (3 * (sides[1] * scale + 2) + 2, 3 * (sides[0] * scale + 2) + 2)
    ok(generate, "run", "--out=walk.gif", "--num=2", "--interpolate=2")
    ok(generate, "run", "--out=each", "--num=2")
    assert size("each/000000.png") == sides[::-1]
    ok(report, "run")
    ok(convert, "run", "a.pt")
    assert f"--resolution {resolution}" in capsys.readouterr().out
    G = gan_engine.load("run", "cpu")
    assert G.sample(2).equal(gan_engine.load("a.pt", "cpu").sample(2)) and G.sample(1).shape[2:] == sides

    # Another run begins with it, where the shapes agree: in squares all but what knows the sides.
    ok(train, *flags, "--res=16", "--init-from=run", "--out=on")
    assert "but not" in capsys.readouterr().out


@needs_weights
def test_runs_are_measured_and_compared(capsys):
    for run in ("a", "b"):
        measured = ["--eval-kimg=0.016", "--eval-num=8", "--eval-metrics=kid"]
        ok(train, *STYLEGAN2, "--res=16x24", f"--out={run}", *measured)
    ok(compare, "a", "b")
    capsys.readouterr()
    ok(evaluate, "a", "--num=8", "--metrics=fid,ppl,eqt", "--batch=4")
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert {"fd_imagenet112", "ppl_imagenet", "eqt_dB"} <= set(names)
    ok(generate, "a", "--project=photos/0.png", "--steps=2", "--out=w.png")


@pytest.mark.parametrize("ending", ["onnx", "pt"])
def test_the_exported_generator_draws_rectangles(ending, capsys):
    if ending == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    ok(train, *DCGAN, "--res=12x16", "--out=run")
    ok(export, "run", f"G.{ending}")
    assert "z [N, 8] -> img [N, 3, 12, 16]" in capsys.readouterr().out
    if ending == "pt":
        assert torch.jit.load("G.pt")(torch.randn(3, 8)).shape == (3, 3, 12, 16)


@pytest.mark.parametrize("family", ["pix2pix", "cyclegan"])
def test_pictures_are_translated(family, capsys):
    more = {"pix2pix": ["--max-width=8"], "cyclegan": ["--blocks=1"]}[family]
    sizes = ["--width=4", "--d-width=4", "--kimg=0.008", "--grid-kimg=1", *more]
    ok(train, family, *TINY[1:], *sizes, "--res=32x48", "--out=run")
    ok(translate, "photos", "made", "--checkpoint=run")
    assert {size(f"made/{i}.png") for i in range(16)} == {(48, 32)}
    if family == "pix2pix":
        ok(export, "run", "G.pt")
        assert "source [N, 3, 32, 48] -> img [N, 3, 32, 48]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        (["stylegan3_t_64"], "resolution: want one number for this family, whose sides are equal, got 48x64"),
        (["lapgan"], "resolution: want one number for this family, whose sides are equal, got 48x64"),
        (["gan3d"], "resolution: want one number for this family, whose sides are equal, got 48x64"),
        (["ring"], "--resolution: not a flag of ring, only of "),
        (["dcgan", "--resolution=48x"], "want a whole number or HEIGHTxWIDTH, such as 48x64, got '48x'"),
        (["dcgan", "--resolution=720x1280"], "both times one power of two from 4 to 64, got 720x1280"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(flags, want, capsys, tmp_path):
    assert train.main([flags[0], "--resolution=48x64", *flags[1:]]) == 2
    assert want in capsys.readouterr().err and [path.name for path in tmp_path.iterdir()] == ["photos"]
