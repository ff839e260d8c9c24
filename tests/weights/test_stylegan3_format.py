"""StyleGAN3's pickles give the results of the networks of its paper, and what our networks cannot hold is named."""

import pickle
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

import gan_engine
from gan_engine import convert, models
from gan_engine.system import checkpoint
from tests.weights import networks
from tests.weights.conversion import begun_and_trained, built, close, converted
from tests.weights.networks import persistent
from tests.weights.pickles import BOMBS

plain = pytest.importorskip("tests.weights.stylegan3_network", reason="SciPy designs the filters", exc_type=ImportError)


def made(*, D=True, **options):
    torch.manual_seed(0)
    G = plain.Generator(**options)
    D = networks.stylegan.Discriminator(resolution=32, base=128, most=12, conv_clamp=256) if D else None
    networks.unlike(*filter(None, (G, D)))
    return G, D


def save(path, G, D=None):
    tree = {"G": persistent(G), "D": D, "G_ema": persistent(G), "augment_pipe": None}
    if isinstance(D, torch.nn.Module):
        tree["D"] = networks.ada_discriminator(D, {})
    Path(path).write_bytes(pickle.dumps(tree, protocol=4))


@pytest.mark.parametrize("options", [{}, {"margin": 4, "layers": 5, "critical": 1}], ids=["paper", "others"])
@pytest.mark.parametrize("rotates", [False, True], ids=["t", "r"])
def test_stylegan3(persistence, capsys, rotates, options):
    G, D = made(rotates=rotates, **options)
    save("a.pkl", G, D)
    converted("a.pkl", "a.pt")
    out = capsys.readouterr().out
    assert "found      stylegan3: G, D, G_ema of stylegan3" in out and ("--variant r" in out) == rotates
    for flag in ("--resolution 32", "--z-dim 16", "--channel-base 128", "--channel-max 12"):
        assert flag in out, flag
    ours, our_D = built("a.pt")
    assert ("--margin 4 " in out) == ("margin" in options) and ours.config.num_critical == options.get("critical", 2)
    z, img = torch.randn(3, 16), torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        close(ours(z), G(z))
        close(ours(z, truncation=0.5), G(z, psi=0.5))
        close(our_D(img)[:, None], D(img))
    assert gan_engine.load("a.pt", "cpu").sample(2).shape == (2, 3, 32, 32)


def test_stylegan3_with_classes(persistence):
    G, _ = made(D=False, c_dim=5)
    save("a.pkl", G)
    converted("a.pkl", "a.pt", "--slim")
    z, c = torch.randn(5, 16), torch.eye(5)
    with torch.no_grad():
        close(built("a.pt")[0](z, c), G(z, c))
        close(built("a.pt")[0](z, c, truncation=0.5), G(z, c, psi=0.5))


@pytest.mark.parametrize(("fp16_res", "half"), [(1, 1), (0, 3), (4, 2)])
def test_limits_of_lower_resolutions_are_told(persistence, capsys, fp16_res, half):
    """The rates are 16 and 32. Layers have a limit there without half precision too, here with it alone."""
    G, _ = made(D=False, fp16_res=fp16_res)
    save("a.pkl", G)
    converted("a.pkl", "a.pt")
    assert models.from_dict(checkpoint.load("a.pt")["model"]).half_resolutions == half
    told = (
        "note       there every layer limits its values to 256, here those of the 1 highest" in capsys.readouterr().out
    )
    assert told == (half == 1)


def test_no_limits(persistence, capsys):
    G, _ = made(D=False)
    for name in G.synthesis.layer_names:
        getattr(G.synthesis, name).conv_clamp = None
    save("a.pkl", G)
    converted("a.pkl", "a.pt")
    assert "note" not in capsys.readouterr().out and built("a.pt")[0].config.clamp is None


def layer(G, index):
    return getattr(G.synthesis, G.synthesis.layer_names[index])


def rename(G, old, new):
    G.synthesis._modules = OrderedDict((new if key == old else key, x) for key, x in G.synthesis._modules.items())


CHANGES = [
    (lambda G: G.synthesis.input.transform.fill_(1), "want no transform of its Fourier features, got .*1.0"),
    (lambda G: setattr(G.synthesis, "output_scale", 0.5), "want colours times 0.25, got 0.5"),
    (lambda G: delattr(G.synthesis, "output_scale"), "want the attribute output_scale of synthesis, got none"),
    (lambda G: delattr(layer(G, 0), "conv_clamp"), r"want the attribute conv_clamp of synthesis.L0_\d+_\d+, got none"),
    (lambda G: setattr(layer(G, 2), "down_filter", None), r"want synthesis.L2_\d+_\d+.down_filter, got no tensor"),
    (
        lambda G: layer(G, 1).up_filter.copy_(torch.ones(12) / 12),
        r"want the filter of our layer, whose bands are the paper's, in synthesis.L1_.*up_filter, got \[0.0833, 0.0833",
    ),
    (
        lambda G: setattr(G.synthesis, "num_critical", 3),
        "want layers of the bands of the paper, as synthesis.L2",
    ),
    (
        lambda G: rename(G, G.synthesis.layer_names[1], "L1_52_12"),
        "want layers of the bands of the paper, as synthesis.L1_36_12, got synthesis.L1_52_12",
    ),
    (lambda G: setattr(G.synthesis, "num_critical", 7), "our stylegan3 cannot hold it: num_layers: want more than"),
    (
        lambda G: setattr(layer(G, 0), "weight", torch.nn.Parameter(torch.ones(12, 12, 5, 5))),
        "want convolutions 3x3 .T. or 1x1 .R., got 5x5",
    ),
    (lambda G: delattr(layer(G, 3), "bias"), r"want synthesis.L3_\d+_\d+.bias, got no tensor of that name"),
    (
        lambda G: setattr(layer(G, 3), "bias", torch.nn.Parameter(torch.ones(3))),
        r"want synthesis.L3_.*bias of \[\d+\], got \[3\]",
    ),
    (
        lambda G: layer(G, 3).register_buffer("more", torch.ones(1)),
        r"our network has no place for synthesis.L3_\d+_\d+.more",
    ),
    (lambda G: layer(G, 3).bias.data.fill_(torch.nan), "want finite numbers in synthesis.L3_.*bias, got NaN"),
    (lambda G: setattr(G.mapping.fc1, "activation", "relu"), "want the activation lrelu, got relu in mapping.fc1"),
    (lambda G: delattr(G.mapping, "fc0"), "want the tensors of a StyleGAN3 generator, got none fit for 'mapping.fc0"),
    (lambda G: G.synthesis._modules.popitem(), "want"),
]


@pytest.mark.parametrize(("change", "want"), CHANGES)
def test_what_our_stylegan3_cannot_hold_is_said(persistence, tmp_path, capsys, change, want):
    G, _ = made(D=False)
    change(G)
    save("a.pkl", G)
    assert convert.main(["a.pkl", "a.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(want, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_a_D_with_skips_is_said_and_left_by_slim(persistence, capsys):
    G, D = made()
    skip = networks.stylegan.Conv2dLayer(3, 12, 1, activation="lrelu")
    for block in D.blocks:
        block.skip = None
    tree = networks.ada_discriminator(D, {})
    tree.meta["state"]["_modules"]["b4"].meta["state"]["_modules"]["fromrgb"] = persistent(skip)
    save("a.pkl", G, tree)
    assert convert.main(["a.pkl", "a.pt"]) == 2
    assert "stylegan3 D: want the architecture resnet, got skip; --slim" in capsys.readouterr().err
    converted("a.pkl", "a.pt", "--slim")


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_by_its_name(persistence, capsys, bomb):
    value, name = BOMBS[bomb]
    G, _ = made(D=False)
    layer(G, 0).padding = value
    save("a.pkl", G)
    assert convert.main(["a.pkl", "a.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"want numbers and text only, got (\w+\.)?{name}; nothing was read", error), error
    assert not Path("a.pt").exists()


def test_training_goes_on_with_a_published_stylegan3(persistence):
    G, D = made(margin=4, layers=3, critical=1)
    save("a.pkl", G, D)
    converted("a.pkl", "a.pt")
    flags = ["--res", "32", "--z-dim", "16", "--w-dim", "16", "--channel-base", "128", "--channel-max", "12"]
    begun_and_trained("stylegan3_t_64", [*flags, "--num-layers", "3", "--num-critical", "1", "--margin", "4"])
