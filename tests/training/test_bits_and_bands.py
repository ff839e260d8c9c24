"""Runs on images of 16 bits and on bands: what they learn from, what their commands write, and what is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_engine
import gan_engine.augment.__main__ as augment
from gan_engine import convert, evaluate, export, generate, models, report, train, translate
from gan_engine.data import DataConfig, DataError, ImageSet, load, sources
from gan_engine.data.image_set import to_eight_bits
from gan_engine.inference import run_data
from gan_engine.metrics import copies
from gan_engine.plugins import register_data
from gan_engine.system import checkpoint
from gan_engine.training import precision
from tests.data.test_planes import png
from tests.training import runs

TINY = ["--batch-size=8", "--device=cpu", "--no-tensorboard", "--threads=1"]
DCGAN = ["dcgan", "--res=16", "--width=4", "--z-dim=8", *TINY]
XRAYS, SATELLITE = ["--data=xrays", "--bits=16"], ["--data=satellite.npy", "--channels=5"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """16-bit pictures, pairs of them, bands of 8 and 16 bits; the first picture is a ramp."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 65536, (16, 32, 32)).astype(np.uint16)
    pictures[0] = np.linspace(0, 65535, 32 * 32).reshape(32, 32)
    for name in ("xrays", "pairs/A", "pairs/B"):
        Path(name).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(f"{name}/{i}.png")
    values = rng.integers(0, 65536, (16, 5, 16, 16)).astype(np.uint16)
    np.save("satellite16.npy", values)
    np.save("satellite.npy", (values >> 8).astype(np.uint8))


def ok(command, *argv):
    assert not command.main([*map(str, argv)])


def refused(command, *argv, capsys):
    assert command.main([*map(str, argv)]) == 2
    return capsys.readouterr().err


def weights(run):
    state = checkpoint.load(checkpoint.find(run))
    return {f"{net}.{name}": value for net in ("G", "D", "G_ema") for name, value in state[net].items()}


@pytest.mark.parametrize(
    "data",
    [XRAYS, SATELLITE, ["--data=satellite16.npy", "--channels=5", "--bits=16", "--mirror", "--augment=diffaugment"]],
    ids=["16 bits", "bands", "bands of 16 bits"],
)
def test_a_run_that_was_interrupted_has_the_same_bits(data):
    ok(train, *DCGAN, *data, "--kimg=0.032", "--out=whole")
    ok(train, *DCGAN, *data, "--kimg=0.016", "--out=halves")
    ok(train, "--resume=halves", "--kimg=0.032")
    runs.assert_equal(weights("whole"), weights("halves"))


def test_a_run_of_an_earlier_version_goes_on():
    ok(train, *DCGAN, "--data=toy", "--kimg=0.008", "--out=run")
    path = checkpoint.find("run")
    state = checkpoint.load(path)
    assert state["config"].pop("bits") == 8
    checkpoint.save(path, state)
    ok(train, "--resume=run", "--kimg=0.016")
    assert gan_engine.load("run", "cpu").bits == 8


def test_colours_that_an_older_version_skipped_are_named(capsys):
    ok(train, *DCGAN, *XRAYS, "--kimg=0.008", "--out=run")
    Path("xrays/more.png").write_bytes(png(np.full((16, 16, 3), [65535, 0, 0], np.uint16)))
    hint = "; colour and transparent pictures, which older versions skipped with --bits 16, are read now: "
    assert hint in refused(train, "--resume=run", "--kimg=0.016", capsys=capsys)
    path = checkpoint.find("run")
    with pytest.raises(DataError, match=f"has other images than .* on{hint}if the run is older, move them away$"):
        run_data.of_run(checkpoint.load(path), path)


def test_what_is_done_with_a_run_of_16_bits(capsys):
    ok(train, *DCGAN, *XRAYS, "--kimg=0.016", "--out=run")
    out = capsys.readouterr().out
    assert "1x16x16 of 16 bits" in out and "(channels 1)" in out
    assert json.loads(Path("run/run.json").read_text())["config"]["bits"] == 16
    assert "bits: the run has 16, now 8" in refused(train, "--resume=run", "--kimg=1", "--bits=8", capsys=capsys)

    # A generator that draws a ramp: pictures and arrays have all of its levels, and grids have those of 8 bits.
    trained = gan_engine.load("run", "cpu")
    assert trained.bits == 16
    trained.network.forward = lambda z, c=None: (
        torch.linspace(-1, 1, 1024).view(1, 1, 32, 32).expand(len(z), -1, -1, -1)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "load", lambda *args, **options: trained)
        for out in ("each", "all.npz", "all.npy", "sheet.png"):
            ok(generate, "run", "--num=2", f"--out={out}")
    want = np.linspace(0, 65535, 1024).round().astype(int).reshape(32, 32)
    with Image.open("each/000001.png") as picture, Image.open("sheet.png") as sheet:
        assert picture.mode == "I;16" and abs(np.asarray(picture).astype(int) - want).max() <= 1
        assert sheet.mode == "L"
        written = np.asarray(picture)
    assert len(np.unique(written)) == 1024
    for images in (np.load("all.npz")["images"], np.load("all.npy")):
        assert images.dtype == np.uint16 and np.array_equal(images[1, 0], written)
    assert (
        load(DataConfig("all.npz", bits=16), resolution=32, channels=1).images[1, 0].numpy().tolist()
        == written.tolist()
    )

    ok(report, "run", "--copies")
    assert Path("run/copies.png").is_file()
    for name in ("slim.pt", "slim.safetensors"):
        ok(convert, "run", name, "--slim")
    ok(convert, "slim.safetensors", "back.pt")
    assert gan_engine.load("slim.pt", "cpu").bits == gan_engine.load("back.pt", "cpu").bits == 16


def test_garments_of_16_bits_are_measured_with_8(capsys):
    pictures = np.stack([np.asarray(Image.open(f"xrays/{i}.png")) for i in range(16)])
    np.save("eight.npy", np.rint(pictures / 257).astype(np.uint8))
    measured = ["--eval-kimg=0.008", "--eval-num=16", "--eval-data=pairs/A"]
    ok(train, *DCGAN, *XRAYS, "--res=32", "--kimg=0.008", "--out=run", *measured)
    found = []
    for data in ([], ["--data=eight.npy"]):
        capsys.readouterr()
        ok(evaluate, "run", "--num=16", "--metrics=fid,kid", *data)
        found.append(capsys.readouterr().out.splitlines()[-2:])
    assert found[0] == found[1] and found[0][0].startswith("fd_fashion32 N=16")


@pytest.mark.parametrize("mirror", [False, True])
def test_copies_are_found_among_images_of_16_bits(mirror):
    data = load(DataConfig("xrays", bits=16), resolution=16, channels=1)
    samples = to_eight_bits(data.images[:4])
    found = copies.search(samples.flip(-1) if mirror else samples, data, device=runs.CPU, mirror=mirror)
    assert found.indices[:, 0].tolist() == [0, 1, 2, 3] and found.ratios.max() < 1e-3


def test_auto_is_fp32_for_16_bits(monkeypatch):
    monkeypatch.setattr(precision, "_gains_by_bf16", lambda device: True)
    for flags, want in ((XRAYS, "fp32"), ([*XRAYS, "--precision=bf16"], "bf16"), (SATELLITE, "bf16")):
        ok(train, *DCGAN, *flags, "--kimg=0.008", f"--out={want}{len(flags)}")
        assert json.loads(Path(f"{want}{len(flags)}/run.json").read_text())["starts"][-1]["precision"] == want


def test_what_is_done_with_a_run_of_bands(capsys):
    ok(train, *DCGAN, *SATELLITE, "--kimg=0.016", "--out=run")
    assert "trained in 5 bands (channels 5)" in capsys.readouterr().out
    ok(generate, "run", "--num=4", "--out=all.npz")
    images = np.load("all.npz")["images"]
    assert images.dtype == np.uint8 and images.shape == (4, 5, 16, 16)
    ok(generate, "run", "--num=4", "--out=sheet.png")
    with Image.open("sheet.png") as sheet:
        assert sheet.mode == "RGB" and np.asarray(sheet)[2, 2].tolist() == images[0, :3, 0, 0].tolist()
    ok(generate, "run", "--num=2", "--interpolate=2", "--out=walk.gif")
    ok(report, "run", "--copies")
    ok(export, "run", "G.pt")
    assert "img [N, 5, 16, 16]" in capsys.readouterr().out
    for argv, want in (
        (
            (generate, "--out=each"),
            "want a name ending in .npz or .npy for images of 8 bits and 5 channels, which no .png",
        ),
        (
            (evaluate,),
            "want a generator of grey or colour, of 1, 3 or 4 channels, as measures read pictures, got 5 channels",
        ),
        ((evaluate, "--metrics=fid"), "fid wants grey or colour, of 1, 3 or 4 channels, got a generator of 5 channels"),
    ):
        assert want in refused(argv[0], "run", *argv[1:], capsys=capsys)


def test_a_run_of_bands_goes_on_with_its_channels_only(capsys):
    ok(train, *DCGAN, *SATELLITE, "--kimg=0.008", "--out=run")
    Path("satellite.npy").unlink()  # refused before the data are read
    for flags, want in (
        (["--channels=3"], "model.channels: the run has 5, now 3\n"),
        (["--res=16x32"], "model.resolution: the run has 16, now 16x32\n"),
    ):
        assert want in refused(train, "--resume=run", "--kimg=1", *flags, capsys=capsys)


def test_the_picture_of_transforms_has_no_bands(capsys):
    want = "error: want 1, 3 or 4 channels, since ada transforms grey and colours, got 5 in satellite.npy\n"
    assert refused(augment, "--data=satellite.npy", "--channels=5", "--resolution=16", capsys=capsys) == want


def test_the_exported_generator_draws_bands(capsys):
    pytest.importorskip("onnxruntime", reason="the extra export brings onnxruntime")
    ok(train, *DCGAN, *SATELLITE, "--kimg=0.008", "--out=run")
    ok(export, "run", "G.onnx")
    assert "z [N, 8] -> img [N, 5, 16, 16]" in capsys.readouterr().out


def test_pictures_of_16_bits_are_translated():
    pix2pix = ["pix2pix", "--res=32", "--width=4", "--d-width=4", "--max-width=8", "--kimg=0.008", "--grid-kimg=1"]
    ok(train, *pix2pix, *TINY, "--data=pairs", "--bits=16", "--out=run")
    ok(evaluate, "run", "--batch=8")
    ok(translate, "xrays", "made", "--checkpoint=run")
    with Image.open("made/0.png") as picture:
        assert picture.mode == "I;16" and len(np.unique(np.asarray(picture))) > 256

    seen = []
    trained = gan_engine.load("run", "cpu")
    trained.network.forward = lambda source: seen.append(source) or source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translate, "load", lambda *args, **options: trained)
        ok(translate, "xrays/0.png", "same.png", "--checkpoint=run")
    with Image.open("xrays/0.png") as source, Image.open("same.png") as same:
        assert len(seen[0].unique()) == 1024 and np.array_equal(np.asarray(source), np.asarray(same))


def test_colours_of_16_bits_are_learnt_and_translated(capsys):
    from_values = np.random.default_rng(1).integers(0, 65536, (8, 32, 32, 3)).astype(np.uint16)
    for name in ("photos/A", "photos/B"):
        Path(name).mkdir(parents=True)
        for i, values in enumerate(from_values):
            Path(f"{name}/{i}.png").write_bytes(png(values))
    ok(train, *DCGAN, "--data=photos/A", "--bits=16", "--kimg=0.008", "--out=run")
    assert "3x16x16 of 16 bits" in capsys.readouterr().out
    ok(generate, "run", "--num=2", "--out=all.npz")
    images = np.load("all.npz")["images"]
    assert images.dtype == np.uint16 and images.shape == (2, 3, 16, 16)
    assert "images of 16 bits and 3 channels, which no .png" in refused(generate, "run", "--out=each", capsys=capsys)

    pix2pix = ["pix2pix", "--res=32", "--width=4", "--d-width=4", "--max-width=8", "--kimg=0.008", "--grid-kimg=1"]
    ok(train, *pix2pix, *TINY, "--data=photos", "--bits=16", "--out=pairs-run")
    seen = []
    trained = gan_engine.load("pairs-run", "cpu")
    trained.network.forward = lambda source: seen.append(source) or source
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translate, "load", lambda *args, **options: trained)
        ok(translate, "photos/A/0.png", "same.png", "--checkpoint=pairs-run")
    levels = (seen[0][0].double() * 32767.5 + 32767.5).round().permute(1, 2, 0)
    assert np.array_equal(levels.numpy(), from_values[0])
    with Image.open("same.png") as same:
        assert same.mode == "RGB" and np.array_equal(np.asarray(same), np.rint(from_values[0] / 257))


ALL = {"vanilla": runs.MLP, "dcgan": runs.DCGAN, "stylegan2": runs.STYLEGAN2, **runs.FAMILIES}
ALL["upsample_gan"] = runs.RECTANGLES["upsample_gan"]
OF_NOISE = {
    name: run
    for name, run in ALL.items()
    if models.capabilities(run.model).from_noise and models.data_kind(run.model) == "image"
}


@pytest.mark.parametrize("family", OF_NOISE)
@pytest.mark.parametrize("channels", [2, 5])
def test_families_that_start_from_noise_draw_and_judge_bands(family, channels):
    config = dataclasses.replace(OF_NOISE[family].model, channels=channels)
    G, D = models.build(config)
    c = torch.eye(config.c_dim)[[0, 1]] if config.c_dim else None
    img = G(torch.randn(2, config.z_dim), c)
    assert img.shape[1] == channels and D(img, c).shape == (2,)


@pytest.mark.parametrize(
    ("flags", "want"),
    [
        (
            [*DCGAN, *SATELLITE, "--augment=ada"],
            "augment: want none or diffaugment for 5 channels, since ada transforms",
        ),
        ([*DCGAN, *SATELLITE, "--eval-kimg=1"], "eval_metrics: fid wants grey or colour, of 1, 3 or 4 channels, got"),
        ([*DCGAN, "--channels=65"], "channels: want 1 to 64, got 65"),
        (["pix2pix", "--channels=5"], "channels: want 1 or 3, got 5"),
        (["srgan_light", "--bits=16"], "bits: want 8 for srgan, which trains on patches, got 16"),
        (["gan3d", "--bits=16"], "bits: want 8 for gan3d, which trains on voxels, got 16"),
        ([*DCGAN, "--bits=16"], "bits must be 8 for fashion-mnist, got 16"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(flags, want, capsys):
    assert want in refused(train, *flags, "--out=run", capsys=capsys) and not Path("run").exists()


def test_the_data_of_a_plug_in_have_8_bits(monkeypatch):
    monkeypatch.setattr(sources, "NAMED", dict(sources.NAMED))
    monkeypatch.setattr(sources, "KIND_OF", dict(sources.KIND_OF))
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint16)
    register_data("scans", lambda root, *, resolution, channels: ImageSet("scans", images))
    with pytest.raises(DataError, match=r"want images of 8 bits from scans, of a plug-in, got torch.uint16"):
        load(DataConfig("scans"), resolution=8, channels=1)
