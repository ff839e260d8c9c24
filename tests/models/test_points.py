"""The family of points: shapes, gradients, precision, pictures, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import gan_engine
from gan_engine import models
from gan_engine.generate import Options, generate
from gan_engine.inference import copies
from gan_engine.models import points
from gan_engine.pictures import scatter
from gan_engine.presets import PRESETS
from gan_engine.runs import record
from gan_engine.training.trainer import Trainer
from tests.training.runs import CPU, POINTS, toy


def test_shapes_and_gradients():
    torch.manual_seed(0)
    G, D = models.build(points.Config(z_dim=3, hidden=(8, 12)))
    img = G(torch.randn(5, 3))
    logits = D(img)
    assert img.shape == (5, 2) and logits.shape == (5,)
    logits.sum().backward()
    for name, p in [*G.named_parameters(), *D.named_parameters()]:
        assert p.grad is not None and p.grad.isfinite().all(), name
    assert [list(p.shape) for p in D.parameters() if p.ndim == 2] == [[12, 2], [8, 12], [1, 8]]


def test_points_are_not_held_to_a_range():
    G, _ = models.build(points.Config())
    with torch.no_grad():
        G.layers[-1].bias.fill_(4)
        assert G(torch.randn(9, 2)).abs().max() > 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "bf16"}, "precision: want fp32 for points, since bf16 has steps of 0.016 near 2, .*, got bf16"),
        ({"precision": "auto"}, "precision: want fp32 for points, since bf16 has steps .*, got auto"),
        ({"mirror": True}, "mirror: want False for points, since points are no pictures, got True"),
        ({"augment": "ada"}, "augment: want none for points, whose points no augmentation transforms, got ada"),
        ({"conditional": True}, "conditional: want False for points, whose networks read no classes, got True"),
    ],
)
def test_flags_that_make_no_sense_for_points_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PRESETS["ring"](), **changes)


def test_hidden_must_have_widths():
    with pytest.raises(ValueError, match=r"hidden: want at least one width, each at least 1, got \(\)"):
        points.Config(hidden=())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("points")
    trainer = Trainer(POINTS, toy(1, 2, "points"), device=CPU, run_dir=run_dir)
    record.write(run_dir, trainer.config, {"arguments": ["ring"]})
    trainer.run()
    return run_dir


def test_samples_in_training_are_one_picture_with_the_data(run):
    with Image.open(max((run / "samples").glob("*.png"))) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    grey = (np.ptp(pixels, axis=2) == 0) & (pixels[..., 0] > 100) & (pixels[..., 0] < 200)
    orange = pixels[..., 0] - pixels[..., 2] > 80
    assert 440 <= len(pixels) <= 444 and grey.sum() > 300 and orange.sum() > 300
    assert (run / "training.gif").is_file()


def test_sample_gives_the_points_and_generate_draws_them(run, tmp_path):
    G = gan_engine.load(run)
    drawn = G.sample(40, seed=3)
    assert drawn.shape == (40, 2) and torch.equal(G.sample(40, seed=3), drawn)
    with torch.no_grad():
        G.network.layers[-1].bias.add_(5)
    assert torch.allclose(G.sample(40, seed=3), drawn + 5, atol=1e-5)  # beyond [-1, 1]
    for name in ("points.npy", "points.csv"):
        generate(Options(run, num=40, seed=3, batch=7, out=tmp_path / name))
    written = np.load(tmp_path / "points.npy")
    assert written.dtype == np.float32 and np.allclose(written, drawn, atol=1e-6)
    head, *rows = (tmp_path / "points.csv").read_text().splitlines()
    rows = np.array([row.split(",") for row in rows], np.float32)
    assert head == "x,y" and np.array_equal(rows, written)  # nine digits hold a float32
    generate(Options(run, num=40, out=tmp_path / "points.png"))
    with Image.open(tmp_path / "points.png") as image:
        assert min(image.size) >= 440


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"out": "points"},
            r"out: want a name ending in .png \(a plot\), .npy or .csv \(coordinates\) for points, got",
        ),
        (
            {"out": "points.npz"},
            r"out: want a name ending in .png \(a plot\), .npy or .csv .* for points, got .*points\.npz",
        ),
        (
            {"out": "walk.gif", "interpolate": 5},
            "interpolate: want a generator of images or volumes, got one of points",
        ),
    ],
)
def test_pictures_that_points_have_not_are_refused(run, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        generate(Options(run, **{**options, "out": tmp_path / options["out"]}))
    assert not list(tmp_path.iterdir())


def test_copies_are_not_looked_for(run):
    with pytest.raises(ValueError, match="want a generator of images, got one of points"):
        copies.write(run)


def test_a_picture_has_every_point_even_one_outside():
    data = torch.tensor([[-1.0, -1.0], [1.0, 1.0]])

    def orange(points):
        img = scatter.render(torch.tensor(points), data)
        assert img.shape == (1, 3, 440, 440) and img.min() >= -1 and img.max() <= 1
        return (img[0, 0] - img[0, 2] > 0.6).nonzero().float()

    legend = orange([[torch.nan, torch.nan]])
    assert 0 < len(legend) < 200
    inside, outside = orange([[0.0, 0.0]]), orange([[90.0, 0.0]])
    assert len(inside) > len(legend) and len(outside) > len(legend)
    assert outside[:, 1].max() > inside[:, 1].median()
