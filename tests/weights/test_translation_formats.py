"""CycleGAN and pix2pix as the program of their authors saves them give its results, and what does not fit is named."""

import re
from pathlib import Path

import pytest
import torch

from gan_engine import convert, models
from gan_engine.system import checkpoint
from gan_engine.weights import patchgan
from tests.weights import networks
from tests.weights.conversion import begun_and_trained, built, close, converted
from tests.weights.pickles import BOMBS
from tests.weights.translation_networks import NLayerDiscriminator, ResnetGenerator, UnetGenerator, one_by_one


def made(network_of, *arguments, seed=0, **options):
    torch.manual_seed(seed)
    network = network_of(*arguments, **options)
    networks.unlike(network)
    return network


def save(folder, **of):
    Path(folder).mkdir(exist_ok=True)
    for name, network in of.items():
        torch.save(network.state_dict(), f"{folder}/latest_net_{name}.pth")


def images(num=2, channels=3, side=32):
    return torch.rand(num, channels, side, side, generator=torch.Generator().manual_seed(3)) * 2 - 1


# CycleGAN


@pytest.mark.parametrize("blocks", [6, 9])
@pytest.mark.parametrize("options", [{}, {"kind": "old"}, {"kind": "batch"}, {"dropout": True}], ids=str)
def test_a_generator_of_cyclegan(capsys, blocks, options):
    theirs = made(ResnetGenerator, blocks=blocks, **options)
    torch.save(theirs.state_dict(), "latest_net_G.pth")
    converted("latest_net_G.pth", "a.pt")
    out = capsys.readouterr().out
    assert "found      cyclegan: G_ema of cyclegan" in out and f"--width 4 --blocks {blocks} --published\n" in out
    assert "note       the file has one generator: it is A2B here, and there is no B2A" in out
    assert ("there its norms are batch norms" in out) == (options.get("kind") == "batch")
    ours, x = built("a.pt")[0], images(side=36)
    with torch.no_grad():
        close(ours(x), one_by_one(theirs, x))
    with pytest.raises(ValueError, match="want A2B, the only one of a generator that goes one way, got B2A"):
        ours(x, "B2A")


def cyclegan_folder(kind="instance"):
    of = {name: made(ResnetGenerator, kind=kind, seed=i) for i, name in enumerate(("G_A", "G_B"))}
    of |= {name: made(NLayerDiscriminator, kind=kind, seed=i) for i, name in enumerate(("D_A", "D_B"), 2)}
    save("horses", **of)
    return of


@pytest.mark.parametrize("kind", ["instance", "batch", "old"])
def test_a_folder_of_cyclegan(capsys, kind):
    """G_A makes B of A, and D_A judges what it makes."""
    of = cyclegan_folder(kind)
    torch.save({"model.1.weight": torch.ones(1)}, "horses/5_net_G_A.pth")  # an older epoch
    converted("horses", "a.pt")
    out = capsys.readouterr().out
    assert "found      cyclegan: D, G_ema" in out and "--d-width 4" in out and "one generator" not in out
    assert "read latest_net_D_A.pth, latest_net_D_B.pth, latest_net_G_A.pth, latest_net_G_B.pth" in out
    (G, D), x = built("a.pt"), images()
    with torch.no_grad():
        for name, ours in {"G_A": G(x, "A2B"), "G_B": G(x, "B2A"), "D_A": D(x, "B"), "D_B": D(x, "A")}.items():
            close(ours, one_by_one(of[name], x).reshape(ours.shape))


def test_the_last_epoch_of_a_folder_is_read_if_none_is_the_latest(capsys):
    save("a", G=made(ResnetGenerator))
    for epoch in (5, 10):
        torch.save(made(ResnetGenerator, seed=epoch).state_dict(), f"a/{epoch}_net_G.pth")
    Path("a/latest_net_G.pth").unlink()
    converted("a", "a.pt")
    assert "read 10_net_G.pth" in capsys.readouterr().out
    with torch.no_grad():
        close(built("a.pt")[0](images()), one_by_one(made(ResnetGenerator, seed=10), images()))


def trained(path):
    """The checkpoint `path` as after a training, in which the norms got scales and biases."""
    state, generator = checkpoint.load(path), torch.Generator().manual_seed(4)
    for name, x in (item for of in ("G_ema", "D") for item in state.get(of, {}).items()):
        if "norm" in name:
            x += 0.3 * torch.randn(x.shape, generator=generator)
    checkpoint.save(Path(path), state)


@pytest.mark.parametrize("kind", ["instance", "batch"])
def test_a_trained_cyclegan_leaves_in_the_layout_with_batch_norms(kind):
    of = cyclegan_folder(kind)
    converted("horses", "a.pt")
    trained("a.pt")
    converted("a.pt", "b", "--to", "cyclegan")
    assert sorted(path.name for path in Path("b").iterdir()) == [f"latest_net_{name}.pth" for name in sorted(of)]
    (G, D), x = built("a.pt"), images()
    with torch.no_grad():
        for name, ours in {"G_A": G(x, "A2B"), "G_B": G(x, "B2A"), "D_A": D(x, "B"), "D_B": D(x, "A")}.items():
            there = made(type(of[name]), kind="batch")
            there.load_state_dict(torch.load(f"b/latest_net_{name}.pth", weights_only=True))
            close(ours, one_by_one(there, x).reshape(ours.shape))
    converted("b", "c.pt")
    before, after = checkpoint.load("a.pt"), checkpoint.load("c.pt")
    assert all(torch.equal(x, after[of][name]) for of in ("G_ema", "D") for name, x in before[of].items())


def test_one_generator_leaves_as_one_file(capsys):
    torch.save(made(ResnetGenerator, blocks=9).state_dict(), "a.pth")
    converted("a.pth", "a.pt")
    converted("a.pt", "b", "--to", "cyclegan")
    assert (
        "note       its norms are batch norms there: its program opens it with --norm batch" in capsys.readouterr().out
    )
    assert [path.name for path in Path("b").iterdir()] == ["latest_net_G.pth"]
    there = made(ResnetGenerator, blocks=9, kind="batch")
    there.load_state_dict(torch.load("b/latest_net_G.pth", weights_only=True))
    with torch.no_grad():
        close(built("a.pt")[0](images()), one_by_one(there, images()))


@pytest.mark.parametrize(
    ("fields", "out", "want"),
    [
        (
            {},
            "b",
            "to: cyclegan: want a cyclegan that was trained with --published, got one whose layers double by nearest",
        ),
        ({"published": True}, "b", "to: cyclegan: want a cyclegan that was trained with --blocks 6 or 9, got 1"),
        (
            {"published": True},
            "b.pth",
            "out: want a name without an ending, of a folder for the files of cyclegan, got b",
        ),
    ],
)
def test_a_cyclegan_that_the_program_has_no_place_for(capsys, fields, out, want):
    config = models.cyclegan.Config(width=4, blocks=1, d_width=4, **fields)
    state = {"model": models.to_dict(config), "class_names": [], "G_ema": models.build(config)[0].state_dict()}
    checkpoint.save(Path("a.pt"), state)
    assert convert.main(["a.pt", out, "--to", "cyclegan"]) == 2
    assert want in capsys.readouterr().err and not Path(out).exists()


# pix2pix


@pytest.mark.parametrize("downs", [5, 7, 8])
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_pix2pix(capsys, downs, kind):
    G, D = made(UnetGenerator, downs=downs, kind=kind), made(NLayerDiscriminator, 6, kind=kind, seed=1)
    save("maps", G=G, D=D)
    converted("maps", "a.pt")
    out = capsys.readouterr().out
    assert "found      pix2pix: D, G_ema of pix2pix" in out
    assert f"--resolution {1 << downs} " in out.replace("sizes      ", "--resolution 256 ") and "--published" in out
    assert ("there its norms are batch norms" in out) == (kind == "batch")
    (ours, our_D), x, y = built("a.pt"), images(side=1 << downs), images(side=1 << downs).flip(0)
    with torch.no_grad():
        close(ours(x), one_by_one(G, x))
        logits = one_by_one(D, torch.cat([x, y], 1))
        close(our_D(y, x).reshape(logits.shape), logits)
    dropped = [k for k, layer in enumerate(ours.up) if layer.dropout.p]
    assert dropped == list(range(1, downs - 4))


def test_one_file_of_pix2pix_has_no_D(capsys):
    theirs = made(UnetGenerator)
    torch.save({f"module.{name}": x for name, x in theirs.state_dict().items()}, "latest_net_G.pth")
    converted("latest_net_G.pth", "a.pt")
    assert "D" not in checkpoint.load("a.pt")
    with torch.no_grad():
        close(built("a.pt")[0](images()), one_by_one(theirs, images()))


# What does not fit


def changed(network, change):
    weights = dict(network.state_dict())
    change(weights)
    return weights


@pytest.mark.parametrize(
    ("weights", "want"),
    [
        (lambda: ResnetGenerator(3, 1).state_dict(), "want images of as many channels as its source, got 1 and 3"),
        (lambda: ResnetGenerator(2, 2).state_dict(), "our cyclegan cannot hold it: channels: want 1 or 3, got 2"),
        (
            lambda: ResnetGenerator(kind="none").state_dict(),
            "want an instance norm or a batch norm in model.2, got",
        ),
        (
            lambda: changed(ResnetGenerator(), lambda w: w.pop("model.23.bias")),
            "cyclegan: want G.model.23.bias, got no tensor of that name",
        ),
        (
            lambda: changed(ResnetGenerator(), lambda w: w.update({"model.4.weight": torch.ones(8, 4, 4, 4)})),
            r"want .*model.4.weight of \[8, 4, 3, 3\], got \[8, 4, 4, 4\]",
        ),
        (
            lambda: changed(ResnetGenerator(), lambda w: w["model.7.weight"].fill_(torch.nan)),
            "want finite numbers in G.model.7.weight, got NaN",
        ),
        (
            lambda: changed(ResnetGenerator(), lambda w: w.update(more=torch.ones(1))),
            "our network has no place for G.more",
        ),
        (lambda: UnetGenerator(1, 2).state_dict(), "G: want images of as many channels as its source, got 2 and 1"),
        (lambda: UnetGenerator(kind="none").state_dict(), "want an instance norm or a batch norm in .*, got none"),
        (
            lambda: changed(UnetGenerator(), lambda w: w.pop("model.model.1.model.5.weight")),
            "want model.model.1.model.5.weight, got no tensor of that name",
        ),
        (
            lambda: changed(UnetGenerator(), lambda w: w.update({"model.model.3.weight": torch.ones(8, 3, 2, 2)})),
            r"want model.model.3.weight of \[8, 3, 4, 4\], got \[8, 3, 2, 2\]",
        ),
        (lambda: NLayerDiscriminator().state_dict(), "a PatchGAN alone are not converted: .* want the folder"),
    ],
)
def test_a_file_that_ours_cannot_hold(tmp_path, capsys, weights, want):
    torch.save(weights(), "a.pth")
    assert convert.main(["a.pth", "a.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(want, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize(
    ("networks_of", "want"),
    [
        ({"G_A": ResnetGenerator, "D_A": NLayerDiscriminator}, "want G_A, G_B, D_A and D_B, got G_A, D_A; --slim"),
        ({"G": ResnetGenerator, "D": lambda: NLayerDiscriminator(6)}, "want G_A, G_B, D_A and D_B, got G, D; --slim"),
        (
            {"G": UnetGenerator, "D": lambda: NLayerDiscriminator(6, layers=2)},
            "pix2pix D: want a PatchGAN of 3 halvings (--netD basic), got other layers; --slim",
        ),
        (
            {"G": UnetGenerator, "D": NLayerDiscriminator},
            "pix2pix D: want model.0.weight of [4, 6, 4, 4], got [4, 3, 4, 4]",
        ),
    ],
)
def test_a_D_that_ours_cannot_hold_is_said_and_left_by_slim(capsys, networks_of, want):
    save("a", **{name: make() for name, make in networks_of.items()})
    assert convert.main(["a", "a.pt"]) == 2
    assert want in capsys.readouterr().err
    converted("a", "a.pt", "--slim")
    assert "D" not in checkpoint.load("a.pt")


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("in_folder", [False, True])
def test_a_bomb_is_refused_by_its_name(capsys, bomb, in_folder):
    value, name = BOMBS[bomb]
    save("a", G=made(UnetGenerator), D=NLayerDiscriminator(6))
    path = Path("a/latest_net_D.pth" if in_folder else "a/latest_net_G.pth")
    torch.save(dict(torch.load(path), more=value), path)
    assert convert.main(["a" if in_folder else str(path), "a.pt"]) == 2
    error = capsys.readouterr().err
    assert re.search(rf"want numbers and text only, got (\w+\.)?{name}; nothing was read", error), error
    assert not Path("a.pt").exists()


# Going on


def test_training_goes_on_with_a_published_cyclegan(tmp_path):
    cyclegan_folder()
    converted("horses", "a.pt")
    flags = ["--width", "4", "--blocks", "6", "--d-width", "4", "--published", "--res", "32"]
    begun_and_trained("cyclegan", flags)


def test_training_goes_on_with_a_published_pix2pix(tmp_path):
    save("maps", G=made(UnetGenerator), D=made(NLayerDiscriminator, 6))
    converted("maps", "a.pt")
    begun_and_trained("pix2pix", ["--width", "4", "--max-width", "32", "--d-width", "4", "--published", "--res", "32"])


@pytest.mark.parametrize(
    ("epochs", "newest"),
    [(("5", "10"), "10"), (("iter_5000", "iter_10000"), "iter_10000"), (("latest", "10", "iter_20000"), "latest")],
)
def test_the_newest_epoch_of_a_folder_is_read(tmp_path, epochs, newest):
    for epoch in epochs:
        (tmp_path / f"{epoch}_net_G.pth").touch()
    assert patchgan.files(tmp_path) == {"G": tmp_path / f"{newest}_net_G.pth"}
