"""The w of --project is drawn, walked and mixed again, and a file that does not fit is told in a sentence."""

import base64
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gan_engine
from gan_engine import generate, models
from gan_engine.generate import Options
from gan_engine.inference import search, w_files
from gan_engine.inference.generator import images
from gan_engine.inference.latents import walk_in_w
from gan_engine.pictures.picture import picture as as_picture
from gan_engine.pictures.picture import to_uint8, write_picture
from gan_engine.system import checkpoint
from tests.data.test_bits_of_files import AVIF, NEEDS_AVIF

STYLEGAN2 = models.stylegan2.Config(resolution=8, z_dim=4, w_dim=4, mapping_layers=1, mapping_lr=1, channel_base=32)
NUM_WS = STYLEGAN2.num_ws


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(1)
    G, _ = models.build(STYLEGAN2)
    with torch.no_grad():
        for p in G.parameters():
            p.normal_(0, 0.5)
    state = {"model": models.to_dict(STYLEGAN2), "G_ema": G.state_dict()}
    checkpoint.Keeper(tmp_path_factory.mktemp("w") / "run", keep=1).save(1000, state)
    return checkpoint.find(tmp_path_factory.getbasetemp() / "w0" / "run")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def G(run):
    return gan_engine.load(run, "cpu").network


def pixels(path):
    with Image.open(path) as opened:
        return np.asarray(opened)


def draw(run, **options):
    """The file, or the pictures of the directory."""
    path = generate.generate(Options(run, device="cpu", **{"out": Path("out"), "overwrite": True} | options))
    return np.stack([pixels(each) for each in sorted(path.iterdir())]) if path.is_dir() else pixels(path)


def tile(sheet, row, column, side=64):
    """A picture of a grid, in its own pixels."""
    y, x = 2 + row * (side + 2), 2 + column * (side + 2)
    return sheet[y : y + side : 8, x : x + side : 8].astype(int)


def randoms(num, *shape):
    return torch.randn(num, *shape, generator=torch.Generator().manual_seed(num))


def test_w_and_ws_are_read_as_they_were_written(G):
    w, ws = randoms(2, 1, 4), randoms(3, NUM_WS, 4)
    w_files.write(Path("w.npz"), w)
    w_files.write(Path("ws.npz"), ws)
    read = w_files.read([Path("w.npz"), Path("ws.npz")], G)
    assert torch.equal(read, torch.cat([w.expand(-1, NUM_WS, -1), ws]))
    np.savez("one.npz", w=w[0, 0].double().numpy())
    np.savez("one_of_each.npz", ws=ws[0].half().numpy())
    read = w_files.read([Path("one.npz"), Path("one_of_each.npz")], G)
    torch.testing.assert_close(read, torch.cat([w[:1].expand(-1, NUM_WS, -1), ws[:1].half().float()]))


def test_pictures_of_files_and_of_the_seeds_behind_them(run, G):
    ws = randoms(3, NUM_WS, 4)
    w_files.write(Path("a.npz"), ws[:2])
    w_files.write(Path("b.npz"), ws[2:])
    files = (Path("a.npz"), Path("b.npz"))
    drawn = draw(run, w=files, batch=2)
    assert np.abs(drawn.astype(int) - to_uint8(G.synthesis(ws))).max() <= 1
    both = draw(run, w=files, seeds="7,1", truncation=0.5, out=Path("both"))
    seeds = draw(run, seeds="7,1", truncation=0.5, out=Path("seeds"))
    assert len(both) == 5 and np.abs(both.astype(int) - np.concatenate([drawn, seeds])).max() <= 1
    sheet = draw(run, w=files, out=Path("grid.png"))
    assert np.abs(tile(sheet, 1, 0) - drawn[2]).max() <= 1


def test_a_walk_goes_through_the_w_of_files(run, G):
    ws = randoms(2, NUM_WS, 4)
    w_files.write(Path("a.npz"), ws)
    generate.generate(Options(run, w=(Path("a.npz"),), interpolate=3, out=Path("walk.webp"), device="cpu"))
    with Image.open("walk.webp") as opened:
        assert opened.n_frames == 6
        opened.seek(3)
        second = np.asarray(opened.convert("RGB"))[::32, ::32].astype(int)
    assert np.abs(second - to_uint8(G.synthesis(ws[1:]))[0]).max() <= 1


def test_gradients_are_as_they_were_between_two_batches_and_after_them(G):
    walks = [walk_in_w(G, randoms(2, NUM_WS, 4), 2, batch=2) for _ in range(2)]
    for _ in zip(*walks):
        assert torch.is_grad_enabled()
    for _ in images(G, 3, batch=1):
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("from_files", [True, False])
def test_walks_side_by_side_are_the_walks_alone(run, G, monkeypatch, from_files):
    frames = []
    monkeypatch.setattr(generate.animation, "write", lambda path, each: frames.extend(each))
    options = {"interpolate": 3, "out": Path("walk.gif"), "device": "cpu", "batch": 5}
    if from_files:
        w_files.write(Path("a.npz"), randoms(8, NUM_WS, 4))
        generate.generate(Options(run, w=(Path("a.npz"),), grid="2x2", **options))
        ws = randoms(8, NUM_WS, 4)
    else:
        generate.generate(Options(run, num=8, seed=3, grid="2x2", **options))
        ws = G.ws(generate.latents(G, 8, seed=3)[0])
    assert len(frames) == 2 * 3 and frames[0].shape == (16, 16, 3)
    for k, (y, x) in enumerate([(0, 0), (0, 8), (8, 0), (8, 8)]):
        alone = torch.cat(list(walk_in_w(G, ws[2 * k : 2 * k + 2], 3, batch=2)))
        cells = np.stack([frame[y : y + 8, x : x + 8] for frame in frames])
        assert np.abs(cells.astype(int) - to_uint8(alone)).max() <= 1


def test_walks_side_by_side_of_a_family_without_w(tmp_path, monkeypatch):
    config = models.vanilla.Config(resolution=8, z_dim=4, hidden=(8,))
    checkpoint.save("a.pt", {"model": models.to_dict(config), "G_ema": models.build(config)[0].state_dict()})
    generate.generate(Options(Path("a.pt"), num=6, interpolate=2, grid="3x1", out=Path("walk.gif"), device="cpu"))
    with Image.open("walk.gif") as opened:
        assert opened.size == (24 * 10, 8 * 10) and opened.n_frames == 4


def test_tables_mix_the_w_of_files_with_each_other_or_with_seeds(run, G):
    ws = randoms(4, NUM_WS, 4)
    w_files.write(Path("a.npz"), ws)
    sheet = draw(run, w=(Path("a.npz"),), style_mix="0-1", out=Path("mix.png"))
    want = to_uint8(G.synthesis(torch.cat([ws[3:, :2], ws[:1, 2:]], 1)))[0]
    assert sheet.shape == (3 * 66 + 2, 3 * 66 + 2, 3) and np.abs(tile(sheet, 1, 2) - want).max() <= 1
    sheet = draw(run, w=(Path("a.npz"),), seeds="5,6,8", style_mix="1", out=Path("mix.png"))
    top = G.ws(generate.latents(G, 3, seed=[5, 6, 8])[0])
    mixed = ws[3:].clone()
    mixed[:, 1] = top[2, 1]
    assert sheet.shape == (5 * 66 + 2, 4 * 66 + 2, 3)
    assert np.abs(tile(sheet, 4, 3) - to_uint8(G.synthesis(mixed))[0]).max() <= 1
    w_files.write(Path("three.npz"), ws[:3])
    with pytest.raises(ValueError, match=r"w: want as many for the left edge as for the top one, or --seeds .*, got 3"):
        draw(run, w=(Path("three.npz"),), style_mix="0", out=Path("mix.png"))


@pytest.fixture
def plain_distance(monkeypatch):
    """Stands for a perceptual one, whose weights are an extra."""
    monkeypatch.setattr(search, "distance", lambda G: distance)


def distance(x, y):
    return (x - y).square().mean((1, 2, 3))


@pytest.mark.parametrize("space", ["w", "w+"])
def test_what_was_found_is_drawn_again(run, G, plain_distance, space):
    target = G.synthesis(randoms(1, NUM_WS, 4))
    write_picture(as_picture(to_uint8(target)[0]), Path("target.png"))
    found = draw(run, project=Path("target.png"), steps=30, space=space, out=Path("found.png"))
    with np.load("found.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays.files} == (
            {"w": (1, 4)} if space == "w" else {"ws": (1, NUM_WS, 4)}
        )
    again = draw(run, w=(Path("found.npz"),), out=Path("again.png"))
    assert np.abs(tile(found, 0, 1) - tile(again, 0, 0)).max() <= 1


@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_of_16_bits_is_read_as_in_training(run, monkeypatch, bits):
    seen = []

    def distance_seen(x, y):
        seen.append(y)
        return distance(x, y)

    monkeypatch.setattr(search, "distance", lambda G: distance_seen)
    state = checkpoint.load(run) | {"bits": bits}
    checkpoint.save("run.pt", state)
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save("ramp.png")
    draw(Path("run.pt"), project=Path("ramp.png"), steps=1, out=Path("found.png"))
    assert len(seen[0].unique()) == 64
    read = values / 65535 if bits == 16 else np.round(values / 257) / 255
    np.testing.assert_allclose(seen[0].numpy(), np.broadcast_to(read * 2 - 1, (1, 3, 8, 8)), atol=1e-6)


@NEEDS_AVIF
def test_a_picture_whose_bits_are_not_read_is_said(G):
    Path("a.avif").write_bytes(base64.b64decode(AVIF[12]))
    with pytest.warns(UserWarning, match=r"^a\.avif: 1 in AVIF with 12 bits \(read with 8\)$"):
        search.read(Path("a.avif"), G, 16)


def test_a_picture_that_cannot_be_read_is_named(run):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)).save("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:300])
    Path("text.png").write_text("words")
    for name, want in (("cut.png", "cannot be read: OSError: "), ("text.png", "not an image that Pillow can read")):
        with pytest.raises(ValueError, match=f"^{name}: {want}"):
            draw(run, project=Path(name), out=Path("found.png"))


def test_w_plus_comes_nearer(G):
    target = G.synthesis(randoms(1, NUM_WS, 4))
    last = {}
    for space in ("w", "w+"):
        found = list(search.project(G, target, None, distance, steps=60, space=space))
        w, last[space] = found[-1]
        assert w.shape == (1, 1 if space == "w" else NUM_WS, 4)
    assert last["w+"] < last["w"] / 2


# What does not fit


@pytest.mark.parametrize(
    ("arrays", "want"),
    [
        (
            {"w": np.zeros((1, 5), np.float32)},
            r"want w \[N, 4\] or ws \[N, 4, 4\] of this generator, got w \[1, 5\] of float32",
        ),
        ({"ws": np.zeros((1, 6, 4), np.float32)}, r"got ws \[1, 6, 4\] of float32 in bad\.npz"),
        ({"w": np.zeros((1, 4, 4), np.float32)}, r"got w \[1, 4, 4\]"),
        ({"w": np.zeros((), np.float32)}, r"got w \[\] of float32"),
        ({"w": np.zeros((2, 4), np.uint8)}, r"got w \[2, 4\] of uint8"),
        ({"w": np.zeros((2, 4), np.complex64)}, r"got w \[2, 4\] of complex64"),
        ({"w": np.zeros((0, 4), np.float32)}, r"with at least one, got none in bad\.npz"),
        ({"w": np.full((1, 4), np.nan)}, "want finite numbers of at most 1,000,000, got others in bad.npz"),
        ({"w": np.full((1, 4), 1e300)}, "want finite numbers of at most 1,000,000, got others"),
        ({"w": np.full((1, 4), np.inf, np.float16)}, "want finite numbers of at most 1,000,000, got others"),
        ({"z": np.zeros((1, 4))}, r"bad\.npz: want one array, w or ws, got z; want an \.npz file with w"),
        ({"w": np.zeros((1, 4)), "ws": np.zeros((1, 4, 4))}, "want one array, w or ws, got w, ws"),
        ({"w": np.array([None])}, "Object arrays cannot be loaded"),
    ],
)
def test_files_that_do_not_fit(run, arrays, want):
    np.savez("bad.npz", **arrays)
    with pytest.raises(ValueError, match=want) as caught:
        draw(run, w=(Path("bad.npz"),))
    assert len(str(caught.value).splitlines()) == 1 and not Path("out").exists()


def test_files_that_are_none(run):
    with pytest.raises(
        FileNotFoundError, match=r"w: want an \.npz file with w \[N, 4\].*, and there is no file no\.npz"
    ):
        draw(run, w=(Path("no.npz"),))
    np.save("a.npy", np.zeros((1, 4), np.float32))
    with pytest.raises(ValueError, match=r"got a\.npy, which is not one"):
        draw(run, w=(Path("a.npy"),))
    np.savez_compressed("a.npz", w=randoms(9, 4).numpy())
    whole = Path("a.npz").read_bytes()
    Path("a.npz").write_bytes(whole[:60] + bytes(20) + whole[80:])
    with pytest.raises(ValueError, match=r"w: a\.npz: .*; want an \.npz file with w"):
        draw(run, w=(Path("a.npz"),))
    with zipfile.ZipFile("text.npz", "w") as file:
        file.writestr("w.npy", "hello")
    with pytest.raises(ValueError, match=r"w: text\.npz: .*; want an \.npz file with w"):
        draw(run, w=(Path("text.npz"),))


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"w": (Path("a.npz"),), "project": Path("p.png")}, "w: a search starts from the mean"),
        ({"w": (Path("a.npz"),), "truncation": 0.5}, "truncation: want it beside --seeds, got --w alone"),
        ({"w": (Path("a.npz"),), "class_": "1"}, "class: want it beside --seeds, got --w alone"),
        ({"space": "w+"}, r"space: want --project beside it, got w\+ alone"),
        ({"space": "z", "project": Path("p.png")}, r"space: want one of w, w\+, got 'z'"),
        ({"grid": "3x2"}, "grid: want columns x rows, such as 3x2, beside --interpolate, got '3x2'"),
        ({"grid": "3", "interpolate": 2}, "grid: want columns x rows, such as 3x2, beside --interpolate, got '3'"),
        ({"grid": "0x2", "interpolate": 2}, "grid: want columns x rows"),
    ],
)
def test_options_that_do_not_go_together(run, options, want):
    with pytest.raises(ValueError, match=want):
        Options(run, **options)


def test_walks_need_a_share_each(run):
    with pytest.raises(ValueError, match="grid: want a multiple of 6 pictures for 6 walks side by side, got 64"):
        draw(run, interpolate=2, grid="3x2", out=Path("a.gif"))
    with pytest.raises(ValueError, match="interpolate: want two pictures or more to walk between, got 1"):
        draw(run, interpolate=2, num=1, out=Path("a.gif"))


def test_a_family_without_w_has_no_files_of_it():
    config = models.vanilla.Config(resolution=8, z_dim=4, hidden=(8,))
    checkpoint.save("a.pt", {"model": models.to_dict(config), "G_ema": models.build(config)[0].state_dict()})
    with pytest.raises(ValueError, match="w: vanilla has no styles"):
        draw(Path("a.pt"), w=(Path("a.npz"),))


def test_the_command_takes_several_files(run, capsys):
    for name in "ab":
        w_files.write(Path(f"{name}.npz"), randoms(1, 1, 4))
    assert generate.main([str(run), "--w", "a.npz", "--w", "b.npz", "--out", "out", "--device", "cpu"]) == 0
    assert len(list(Path("out").iterdir())) == 2
