"""`--channels 4`: images with transparency, from the files to the pictures of a run."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import generate, models, train
from gan_engine.augment.ada import Ada
from gan_engine.data import DataConfig, DataError, load
from gan_engine.data.decode import fit, read_picture
from gan_engine.metrics import extractors, perceptual
from gan_engine.models import cyclegan, pix2pix, srgan
from gan_engine.training import inputs
from gan_engine.training.run_flags import parse

RNG = np.random.default_rng(0)
SEEN, HALF, UNSEEN = (200, 100, 50, 255), (10, 20, 30, 128), (9, 9, 9, 0)


def decode(image, resolution=8, kind="PNG"):
    file = io.BytesIO()
    image.save(file, kind)
    return fit(read_picture(io.BytesIO(file.getvalue()), resolution=resolution, channels=4), resolution)


def test_opacity_and_colours_are_kept_and_unseen_pixels_are_white():
    image = Image.new("RGBA", (8, 8), SEEN)
    image.paste(HALF, (0, 0, 2, 2))
    image.paste(UNSEEN, (6, 6, 8, 8))
    pixels = decode(image)
    assert pixels.shape == (4, 8, 8) and pixels.dtype == np.uint8
    assert [tuple(pixels[:, i, i]) for i in (0, 3, 7)] == [HALF, SEEN, (255, 255, 255, 0)]


@pytest.mark.parametrize(
    ("image", "want"),
    [
        (Image.new("L", (8, 8), 70), (70, 70, 70, 255)),
        (Image.new("RGB", (8, 8), SEEN[:3]), SEEN),
        (Image.new("LA", (8, 8), (70, 128)), (70, 70, 70, 128)),
        (Image.new("P", (8, 8), 0), (0, 0, 0, 255)),
    ],
)
def test_pictures_of_other_modes(image, want):
    assert tuple(decode(image)[:, 4, 4]) == want


def test_the_colour_of_unseen_pixels_does_not_bleed_into_others_when_resizing():
    image = Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 33, 64))
    pixels = decode(image)
    seen = pixels[:, pixels[3] > 0]
    assert (seen[1] == 0).all()
    assert (abs(seen[0, seen[3] > 127].astype(int) - 200) <= 2).all()  # 8 bits hold less of fainter colours


@pytest.mark.parametrize("source", ["set", "set.npz"])
def test_transparency_that_becomes_white_is_said(tmp_path, source):
    pixels = np.array([SEEN, HALF, SEEN], np.uint8)[:, None, None].repeat(8, 1).repeat(8, 2)
    (tmp_path / "set").mkdir()
    for i, picture in enumerate(pixels):
        Image.fromarray(picture, "RGBA").save(tmp_path / "set" / f"{i}.png")
    np.savez(tmp_path / "set.npz", images=pixels)

    def notes(preset, *flags):
        return inputs.read(parse([preset, "--data", str(tmp_path / source), "--res", "16", *flags])).notes

    found = notes("dcgan")
    assert "1 with transparency, which becomes white" in found and "--channels 4 keeps transparency" in found
    assert not any("transparency" in note for note in notes("dcgan", "--channels", "4")[:-1])
    assert notes("dcgan", "--channels", "4")[-1] == "trained in colour with transparency (channels 4)"


def test_no_flag_is_named_where_it_would_be_refused(tmp_path):
    for side in "AB":
        (tmp_path / side).mkdir()
        Image.new("RGBA", (16, 16), HALF).save(tmp_path / side / "1.png")
    notes = inputs.read(parse(["pix2pix", "--data", str(tmp_path), "--res", "32"])).notes
    assert "2 with transparency, which becomes white" in notes and not any("--channels 4" in note for note in notes)


def test_sets_without_transparency_are_refused():
    for name in ("toy", "stacked"):
        with pytest.raises(DataError, match=f"{name}: channels must be 1 or 3, got 4"):
            load(DataConfig(name), resolution=16, channels=4)
    assert load(DataConfig("fashion-mnist"), resolution=16, channels=4).images[:, 3].eq(255).all()


@pytest.mark.parametrize("family", [pix2pix, cyclegan, srgan])
def test_families_that_start_from_pictures_refuse_transparency(family):
    with pytest.raises(ValueError, match="channels: want 1 or 3, got 4"):
        family.Config(channels=4)


@pytest.mark.parametrize("family", ["vanilla", "dcgan", "lapgan", "sngan", "stylegan2", "stylegan3", "r3gan"])
def test_families_that_draw_from_noise_draw_transparency(family):
    config = models.FAMILIES[family].Config(resolution=32, channels=4)
    G, D = models.build(config)
    img = G(torch.randn(2, config.z_dim))
    assert img.shape == (2, 4, 32, 32) and D(img).shape == (2,)


def test_colours_of_ada_leave_the_opacity_as_it_is():
    img = torch.rand(8, 4, 16, 16) * 2 - 1
    torch.manual_seed(0)
    out = Ada("color", p=1.0)(img)
    torch.manual_seed(0)
    assert torch.equal(out[:, 3], img[:, 3]) and torch.equal(out[:, :3], Ada("color", p=1.0)(img[:, :3]))
    assert not torch.equal(out[:, :3], img[:, :3])


def test_extractors_see_images_on_white(monkeypatch):
    seen = []
    stand_in = torch.nn.Module()
    stand_in.name, stand_in.about = "x", "about"
    stand_in.forward = lambda images: seen.append(images)
    monkeypatch.setitem(extractors.EXTRACTORS, "imagenet", lambda shape, weights: seen.append(shape) or stand_in)
    built = extractors.build("auto", (4, 32, 32), weights=None, device=torch.device("cpu"))
    built(torch.tensor([SEEN, HALF, UNSEEN], dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32))
    assert seen[0] == (3, 32, 32) and seen[1].dtype == torch.uint8 and built.about != stand_in.about
    assert seen[1][:, :, 0, 0].tolist() == [[200, 100, 50], [132, 137, 142], [255, 255, 255]]
    img = torch.tensor([[[[0.5]], [[-1.0]], [[0.0]], [[0.0]]]])
    assert perceptual.on_white(img).flatten().tolist() == [0.75, 0.0, 0.5]


def test_a_run_reads_trains_and_draws_transparency(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    for i in range(8):
        pixels = RNG.integers(0, 256, (32, 32, 4), dtype=np.uint8)
        Image.fromarray(pixels, "RGBA").save(tmp_path / "set" / f"{i}.png")
    flags = ["--res", "32", "--batch-size", "4", "--kimg", "0.016", "--width", "4", "--augment", "ada"]
    train.main(["dcgan", "--data", "set", "--channels", "4", *flags, "--device", "cpu", "--out", "run"])
    generate.main(["run", "--num", "4", "--out", "grid.png"])
    sheets = [*(tmp_path / "run" / "samples").iterdir(), tmp_path / "grid.png"]
    assert {Image.open(sheet).mode for sheet in sheets} == {"RGBA"}
    with Image.open(tmp_path / "run" / "training.gif") as gif:
        assert gif.convert("RGB").getextrema()[0][1] == 255
    assert (tmp_path / "run" / "report.html").exists()
