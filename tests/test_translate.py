"""Files and folders through a generator, and what is said where that cannot be."""

import base64
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import generate, models, translate
from gan_engine.inference.generator import load
from gan_engine.system import checkpoint
from gan_engine.translate import Options
from tests.data.test_bits_of_files import AVIF, NEEDS_AVIF

PIX2PIX = models.pix2pix.Config(resolution=32, width=4, max_width=8)
CYCLEGAN = models.cyclegan.Config(resolution=32, width=4, blocks=1)


def write_run(run_dir, config, **more):
    torch.manual_seed(1)
    G, _ = models.build(config)
    with torch.no_grad():
        for p in G.parameters():
            p.normal_(0, 0.3)
    state = {"model": models.to_dict(config), "nimg": 1000, "G_ema": G.state_dict(), **more}
    checkpoint.Keeper(run_dir, keep=1).save(1000, state)
    return run_dir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    configs = {
        "pix2pix": PIX2PIX,
        "edges": models.pix2pix.Config(resolution=32, width=4, max_width=8, source="edges"),
        "cyclegan": CYCLEGAN,
        "vanilla": models.vanilla.Config(),
    }
    runs = {name: write_run(folder / name, config) for name, config in configs.items()}
    return runs | {"16 bits": write_run(folder / "deep", PIX2PIX, bits=16)}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a.jpg", "b.png", "more/c.png")):
        noise = np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / name)
    return folder


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def run(source, out, run_dir, **options):
    return translate.translate(Options(source, out, run_dir, device="cpu", **options))


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan"])
def test_a_folder_keeps_names_and_places(runs, photos, tmp_path, name):
    out = tmp_path / "out"
    assert run(photos, out, runs[name]) == []
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))
    assert made == ["a.png", "b.png", "more/c.png"]
    assert pixels(out / "a.png").shape == (32, 32, 3)
    assert run(photos / "a.jpg", tmp_path / "one.png", runs[name]) == []
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(out / "a.png"))


def test_directions_differ(runs, photos, tmp_path):
    for direction in ("A2B", "B2A"):
        run(photos / "a.jpg", tmp_path / direction, runs["cyclegan"], direction=direction)
    there, back = (pixels(tmp_path / direction / "a.png") for direction in ("A2B", "B2A"))
    assert not np.array_equal(there, back)


def test_edges_are_given_or_taken(runs, photos, tmp_path):
    run(photos / "b.png", tmp_path / "taken.png", runs["edges"], extract=True)
    G = load(runs["edges"], "cpu").network
    from gan_engine.data.decode import fit
    from gan_engine.pictures.files import read, to_picture, to_tensor

    edges = G.source_of(to_tensor(fit(read(photos / "b.png", 3), 32)))
    assert np.array_equal(pixels(tmp_path / "taken.png"), np.asarray(to_picture(G(edges))))
    to_picture(edges).save(tmp_path / "edges.png")
    run(tmp_path / "edges.png", tmp_path / "given.png", runs["edges"])
    assert np.abs(pixels(tmp_path / "given.png").astype(int) - pixels(tmp_path / "taken.png")).mean() < 2


def test_broken_pictures_are_named_and_the_others_made(runs, photos, tmp_path):
    (photos / "text.png").write_text("words")
    (photos / "cut.png").write_bytes((photos / "b.png").read_bytes()[:300])
    text, cut = sorted(run(photos, tmp_path / "out", runs["pix2pix"]), key=lambda failure: "cut" in failure)
    assert text == f"{photos / 'text.png'}: not an image that Pillow can read"
    assert cut.startswith(f"{photos / 'cut.png'}: cannot be read: OSError: ")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3


@NEEDS_AVIF
def test_bits_that_are_not_read_are_counted(runs, photos, tmp_path):
    for bits, content in AVIF.items():
        (photos / f"{bits}.avif").write_bytes(base64.b64decode(content))
    want = f"{photos}: 1 in AVIF with 10 bits (read with 8); 1 in AVIF with 12 bits (read with 8)"
    with pytest.warns(UserWarning, match=f"^{re.escape(want)}$"):  # and nothing of the others, which have 8
        assert run(photos, tmp_path / "out", runs["16 bits"]) == []
    assert run(photos, tmp_path / "again", runs["pix2pix"]) == []


def test_what_is_changed_in_pictures_is_counted(runs, photos, tmp_path):
    Image.new("RGBA", (40, 60), (1, 2, 3, 4)).save(photos / "seen.png")
    with pytest.warns(UserWarning, match=f"^{photos}: 1 with transparency, which becomes white$"):
        run(photos, tmp_path / "out", runs["pix2pix"])


@pytest.mark.parametrize(
    ("name", "options", "want"),
    [
        ("vanilla", {}, "want a generator of pix2pix or cyclegan, got vanilla"),
        ("pix2pix", {"direction": "B2A"}, "direction: want A2B for pix2pix, which goes one way only, got B2A"),
        ("pix2pix", {"extract": True}, "extract: want pix2pix trained on grey or edges, got pix2pix trained on pairs"),
        ("cyclegan", {"extract": True}, "got cyclegan trained on unpaired"),
    ],
)
def test_what_a_generator_cannot_do_is_refused(runs, photos, tmp_path, name, options, want):
    with pytest.raises(ValueError, match=want):
        run(photos, tmp_path / "out", runs[name], **options)
    assert not (tmp_path / "out").exists()


def test_files_that_cannot_be_are_refused(runs, photos, tmp_path):
    def refused(error, want, source=photos, out=tmp_path / "out"):
        with pytest.raises(error, match=want):
            run(source, out, runs["pix2pix"])

    refused(FileNotFoundError, "nowhere: no such file or folder", tmp_path / "nowhere")
    refused(
        ValueError,
        r"out: want a name ending in .png or a directory, got .*x\.jpg",
        photos / "a.jpg",
        tmp_path / "x.jpg",
    )
    (tmp_path / "file").write_text("")
    refused(FileExistsError, "file is a file; want a directory", out=tmp_path / "file")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").write_text("mine")
    refused(FileExistsError, r"b\.png exists; --overwrite replaces it")
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    refused(ValueError, "want pictures of different names, got a.jpg and a.png", out=tmp_path / "other")
    (tmp_path / "empty").mkdir()
    refused(ValueError, "want image files", tmp_path / "empty")


def test_generate_sends_translations_elsewhere(runs, tmp_path):
    with pytest.raises(ValueError, match="want a generator that starts from noise, got cyclegan, which does not"):
        generate.generate(generate.Options(runs["cyclegan"], out=tmp_path / "grid.png", device="cpu"))


def test_the_command(runs, photos, tmp_path, monkeypatch, capsys):
    command = ["translate", str(photos), str(tmp_path / "out"), "--checkpoint", str(runs["cyclegan"])]
    monkeypatch.setattr(sys, "argv", [*command, "--direction", "B2A", "--device", "cpu"])
    assert translate.main() == 0 and capsys.readouterr().out.strip() == str(tmp_path / "out")
    (photos / "text.png").write_text("words")
    monkeypatch.setattr(sys, "argv", [*command, "--overwrite", "--device", "cpu"])
    assert translate.main() == 1 and "text.png: not an image" in capsys.readouterr().err
