"""The data decide between grey and colour, unless the user does."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import models, train
from gan_engine.data import DataConfig, load
from gan_engine.presets import PRESETS
from gan_engine.system import checkpoint
from gan_engine.training import inputs
from gan_engine.training.run_flags import parse

RNG = np.random.default_rng(0)
TINY = ["--res", "32", "--batch-size", "4", "--kimg", "0.008", "--device", "cpu", "--no-tensorboard", "--out", "run"]
SMALL = {
    "dcgan": ["--width", "4"],
    "vanilla": ["--hidden", "8"],
    "wgan": ["--width", "4"],
    "wgan_gp": ["--width", "4"],
    "cgan": ["--width", "4"],
    "lapgan": ["--width", "4", "--hidden", "8"],
    "sngan": ["--width", "4", "--d-width", "4"],
    "r3gan": ["--width", "8"],
    "stylegan2": ["--channel-base", "128", "--w-dim", "8", "--z-dim", "8"],
    "srgan_light": ["--width", "4", "--blocks", "1", "--d-width", "2"],
    "pix2pix": ["--width", "4", "--d-width", "4"],
    "cyclegan": ["--width", "4", "--d-width", "4"],
}


def picture(colour, size=(40, 40)):
    pixels = RNG.integers(0, 256, (*size[::-1], 3 if colour else 1), dtype=np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (*size[::-1], 3)).copy())


def save(folder, images):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in images.items():
        image.save(folder / name)
    return folder


def channels(source, kind="image", resolution=16):
    data = load(DataConfig(str(source)), resolution=resolution, channels=None, kind=kind)
    asked = load(DataConfig(str(source)), resolution=resolution, channels=data.images.shape[1], kind=kind)
    assert torch.equal(data.images, asked.images)  # a resumed run asks for the channels that its first start found
    return data.images.shape[1]


@pytest.mark.parametrize(
    ("images", "want"),
    [
        ({"a.jpg": picture(True)}, 3),
        ({"a.jpg": picture(False)}, 1),  # grey, stored as RGB
        ({"a.png": picture(False).convert("L"), "b.png": picture(False).convert("LA")}, 1),
        ({"a.png": picture(False).convert("L").convert("P")}, 1),
        ({"a.png": picture(True).convert("P")}, 3),
        ({"a.gif": picture(True)}, 3),
        ({"a.png": Image.new("RGBA", (40, 40), (9, 200, 30, 0))}, 1),  # the colour of invisible pixels does not count
        ({"a.png": Image.new("RGBA", (40, 40), (99, 99, 99, 120))}, 1),
        ({"a.png": Image.new("RGB", (40, 40), (100, 104, 108))}, 1),
        ({"a.png": Image.new("RGB", (40, 40), (100, 104, 109))}, 3),
        ({"a.tif": Image.fromarray(RNG.integers(0, 65536, (40, 40), dtype=np.uint16))}, 1),
        ({f"{i:03}.png": picture(i == 299, (16, 16)) for i in range(300)}, 3),  # the last of many
    ],
)
def test_pictures_decide(tmp_path, images, want):
    assert channels(save(tmp_path / "set", images)) == want
    assert channels(save(tmp_path / "set", images), "patches") == want


def test_broken_pictures_decide_nothing(tmp_path):
    save(tmp_path, {"b.png": picture(True)})
    (tmp_path / "a.png").write_text("words")
    with pytest.warns(UserWarning, match="skipped 1 image: a.png"):
        assert channels(tmp_path) == 3


def test_arrays_decide(tmp_path):
    grey = RNG.integers(0, 256, (5, 16, 16, 1), dtype=np.uint8)
    colour = np.repeat(grey, 3, 3)
    colour[4, 3, 3] = 255, 0, 0
    for images, want in ((grey, 1), (grey[..., 0], 1), (np.repeat(grey, 3, 3), 1), (colour, 3)):
        np.savez(tmp_path / "a.npz", images=images)
        assert channels(tmp_path / "a.npz") == want


@pytest.mark.parametrize("kind", ["pairs", "unpaired"])
def test_one_side_in_colour_is_enough(tmp_path, kind):
    for a, b in ((False, True), (True, False), (False, False)):
        save(tmp_path / "A", {"1.png": picture(a)})
        save(tmp_path / "B", {"1.png": picture(b)})
        assert channels(tmp_path, kind) == (3 if a or b else 1)


def test_channels_of_named_sets():
    assert channels("fashion-mnist") == 1 and channels("toy") == 3 and channels("toy", "voxels") == 1


@pytest.mark.parametrize("preset", SMALL)
def test_every_family_trains_in_the_channels_of_the_data(tmp_path, monkeypatch, capsys, preset):
    monkeypatch.chdir(tmp_path)
    colour = PRESETS[preset]().model.channels == 1  # the opposite of the preset
    for i in range(8):
        for folder in ("A", "B"):  # two classes, or the two sides of a translation
            save(Path("data", folder), {f"{i}.png": picture(colour)})
    assert train.main([preset, "--data", "data", *SMALL[preset], *TINY]) == 0
    words = "colour images; trained in colour (channels 3)" if colour else "grey images; trained in grey (channels 1)"
    assert words in capsys.readouterr().out
    state = checkpoint.load(checkpoint.find("run"))
    assert state["config"]["model"]["channels"] == (3 if colour else 1) and not state["config"]["channels_of_data"]
    assert json.loads(Path("run/run.json").read_text())["starts"][0]["data"].endswith(words)


def test_a_resumed_run_keeps_its_channels(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(Path("data"), {f"{i}.png": picture(True) for i in range(4)})
    assert train.main(["dcgan", "--data", "data", "--width", "4", *TINY]) == 0
    assert train.main(["--resume", "run", "--kimg", "0.012"]) == 0
    assert capsys.readouterr().out.count("4 images 3x32x32") == 2


def test_the_command_line_decides_over_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(Path("data"), {f"{i}.png": picture(True) for i in range(4)})
    assert train.main(["dcgan", "--data", "data", "--channels=1", "--width", "4", *TINY]) == 0
    assert "4 images 1x32x32" in (out := capsys.readouterr().out) and "trained in grey (channels 1)" in out
    assert train.main(["--resume", "run", "--kimg", "0.012"]) == 0
    assert train.main(["--resume", "run", "--channels", "3", "--kimg", "1"]) == 2
    assert "model.channels: the run has 1, now 3" in capsys.readouterr().err


def test_colours_are_not_learnt_from_grey_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    save(Path("data"), {f"{i}.png": picture(False) for i in range(4)})
    assert train.main(["pix2pix", "--source", "grey", "--data", "data", *SMALL["pix2pix"], *TINY]) == 2
    want = "channels: want 3 to colour grey images, got 1, as data has grey images"
    assert want in capsys.readouterr().err and not Path("run").exists()


def test_toy_data_have_the_channels_of_the_preset():
    G, _ = models.build(PRESETS["dcgan"]().model)
    assert G(torch.zeros(2, 100)).shape == (2, 1, 32, 32) and not PRESETS["dcgan"]().channels_of_data
    assert inputs.read(parse(["dcgan", "--data", "toy", "--res", "16"])).images.shape[1] == 1
    assert inputs.read(parse(["stylegan2", "--res", "16"])).images.shape[1] == 3
