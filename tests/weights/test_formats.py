"""Weights of every format give the results of their own networks, and come back as they were."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch

import gan_engine
from gan_engine import convert, models
from gan_engine.system import checkpoint
from gan_engine.weights import formats
from tests.weights import networks
from tests.weights.conversion import built, close, converted, save_ours
from tests.weights.networks import RRDBNet

# StyleGAN2-ADA


def test_stylegan2_ada(persistence, capsys):
    G, D = networks.ada()
    networks.ada_pickle("a.pkl", G, D)
    converted("a.pkl", "a.pt")
    out = capsys.readouterr().out
    assert "found      stylegan2-ada: G, D, G_ema of stylegan2" in out
    assert "--resolution 32" in out and "--channel-base 256" in out and "--channel-max 16" in out
    ours, our_D = built("a.pt")
    z, img = torch.randn(4, 16), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        close(ours(z), G.eval()(z, noise_mode="const"))
        close(our_D(img)[:, None], D(img))
        close(ours(z, truncation=0.5), G.synthesis(torch.arange(16.0).lerp(G.ws(z), 0.5), noise_mode="const"))
    assert gan_engine.load("a.pt", "cpu").sample(2).shape == (2, 3, 32, 32)


def test_limits_of_lower_resolutions_are_told(persistence, capsys):
    G, D = networks.ada()
    for block in list(G.blocks)[-2:]:
        block.use_fp16 = True
    networks.ada_pickle("a.pkl", G, D)
    converted("a.pkl", "a.pt")
    assert (
        "note       there every layer limits its values to 256, here those of the 2 highest" in capsys.readouterr().out
    )


def test_one_mean_of_all_classes_is_that_of_each(persistence):
    """A conditional mapping: the embedding of the class beside the noise, both normalised."""
    G, _ = networks.ada()
    networks.ada_pickle("a.pkl", G)
    tree = formats.safe_reader.read("a.pkl")
    mapping = tree["G_ema"].state["_modules"]["mapping"]
    first = mapping.state["_modules"]["fc0"].state["_parameters"]
    embed = torch.randn(16, 5), torch.randn(16)
    first["weight"] = torch.randn(16, 32) * 100
    record = type("Recorded", (formats.safe_reader.Record,), {"name": "FullyConnectedLayer"})()
    record.state = {"_parameters": {"weight": embed[0], "bias": embed[1]}, "_buffers": {}, "_modules": {}}
    mapping.state["_modules"]["embed"] = record
    config, weights, _ = formats.stylegan2_ada.convert({"G_ema": tree["G_ema"]})
    ours = models.stylegan2.Generator(config).eval()
    ours.load_state_dict(weights["G_ema"])
    z, c = torch.randn(5, 16), torch.eye(5)
    y = c @ (embed[0] / 5**0.5).t() + embed[1]
    x = torch.cat([v * (v.square().mean(1, keepdim=True) + 1e-8).rsqrt() for v in (z, y)], 1)
    with torch.no_grad():
        G.mapping[0].weight = torch.nn.Parameter(first["weight"])
        G.mapping[0].weight_gain = 0.01 / 32**0.5
        close(ours.mapping(z, c), G.mapping(x))
    assert torch.equal(ours.mapping.w_mean, torch.arange(16.0).expand(5, -1))


def test_a_D_with_classes_is_read_with_its_mapping(persistence):
    """logit = <out(features), mapping(normalised embedding of the class)> / sqrt(w_dim)"""
    G, D = networks.ada()
    connected = networks.stylegan.FullyConnectedLayer
    G.mapping[0] = connected(32, 16, activation="lrelu", lr_multiplier=0.01)
    D.out, embed = connected(16, 16), {"embed": connected(5, 16)}
    fc = [connected(16, 16, activation="lrelu", lr_multiplier=0.01) for _ in range(3)]
    networks.unlike(D.out, *fc, *embed.values())
    layers = {name: networks.persistent(layer) for name, layer in embed.items()}
    mapping = {f"fc{i}": networks.persistent(layer) for i, layer in enumerate(fc)}
    networks.ada_pickle("a.pkl", G, D, embed=layers, D_mapping=layers | mapping)
    converted("a.pkl", "a.pt")
    config = models.from_dict(checkpoint.load("a.pt")["model"])
    assert config.c_dim == 5
    img, c = torch.randn(4, 3, 32, 32), torch.eye(5)[:4]
    with torch.no_grad():
        w = embed["embed"](c)
        w = w * (w.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in fc:
            w = layer(w)
        close(built("a.pt")[1](img, c), (D(img) * w).sum(1) / 4)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        (lambda G, D: setattr(D.blocks[0], "skip", None), "D: want the architecture skip or resnet, got orig; --slim"),
        (
            lambda G, D: G.blocks[1].conv0.resample_filter.fill_(1 / 16),
            r"G: want the filter \[1, 3, 3, 1\] in synthesis.b8.conv0.resample_filter, got \[0.25, 0.25, 0.25, 0.25\]",
        ),
        (lambda G, D: setattr(G.blocks[1].conv1, "use_noise", False), "want noise in every layer, got none in synth"),
        (
            lambda G, D: setattr(D.blocks[1].conv1, "activation", "relu"),
            "want the activation lrelu, got relu in b16.conv1",
        ),
        (
            lambda G, D: setattr(G.blocks[1].conv1, "more", torch.nn.Parameter(torch.ones(1))),
            "our network has no place for synthesis.b8.conv1.more",
        ),
        (
            lambda G, D: G.blocks[2].conv1.bias.data.fill_(torch.nan),
            "want finite numbers in synthesis.b16.conv1.bias, got NaN",
        ),
        (
            lambda G, D: setattr(G.blocks[2].conv1, "bias", torch.nn.Parameter(torch.ones(3))),
            r"want synthesis.b16.conv1.bias of \[16\], got \[3\]",
        ),
        (
            lambda G, D: setattr(G.blocks[1].conv1, "weight", torch.nn.Parameter(torch.ones(9, 16, 3, 3))),
            "want min.base / resolution, 16. feature maps at every resolution, .* 16 at 8x8, got 9",
        ),
        (
            lambda G, D: setattr(G.blocks[0], "const", torch.nn.Parameter(torch.ones(16, 4, 6))),
            r"G_ema: want a network of square images, which begin with 4x4 pixels, got one that begins with 4x6: rect",
        ),
    ],
)
def test_what_our_stylegan2_cannot_hold_is_said_and_nothing_is_written(persistence, tmp_path, capsys, change, want):
    G, D = networks.ada()
    change(G, D)
    networks.ada_pickle("a.pkl", G, D)
    assert convert.main(["a.pkl", "a.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(want, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_slim_leaves_a_D_that_does_not_fit(persistence):
    G, D = networks.ada()
    D.blocks[0].skip = None
    networks.ada_pickle("a.pkl", G, D)
    converted("a.pkl", "a.pt", "--slim")
    assert {"G", "D"}.isdisjoint(checkpoint.load("a.pt"))
    assert built("a.pt")[0](torch.zeros(2, 16)).shape == (2, 3, 32, 32)


# rosinality


def rosinality_file(path, **more):
    G, D = networks.rosinality_networks()
    tree = {"g": networks.rosinality_keys(G), "g_ema": networks.rosinality_keys(G), "d": D.state_dict()}
    torch.save(tree | more, path)
    return G, D, tree


def test_rosinality_and_back(capsys):
    mean = torch.arange(16.0)
    G, D, tree = rosinality_file("a.pt", latent_avg=mean)
    converted("a.pt", "b.pt")
    assert "found      rosinality: G, D, G_ema of stylegan2" in capsys.readouterr().out
    ours, our_D = built("b.pt")
    z, img = torch.randn(4, 16), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        close(ours(z), networks.with_noise(G, tree["g_ema"], G.ws(z)))
        close(our_D(img)[:, None], D(img))
    converted("b.pt", "c.pt", "--to", "rosinality")
    back = torch.load("c.pt", weights_only=True)
    assert back.keys() == {"g", "g_ema", "d", "latent_avg"} and torch.equal(back["latent_avg"], mean)
    for name in ("g", "g_ema", "d"):
        assert back[name].keys() == tree[name].keys()
        for key, x in tree[name].items():
            assert back[name][key].shape == x.shape, key
            torch.testing.assert_close(back[name][key], x, rtol=0, atol=1e-7 if "kernel" in key else 0)
    D.load_state_dict(back["d"])


def test_a_mean_of_w_that_is_not_there_is_measured(capsys):
    G, _, _ = rosinality_file("a.pt")
    converted("a.pt", "b.pt")
    assert "note       the file has no mean of w, so it was measured" in capsys.readouterr().out
    ours, _ = built("b.pt")
    with torch.no_grad():
        mean = G.ws(torch.randn(20_000, 16))[:, 0].mean(0)
    torch.testing.assert_close(ours.mapping.w_mean[0], mean, atol=0.15, rtol=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_numbers_of_another_kind_are_refused(capsys, dtype):
    _, _, tree = rosinality_file("a.pt")
    tree["g_ema"]["conv1.conv.weight"] = tree["g_ema"]["conv1.conv.weight"].to(dtype)
    torch.save(tree, "a.pt")
    assert convert.main(["a.pt", "b.pt"]) == 2
    assert f"want conv1.conv.weight in torch.float32, got {dtype}" in capsys.readouterr().err


def test_sizes_that_no_memory_holds_are_refused_by_a_shape(capsys, monkeypatch):
    _, _, tree = rosinality_file("a.pt")
    for name, x in tree["g_ema"].items():
        if name.endswith("conv.weight") and len(x[0]) > 3:
            tree["g_ema"][name] = torch.empty(1, 20000, 20000, 0, 3)  # has no numbers
    torch.save({"g_ema": tree["g_ema"]}, "a.pt")
    randn = torch.randn

    def without_numbers(*size):
        assert torch.get_default_device().type == "meta", f"made {size}"
        return randn(*size)

    monkeypatch.setattr(torch, "randn", without_numbers)
    assert convert.main(["a.pt", "b.pt"]) == 2
    assert re.search(r"want \S+ of \[.*20000.*\], got", capsys.readouterr().err)


def test_rectangles_of_rosinality_are_refused(tmp_path, capsys):
    _, _, tree = rosinality_file("a.pt")
    torch.save(tree | {"g_ema": tree["g_ema"] | {"input.input": torch.ones(1, 16, 4, 6)}}, "a.pt")
    assert convert.main(["a.pt", "b.pt"]) == 2
    want = "error: a.pt: rosinality g_ema: want a network of square images, which begin with 4x4 pixels, got one that"
    assert capsys.readouterr().err.startswith(f"{want} begins with 4x6: ") and not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"channels": 1}, "to: rosinality: want a stylegan2 with channels 3, got 1"),
        ({"architecture": "residual"}, "want a stylegan2 with architecture skip, got residual"),
        ({"c_dim": 3}, "want a stylegan2 with c_dim 0, got 3"),
        ({"z_dim": 4}, "want z_dim = w_dim = 8, got z_dim 4"),
        ({"resolution": (12, 8)}, "want a stylegan2 of squares, got resolution 12x8"),
    ],
)
def test_networks_that_rosinality_has_no_place_for(tmp_path, capsys, fields, want):
    config = models.stylegan2.Config(
        **{"resolution": 8, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8} | fields
    )
    save_ours("a.pt", config)
    assert convert.main(["a.pt", "b.pt", "--to", "rosinality"]) == 2
    assert want in capsys.readouterr().err and not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize(("clamp", "half", "said"), [("256", "2", True), ("None", "2", False), ("256", "0", False)])
def test_the_clamp_that_rosinality_has_no_place_for_is_said(capsys, clamp, half, said):
    sizes = {"resolution": 32, "z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "mapping_lr": 0.01}
    limits = {"clamp": None if clamp == "None" else float(clamp), "half_resolutions": int(half)}
    save_ours("a.pt", models.stylegan2.Config(**sizes, **limits))
    converted("a.pt", "b.pt", "--to", "rosinality")
    note = "note       the layout has no --clamp: here the 2 highest resolutions limit their values to 256, there none"
    assert (note in capsys.readouterr().out) == said


# ESRGAN


LAYOUTS = {
    "BasicSR": lambda weights, doublings: weights,
    "params_ema": lambda weights, doublings: {"params": {}, "params_ema": weights},
    "BSRGAN": lambda weights, doublings: networks.esrgan_trunk_keys(weights),
    "first": lambda weights, doublings: networks.esrgan_first_keys(weights, doublings=doublings),
}


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_esrgan_and_back(layout, scale):
    net = RRDBNet(scale)
    networks.unlike(net)
    torch.save(LAYOUTS[layout](net.state_dict(), scale // 2), "a.pth")
    converted("a.pth", "b.pt")
    G, _ = built("b.pt")
    x = torch.rand(2, 3, 9, 7)
    with torch.no_grad():
        close((G(2 * x - 1) + 1) / 2, net(x))
    converted("b.pt", "c.pth", "--to", "esrgan")
    back = torch.load("c.pth", weights_only=True)
    assert back.keys() == net.state_dict().keys()
    assert all(torch.equal(back[key], x) for key, x in net.state_dict().items())


@pytest.mark.parametrize(
    ("ending", "scale", "channels"), [(".pth", 4, 3), (".safetensors", 4, 3), (".pth", 2, 3), (".pth", 4, 1)]
)
def test_the_loader_of_comfyui_and_chainner_opens_ours(ending, scale, channels):
    """spandrel finds architecture, sizes and scale from the keys and shapes alone, and makes the same images."""
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("spandrel is not installed: the extra test brings it")
    import gan_engine.data.torchvision_shim  # noqa: F401  (spandrel imports torchvision)

    spandrel = importlib.import_module("spandrel")
    config = models.srgan.Config(
        variant="rrdb", base="none", width=8, blocks=2, d_width=2, scale=scale, channels=channels
    )
    G = save_ours("a.pt", config)
    converted("a.pt", f"b{ending}", "--to", "esrgan")
    opened = spandrel.ModelLoader("cpu").load_from_file(f"b{ending}")
    assert (opened.architecture.id, opened.scale) == ("ESRGAN", scale)
    assert (opened.input_channels, opened.output_channels) == (channels, channels)
    x = torch.rand(1, channels, 12, 9)
    with torch.no_grad():
        wanted = (G(2 * x - 1) + 1) / 2
        close(opened.model(x), wanted)
        torch.testing.assert_close(opened(x), wanted.clamp(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (
            lambda w: w | {"conv_first.weight": torch.ones(8, 12, 3, 3)},
            "got 12 and 3: its images are folded 2x2 pixels",
        ),
        (lambda w: {k.replace("rdb1.", ""): x for k, x in w.items()}, "want blocks of dense layers"),
        (lambda w: {k: x for k, x in w.items() if "conv_up" not in k}, "our srgan cannot hold it: scale: want 2 or 4"),
        (lambda w: {k: x for k, x in w.items() if "hr" not in k}, "want conv_hr.weight, got no tensor of that name"),
    ],
)
def test_networks_that_our_srgan_cannot_hold(tmp_path, capsys, make, want):
    torch.save(make(RRDBNet().state_dict()), "a.pth")
    assert convert.main(["a.pth", "b.pt"]) == 2
    assert want in capsys.readouterr().err and not (tmp_path / "b.pt").exists()


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"variant": "rrdb"}, "want an srgan with base none, got bicubic"),
        ({"variant": "rrdb", "base": "none", "growth": 4}, "want an srgan with growth 32, got 4"),
        ({"variant": "srresnet", "base": "none"}, "want an srgan with variant rrdb, got srresnet"),
    ],
)
def test_networks_that_esrgan_has_no_place_for(capsys, fields, want):
    save_ours("a.pt", models.srgan.Config(width=4, blocks=1, d_width=2, **fields))
    assert convert.main(["a.pt", "b.pth", "--to", "esrgan"]) == 2
    assert want in capsys.readouterr().err
    assert convert.main(["a.pt", "b.pth", "--to", "rosinality"]) == 2
    assert "want networks of stylegan2 for rosinality, got those of srgan" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda: {5 if key == "convs.0.conv.weight" else key: x for key, x in rosinality_g().items()}, "rosinality"),
        (lambda: rosinality_g() | {"style.1.weight": {}}, "rosinality"),
        (lambda: networks.esrgan_first_keys(RRDBNet().state_dict()) | {"foo": torch.ones(1)}, "esrgan"),
        (lambda: RRDBNet().state_dict() | {"conv_first.weight": torch.ones(())}, "esrgan"),
    ],
)
def test_a_damaged_file_of_a_known_format_is_one_sentence(tmp_path, capsys, change, name):
    found = change()
    torch.save({"g_ema": found} if name == "rosinality" else found, "a.pth")
    assert convert.main(["a.pth", "b.pt"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: a.pth: want the networks of {name}, got others or damaged ones: ")
    assert error.count("\n") == 1 and not (tmp_path / "b.pt").exists()


def rosinality_g():
    return networks.rosinality_keys(networks.rosinality_networks()[0])


# Ours, and all formats


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("b.safetensors",), "b.safetensors"),
        (("b.pt",), "b.pt"),
        (("b.safetensors", "--to", "esrgan"), "b.safetensors"),
        (("b.pth", "--to", "esrgan"), "b.pth"),
    ],
)
def test_a_full_disk_is_one_sentence(tmp_path, capsys, full_disk, arguments, shown):
    if "safetensors" in shown:
        pytest.importorskip("safetensors")
    save_ours("a.pt", models.srgan.Config(variant="rrdb", base="none", width=4, blocks=1, d_width=2))
    full_disk(1000)
    assert convert.main(["a.pt", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {shown}: not written: File too large; needs about ") and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


CYCLEGAN = models.cyclegan.Config(resolution=32, width=2, d_width=8, blocks=6, published=True)
PARTS = ("D_A", "D_B", "G_A", "G_B")


def test_a_full_disk_for_a_folder_of_networks(tmp_path, capsys, full_disk):
    save_ours("a.pt", CYCLEGAN)
    D, *_, G = [file.stat().st_size for file in written_folder("out")]
    assert G < D
    full_disk(D - 1)  # both G, which come first, fit
    assert convert.main(["a.pt", "new", "--to", "cyclegan"]) == 1
    assert "latest_net_D_A.pth: not written: File too large; needs about " in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_full_disk_leaves_a_folder_of_networks_as_it_was(full_disk):
    save_ours("a.pt", CYCLEGAN)
    before = {file.name: file.read_bytes() for file in written_folder("out")}
    assert list(before) == [f"latest_net_{name}.pth" for name in PARTS]
    save_ours("a.pt", CYCLEGAN)  # other weights
    full_disk(len(before["latest_net_D_A.pth"]) - 1)  # both G, which come first, fit
    assert convert.main(["a.pt", "out", "--to", "cyclegan", "--overwrite"]) == 1
    assert {file.name: file.read_bytes() for file in Path("out").iterdir()} == before


def written_folder(out):
    converted("a.pt", out, "--to", "cyclegan", "--overwrite")
    return sorted(Path(out).iterdir())


def test_a_folder_keeps_no_networks_of_other_runs(capsys):
    save_ours("a.pt", CYCLEGAN)
    assert [file.name for file in written_folder("out")] == [f"latest_net_{name}.pth" for name in PARTS]
    before = Path("out/latest_net_G_A.pth").read_bytes()
    converted("a.pt", "slim.pt", "--slim")
    assert convert.main(["slim.pt", "out", "--to", "cyclegan", "--overwrite"]) == 2
    want = "error: out: want a folder without other networks, got out with latest_net_D_A.pth, latest_net_D_B.pth\n"
    assert capsys.readouterr().err == want and Path("out/latest_net_G_A.pth").read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [("b.pt",), ("b.pth", "--to", "esrgan"), ("b.safetensors",), ("b", "--to", "cyclegan")]
)
def test_folders_of_every_output_are_made(tmp_path, capsys, arguments):
    if "b.safetensors" in arguments:
        pytest.importorskip("safetensors")
    rrdb = models.srgan.Config(variant="rrdb", base="none", width=4, blocks=1, d_width=2)
    save_ours("a.pt", CYCLEGAN if "cyclegan" in arguments else rrdb)
    name, *to = arguments
    converted("a.pt", f"no/such/{name}", *to)
    assert (tmp_path / "no/such" / name).exists()
    assert convert.main(["a.pt", f"a.pt/{name}", *to]) == 2
    assert capsys.readouterr().err == (
        "error: a.pt/b cannot be written: Not a directory\n"
        if name == "b"
        else "error: a.pt cannot be written: want a directory, got a file\n"
    )
    assert convert.main(["a.pt", f"other/{name}", "--to", "rosinality"]) == 2 and not (tmp_path / "other").exists()


def test_what_a_safetensors_leaves_out_is_said(capsys):
    pytest.importorskip("safetensors")
    rosinality_file("a.pt", latent_avg=torch.zeros(16))
    converted("a.pt", "b.pt")
    for arguments, left in (
        (("b.safetensors",), "G_ema alone, without G, D"),
        (("c.safetensors", "--to", "rosinality"), "g_ema alone, without g, latent_avg, d"),
        (("d.safetensors", "--slim"), None),
    ):
        capsys.readouterr()
        converted("b.pt", *arguments)
        notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note ")]
        assert notes == ([] if left is None else [f"note       a .safetensors has {left}"])


def test_sizes_are_flags(capsys):
    save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4, 5), z_dim=3))
    converted("a.pt", "b.pt")
    assert "sizes      --resolution 8 --z-dim 3 --hidden 4 5\n" in capsys.readouterr().out


def test_a_slim_checkpoint_of_ours_draws_the_same():
    G = save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3))
    converted("a.pt", "b.pt", "--slim")
    assert checkpoint.load("b.pt").keys() == {"model", "class_names", "bits", "converted_from", "G_ema"}
    z = torch.randn(2, 3)
    assert torch.equal(gan_engine.load("b.pt", "cpu")(z), G(z))


def test_the_best_checkpoint_of_a_run(capsys):
    config = models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3)
    save_ours("run/checkpoints/kimg-000002.000.pt", config)
    assert convert.main(["run", "a.pt", "--best"]) == 2
    want = "error: run: want the directory of a run with best.pt, which train --eval-kimg keeps\n"
    assert capsys.readouterr().err == want and not Path("a.pt").exists()
    best = save_ours("run/best.pt", config)
    converted("run", "a.pt", "--best")
    converted("run", "b.pt")
    z = torch.randn(2, 3)
    assert torch.equal(built("a.pt")[0](z), best(z)) and not torch.equal(built("b.pt")[0](z), best(z))
    converted("a.pt", "a.safetensors") if importlib.util.find_spec("safetensors") else None
    for other in Path().glob("a.*"):
        assert convert.main([str(other), "c.pt", "--best"]) == 2
        assert f"error: {other}: want the directory of a run with best.pt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tree", "want"),
    [
        ({"a": torch.ones(1)}, "or a checkpoint of gan_engine; got a dict with a"),
        ([1], "got list"),
        ({}, "got an empty dict"),
        ({f"model.{i}.weight": torch.ones(1) for i in (0, 2)}, "networks of a PatchGAN alone are not converted: they"),
    ],
)
def test_an_unknown_format_names_what_was_looked_for_and_found(capsys, tree, want):
    torch.save(tree, "a.pth")
    assert convert.main(["a.pth", "b.pt"]) == 2
    assert want in capsys.readouterr().err


def test_known_networks_that_are_not_converted_are_named(persistence, capsys):
    inner = networks.container("R3GAN.Networks.Generator", {})
    networks.Path("a.pkl").write_bytes(networks.pickle.dumps({"G_ema": networks.container("G", {"synthesis": inner})}))
    assert convert.main(["a.pkl", "b.pt"]) == 2
    assert "networks of R3GAN are not converted: " in capsys.readouterr().err


def test_files_that_are_there_are_kept(capsys):
    save_ours("a.pt", models.vanilla.Config(resolution=8, hidden=(4,), z_dim=3))
    assert convert.main(["a.pt", "a.pt"]) == 2
    assert "a.pt exists; --overwrite replaces it" in capsys.readouterr().err
    assert convert.main(["a.pt", "b.zip"]) == 2
    assert "out: want a name that ends in .pt, .pth or .safetensors, got b.zip" in capsys.readouterr().err
    assert convert.main(["nowhere", "b.pt"]) == 2
    assert "nowhere: cannot be read: No such file" in capsys.readouterr().err
