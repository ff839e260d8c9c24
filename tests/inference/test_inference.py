"""A generator in Python draws what `generate` draws; what it cannot draw it says in a sentence."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import gan_engine
from gan_engine import generate, models
from gan_engine.generate import Options
from gan_engine.pictures.picture import to_uint8
from gan_engine.system import checkpoint

NAMES = ["shirt", "shoe", "bag"]
SMALL = {
    "vanilla": models.vanilla.Config(resolution=8, channels=3, z_dim=4, hidden=(16,)),
    "dcgan": models.dcgan.Config(resolution=16, z_dim=4, width=4, c_dim=3),
    "stylegan2": models.stylegan2.Config(
        resolution=8, z_dim=4, w_dim=4, mapping_layers=1, mapping_lr=1, channel_base=32, c_dim=3
    ),
    "gan3d": models.gan3d.Config(resolution=16, z_dim=8, width=2),
    "pix2pix": models.pix2pix.Config(resolution=32, width=4, max_width=8),
    "cyclegan": models.cyclegan.Config(resolution=32, width=4, blocks=1),
    "srgan": models.srgan.Config(resolution=32, scale=2, width=4, blocks=1),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run directory for each family, of weights in which every input counts."""
    home = tmp_path_factory.mktemp("runs")
    for name, config in SMALL.items():
        torch.manual_seed(1)
        G, _ = models.build(config)
        with torch.no_grad():
            for p in G.parameters():
                p.normal_(0, 0.5)
        state = {"model": models.to_dict(config), "G_ema": G.state_dict(), "class_names": NAMES[: config.c_dim]}
        checkpoint.Keeper(home / name, keep=1).save(1000, state)
    return home


def drawn(run_dir, out, **options):
    """The files that the command writes, one for each picture."""
    generate.generate(Options(run_dir, out=out, device="cpu", **options))
    pictures = []
    for path in sorted(out.iterdir()):
        with Image.open(path) as picture:
            pixels = np.asarray(picture)
            pictures.append(pixels.reshape(*pixels.shape[:2], -1))
    return np.stack(pictures)


@pytest.mark.parametrize(
    ("family", "asked", "options"),
    [
        ("vanilla", {"num": 5, "seed": 3}, {"num": 5, "seed": 3}),
        ("vanilla", {"num": 5, "batch": 2}, {"num": 5, "batch": 2}),
        ("vanilla", {"seeds": [7, 3]}, {"seeds": "7,3"}),
        ("vanilla", {"seeds": range(2, 5)}, {"seeds": "2-4"}),
        ("dcgan", {"num": 5}, {"num": 5}),  # each row of a square grid has the next class
        ("dcgan", {"num": 2, "class_": "shoe"}, {"num": 2, "class_": "shoe"}),
        ("dcgan", {"num": 2, "class_": 2}, {"num": 2, "class_": "2"}),
        ("stylegan2", {"num": 3, "truncation": 0.5, "class_": "1"}, {"num": 3, "truncation": 0.5, "class_": "1"}),
    ],
)
def test_samples_are_the_pictures_of_the_command(runs, tmp_path, family, asked, options):
    G = gan_engine.load(runs / family, "cpu")
    img = G.sample(**asked)
    config = SMALL[family]
    assert img.shape[1:] == (config.channels, config.resolution, config.resolution) and img.dtype == torch.float32
    assert img.abs().max() <= 1 and not img.requires_grad
    assert np.array_equal(to_uint8(img), drawn(runs / family, tmp_path / "out", **options))


def test_classes_by_name_and_number_one_for_each(runs):
    G = gan_engine.load(runs / "dcgan", "cpu")
    assert G.class_names == tuple(NAMES)
    each = G.sample(classes=["bag", 0, "1"], seeds=[5, 5, 5])
    for i, name in enumerate(["bag", "shirt", "shoe"]):
        torch.testing.assert_close(each[i : i + 1], G.sample(1, seed=5, class_=name))
    assert not torch.equal(each[0], each[1])


def test_a_generator_is_a_module_that_draws_from_noise_of_ones_own(runs):
    G = gan_engine.load(checkpoint.find(runs / "vanilla"), "cpu")
    z = torch.randn(2, G.config.z_dim)
    assert torch.equal(G(z), G.network(z)) and not G.training
    assert G.device == torch.device("cpu") and not any(p.requires_grad for p in G.parameters())


def test_volumes_are_volumes(runs):
    assert gan_engine.load(runs / "gan3d", "cpu").sample(2).shape == (2, 1, 16, 16, 16)


@pytest.mark.parametrize(
    ("family", "command"), [("pix2pix", "translate"), ("cyclegan", "translate"), ("srgan", "upscale")]
)
def test_what_starts_from_pictures_names_its_command(runs, family, command):
    G = gan_engine.load(runs / family, "cpu")
    with pytest.raises(ValueError, match=rf"got {family}, which does not: .* python -m gan_engine\.{command}, or by G"):
        G.sample(4)
    side = 32 // (2 if family == "srgan" else 1)
    assert G(torch.zeros(1, 3, side, side)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("family", "asked", "want"),
    [
        ("vanilla", {}, "num: want a number of images, or seeds or classes"),
        ("vanilla", {"num": 0}, "num: want at least 1, got 0"),
        ("vanilla", {"num": "4"}, "num: want a whole number, got '4'"),
        ("vanilla", {"seeds": 5}, "seeds: want a list with an entry for each image, got 5"),
        ("vanilla", {"num": 2, "batch": 0}, "batch: want at least 1, got 0"),
        ("vanilla", {"num": 2, "seed": -1}, r"seed: want 0 to 2\^63 - 1, got -1"),
        ("vanilla", {"seeds": [1, 2**63]}, r"seed: want 0 to 2\^63 - 1, got 9223372036854775808"),
        ("vanilla", {"seeds": "1,2"}, "seeds: want a list with an entry for each image, got '1,2'"),
        ("vanilla", {"seed": 5, "seeds": [1, 2]}, "seed: want either seed, of all images, or seeds, of each, got both"),
        ("vanilla", {"num": 3, "seeds": [1, 2]}, "num: want one number of images, got num 3, seeds 2"),
        ("dcgan", {"seeds": [1, 2], "classes": [0]}, "num: want one number of images, got seeds 2, classes 1"),
        ("vanilla", {"num": 2, "class_": 0}, "class: this generator was trained without classes, got 0"),
        ("vanilla", {"classes": [0]}, "class: this generator was trained without classes, got 0"),
        (
            "dcgan",
            {"num": 2, "class_": "hat"},
            "class: want a number from 0 to 2 or one of shirt, shoe, bag, got 'hat'",
        ),
        ("dcgan", {"num": 2, "class_": -1}, "class: want a number from 0 to 2 or .*, got -1"),
        ("dcgan", {"classes": [0], "class_": 1}, "class_: want either class_, of all images, or classes"),
        ("vanilla", {"num": 2, "truncation": 0.5}, "truncation: vanilla has none, got 0.5"),
        ("stylegan2", {"num": 2, "truncation": float("nan")}, "truncation: want a finite number, got nan"),
    ],
)
def test_what_cannot_be_sampled_is_said(runs, family, asked, want):
    with pytest.raises(ValueError, match=want):
        gan_engine.load(runs / family, "cpu").sample(**asked)


def test_what_cannot_be_loaded_is_said(runs, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="nowhere: no such checkpoint or run directory"):
        gan_engine.load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="device: want auto, cpu, cuda or cuda:N, got 'tpu'"):
        gan_engine.load(runs / "vanilla", "tpu")


def test_the_package_alone_brings_no_pytorch():
    code = "import sys, gan_engine; gan_engine.load; assert 'torch' not in sys.modules and 'tyro' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_images_beyond_the_range_are_clamped(tmp_path):
    """Nothing bounds the images of stylegan2."""
    config = dataclasses.replace(SMALL["stylegan2"], c_dim=0)
    torch.manual_seed(0)
    G, _ = models.build(config)
    with torch.no_grad():
        for p in G.parameters():
            p.normal_(0, 3)
    checkpoint.save(tmp_path / "a.pt", {"model": models.to_dict(config), "G_ema": G.state_dict()})
    G = gan_engine.load(tmp_path / "a.pt", "cpu")
    assert G(torch.randn(4, 4)).abs().max() > 1
    assert G.sample(4).abs().max() == 1
