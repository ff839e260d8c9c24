"""A run begins with the weights of another, as far as they fit, and frozen blocks of D keep theirs in every phase."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from gan_engine import backends, models, train
from gan_engine.losses import penalties
from gan_engine.system import checkpoint
from gan_engine.training import transfer
from tests.training.runs import (
    DCGAN,
    FAMILIES,
    LAZY,
    MLP,
    NO_NORM,
    PATHS,
    SNGAN,
    STYLEGAN2,
    assert_equal,
    weights,
)

TINY = [
    *("dcgan", "--data", "toy", "--res", "16", "--width", "4", "--z-dim", "8", "--batch-size", "16", "--channels", "1"),
    *("--kimg", "0.032", "--precision", "fp32", "--device", "cpu", "--no-tensorboard", "--no-tune-malloc"),
]
UPSAMPLE = dataclasses.replace(
    DCGAN, preset="upsample_gan", model=models.upsample_gan.Config(resolution=16, z_dim=8, width=4, d_width=4)
)
ALL = {"dcgan": DCGAN, "vanilla": MLP, "stylegan2": STYLEGAN2, "upsample_gan": UPSAMPLE} | FAMILIES

IN_A_ROW = [name for name in ALL if name != "lapgan"]
ENDS = (
    "logit",
    "embed",
    "classifier",
    "mapping",
    "conv.",
    "linear",
    "basis",
    "dense",
    "bias",
    "layers.2",
    "patches.logit",
)


def saved(trainer, path):
    checkpoint.save(path, trainer.state_dict())
    return path


def begun(trainer, path):
    return transfer.begin(trainer.G, trainer.D, trainer.G_ema, *transfer.read(path, trainer.config.model))


# Weights


@pytest.mark.parametrize("config", ALL.values(), ids=ALL)
def test_all_weights_of_the_same_sizes_are_taken(make, tmp_path, config):
    old, new = make(config), make(config, seed=1)
    old.step()
    taken = begun(new, saved(old, tmp_path / "a.pt"))
    assert_equal(weights(old), weights(new))
    assert all(each.taken == each.total and not each.not_taken for each in taken.values())
    assert new.nimg == new.step_count == 0 and not any(optimizer.state for optimizer in new.optimizers.values())
    new.step()


def resized(config, **model):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **model))


@pytest.mark.parametrize(
    ("config", "changes", "not_taken"),
    [
        (DCGAN, {"channels": 3}, {"G.blocks.2.layer.weight", "G.blocks.2.bias", "D.blocks.0.layer.weight"}),
        (STYLEGAN2, {"channels": 3}, {"G.synthesis.blocks.2.to_rgb.weight", "D.blocks.0.from_rgb.weight"}),
        (SNGAN, {"channels": 3}, {"G.to_rgb.weight", "D.blocks.0.conv1.parametrizations.weight.original"}),
        (DCGAN, {"z_dim": 9}, {"G.blocks.0.layer.weight"}),
    ],
    ids=["dcgan", "stylegan2", "sngan", "z"],
)
def test_what_does_not_fit_is_listed_and_stays_fresh(make, tmp_path, config, changes, not_taken):
    old, new = make(config), make(resized(config, **changes))
    before = weights(new)
    path = saved(old, tmp_path / "a.pt")
    taken = begun(new, path)
    after, there = weights(new), weights(old)
    listed = {f"{net}.{line.partition(' ')[0]}" for net, of in taken.items() for line in of.not_taken}
    assert not_taken <= listed
    for name, value in after.items():
        assert torch.equal(value, before[name] if name in listed else there[name]), name
    assert str(taken["G"]).startswith(f"{taken['G'].taken} of {taken['G'].total} tensors, but not ")
    new.step()


def test_a_weight_with_a_spectral_norm_is_taken_whole_or_not_at_all(make, tmp_path):
    """Its singular vectors are of its old weight; u would fit where only the number of channels differs."""
    old, new = make(SNGAN), make(resized(SNGAN, channels=3))
    taken = begun(new, saved(old, tmp_path / "a.pt"))
    prefix = "blocks.0.conv1.parametrizations.weight."
    left = [line for line in taken["D"].not_taken if line.startswith(prefix)]
    assert [line.partition(" ")[0] for line in left] == [prefix + name for name in ("original", "0._u", "0._v")]
    assert left[1].endswith("(its layer fits in part)")


def test_larger_images_take_the_layers_that_both_have(make, tmp_path):
    old, new = make(STYLEGAN2), make(resized(STYLEGAN2, resolution=32, channel_base=256))
    taken = begun(new, saved(old, tmp_path / "a.pt"))
    assert torch.equal(new.G.mapping.layers[0].weight, old.G.mapping.layers[0].weight)
    assert torch.equal(new.G.synthesis.const, old.G.synthesis.const)
    assert any(line.startswith("synthesis.blocks.3.conv0.weight (here [") for line in taken["G"].not_taken)
    new.step()


def test_the_start_line_names_some_tensors_and_counts_the_others(make, tmp_path):
    old, new = make(STYLEGAN2), make(resized(STYLEGAN2, resolution=32, channel_base=256))
    taken = begun(new, saved(old, tmp_path / "a.pt"))["G"]
    first, second, *others = taken.not_taken
    assert taken.line().endswith(f"but not {first}, {second} and {len(others)} more; run.json lists all")
    assert all(each in str(taken) for each in taken.not_taken)


def test_classes_that_the_old_run_did_not_have_are_fresh(make, tmp_path):
    old = make(DCGAN)
    new = make(resized(DCGAN, c_dim=5), conditional=True)
    taken = begun(new, saved(old, tmp_path / "a.pt"))
    assert any(line.startswith("embed.") and "not there" in line for line in taken["D"].not_taken)
    back = begun(make(DCGAN), saved(new, tmp_path / "b.pt"))
    assert any(line.startswith("embed.") and "not here" in line for line in back["D"].not_taken)


def test_another_family_and_nothing_that_fits_are_refused(make, tmp_path):
    path = saved(make(MLP), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"init_from: want networks of dcgan, got .*a\.pt, which has those of vanilla"):
        begun(make(DCGAN), path)
    with pytest.raises(ValueError, match=r"init_from: want tensors of the names and shapes of G, got none in .*a\.pt"):
        begun(make(resized(MLP, hidden=(5, 6), resolution=8, z_dim=3), data="toy"), path)
    checkpoint.save(tmp_path / "b.pt", {"G": {}})
    with pytest.raises(checkpoint.CheckpointError, match="want a checkpoint of a training with model and G_ema"):
        begun(make(DCGAN), tmp_path / "b.pt")
    checkpoint.save(tmp_path / "c.pt", checkpoint.load(path) | {"D": {"layers": [1, 2]}})
    with pytest.raises(checkpoint.CheckpointError, match="want Tensor, got list"):
        begun(make(MLP), tmp_path / "c.pt")


def test_a_file_with_G_ema_alone_begins_G_too(make, tmp_path):
    old, new = make(DCGAN), make(DCGAN, seed=1)
    old.step()
    state = checkpoint.load(saved(old, tmp_path / "a.pt"))
    checkpoint.save(tmp_path / "b.pt", {name: state[name] for name in ("model", "G_ema")})
    before = weights(new)
    taken = begun(new, tmp_path / "b.pt")
    for name, x in old.G_ema.state_dict().items():
        assert torch.equal(new.G.state_dict()[name], x) and torch.equal(new.G_ema.state_dict()[name], x)
    assert all(torch.equal(before[name], x) for name, x in weights(new).items() if name.startswith("D."))
    assert str(taken["G"]) == f"{taken['G'].total} of {taken['G'].total} tensors, those of G_ema"
    assert taken["D"].line() == f"none of {taken['D'].total} tensors: the file has no D"


# Frozen blocks


@pytest.mark.parametrize("config", [config for name, config in ALL.items() if name != "lapgan"], ids=IN_A_ROW)
def test_blocks_are_in_order_and_cover_all_but_the_end(make, config):
    """Blocks share no parameter, the first reads the image, and what is left is what makes logits or reads classes."""
    trainer = make(config, freeze_d=2)
    blocks = trainer.D.blocks_from_image()
    parameters = transfer.frozen(trainer.D, len(blocks), config.preset)
    assert len({id(p) for p in parameters}) == len(parameters)
    left = [name for name, p in trainer.D.named_parameters() if all(p is not q for q in parameters)]
    assert left and all(name.startswith((*ENDS, "A.logit", "B.logit")) for name in left), left
    before = weights(trainer)
    trainer.step()
    after, held = weights(trainer), {id(p) for p in trainer.networks.frozen}
    for name, p in trainer.D.named_parameters():
        if id(p) in held:
            assert torch.equal(before[f"D.{name}"], after[f"D.{name}"]) and p not in trainer.optimizers["D"].state, name
        elif p.grad.any():
            assert not torch.equal(before[f"D.{name}"], after[f"D.{name}"]), name
    assert held and any(not torch.equal(before[f"G.{name}"], p) for name, p in trainer.G.named_parameters())


@pytest.mark.parametrize(
    "config",
    [LAZY, PATHS, dataclasses.replace(NO_NORM, weight_clip=0.001), dataclasses.replace(NO_NORM, augment="ada")],
    ids=["penalties", "paths", "clipped", "augmented"],
)
def test_frozen_blocks_stay_in_every_phase_and_after_a_resumption(make, tmp_path, config):
    config = dataclasses.replace(config, freeze_d=1)
    whole = make(config)
    before = [p.clone() for p in whole.networks.frozen]
    for _ in range(4):
        whole.step()
    first = make(config)
    for _ in range(2):
        first.step()
    path = saved(first, tmp_path / "a.pt")
    second = make(config, seed=config.seed)
    second.load_state_dict(checkpoint.load(path))
    for _ in range(2):
        second.step()
    assert_equal(weights(whole), weights(second))
    assert before and all(torch.equal(a, b) for a, b in zip(before, second.networks.frozen, strict=True))


@pytest.mark.parametrize("config", [DCGAN, SNGAN], ids=["dcgan", "spectral"])
def test_frozen_weights_that_were_not_taken_are_named(make, tmp_path, config):
    path = saved(make(config), tmp_path / "a.pt")
    same = make(config, freeze_d=2)
    taken = begun(same, path)["D"]
    assert same.networks.frozen and transfer.frozen_at_random(same.D, same.networks.frozen, taken) == []
    colour = make(dataclasses.replace(config, model=dataclasses.replace(config.model, channels=3)), freeze_d=2)
    names = transfer.frozen_at_random(colour.D, colour.networks.frozen, begun(colour, path)["D"])
    held = {id(p) for p in colour.networks.frozen}
    blocks = [name for name, p in colour.D.named_parameters() if id(p) in held]
    assert names and set(names) < set(blocks) and all(name.startswith(blocks[0].rpartition(".")[0]) for name in names)
    state = checkpoint.load(path)
    checkpoint.save(tmp_path / "b.pt", {name: state[name] for name in ("model", "G_ema")})
    assert transfer.frozen_at_random(same.D, same.networks.frozen, begun(same, tmp_path / "b.pt")["D"]) == blocks


@pytest.mark.parametrize("config", [NO_NORM, SNGAN, FAMILIES["r3gan"], FAMILIES["cgan"]], ids=lambda c: c.preset)
@pytest.mark.parametrize("num", [1, 2])
def test_level_2_gives_the_gradients_of_autograd_around_frozen_blocks(make, config, num):
    trainer = make(config, freeze_d=num)
    trainer.networks.learn_only(trainer.D)
    D = trainer.D.eval()  # no turn of a spectral norm between the two
    img, c = torch.randn(4, 1, 16, 16), torch.eye(5)[:4] if config.conditional else None
    found = {}
    with backends.use("reference"):
        for level in (2, "autograd"):
            D.zero_grad(set_to_none=True)
            penalties.backward_with_penalty(D, img, torch.nn.functional.softplus, gamma=3.0, c=c, level=level)
            found[level] = {name: p.grad for name, p in D.named_parameters()}
    held = {id(p) for p in trainer.networks.frozen}
    for name, p in D.named_parameters():
        ours, want = found[2][name], found["autograd"][name]
        if id(p) in held:
            assert ours is None and want is None
        elif want is not None:
            torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-5)


def test_blocks_that_are_not_there_are_refused(make):
    with pytest.raises(ValueError, match="freeze_d: want at most the 2 blocks of D of dcgan, got 3"):
        make(DCGAN, freeze_d=3)
    with pytest.raises(
        ValueError, match="freeze_d: want 0 for lapgan, whose D has no blocks one after the other, got 1"
    ):
        make(FAMILIES["lapgan"], freeze_d=1)
    with pytest.raises(ValueError, match="freeze_d: want at least 0, got -1"):
        dataclasses.replace(DCGAN, freeze_d=-1)


# The command


def test_the_command_begins_with_old_weights_and_says_what_did_not_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, "--out", "old"]) == 0
    assert train.main([*TINY, "--out", "new", "--init-from", "old", "--freeze-d", "1", "--channels", "3"]) == 0
    out = capsys.readouterr().out
    assert (
        "weights    G of old/checkpoints/kimg-000000.032.pt: 12 of 14 tensors, but not blocks.2.bias (here [3]," in out
    )
    assert "frozen     1 block of D, 196 parameters" in out
    assert (
        "advice     --freeze-d 1 keeps random weights: blocks.0.layer.weight, "
        "not taken from old/checkpoints/kimg-000000.032.pt; a smaller --freeze-d lets D learn" in out
    )
    run = json.loads(Path("new/run.json").read_text())
    assert run["config"]["init_from"] == "old" and run["config"]["freeze_d"] == 1
    (start,) = run["starts"]
    assert start["kimg"] == 0 and start["initialised_from"] == "old/checkpoints/kimg-000000.032.pt"
    assert start["weights"]["D"].endswith("there [4, 1, 4, 4])")
    # A resumed run has its own weights, and what the old one had is not needed any more.
    (tmp_path / "old").rename(tmp_path / "gone")
    assert train.main([*TINY, "--resume", "new", "--channels", "3", "--kimg", "0.064"]) == 0
    assert train.main([*TINY, "--resume", "new", "--channels", "3", "--kimg", "0.096", "--freeze-d", "0"]) == 2
    assert "freeze_d: the run has 1, now 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["--init-from", "nowhere"], "error: nowhere: no such checkpoint or run directory"),
        (["--resume", "old", "--init-from", "old"], "error: init_from: want a new run, got --resume beside it"),
        (["--resume", "old", "--init-from=old"], "error: init_from: want a new run, got --resume beside it"),
        (["--init-from", "note.txt"], "error: note.txt: cut short, or no checkpoint of gan_engine"),
    ],
)
def test_a_wrong_beginning_makes_nothing(tmp_path, monkeypatch, capsys, arguments, want):
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("hello")
    assert train.main([*TINY, *arguments]) == 2
    assert want in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
