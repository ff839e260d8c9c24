"""A run can be repeated bit for bit, goes on where it was stopped, and stops before it does harm."""

import dataclasses
import os
import signal

import pytest
import torch
from PIL import Image

from gan_engine import models
from gan_engine.runs.history import read_metrics
from gan_engine.runs.monitors import Monitors
from gan_engine.system import checkpoint
from gan_engine.training.nonfinite import NonFiniteError
from gan_engine.training.precision import Precision
from gan_engine.training.trainer import Trainer
from tests.training.runs import (
    CPU,
    DCGAN,
    FAMILIES,
    LAZY,
    MLP,
    NO_NORM,
    PATHS,
    PRETRAINED,
    RECTANGLES,
    STYLEGAN2,
    assert_equal,
    weights,
)

# A run


def test_a_run_leaves_metrics_grids_and_checkpoints(make):
    trainer = make()
    assert trainer.run() is None
    run_dir = trainer.run_dir
    rows = read_metrics(run_dir)
    assert [row["nimg"] for row in rows] == [32, 64, 96, 128, 160]
    assert {"loss/D", "loss/G", "seconds"} <= rows[-1].keys()
    grids = sorted(path.name for path in (run_dir / "samples").glob("kimg-*.png"))
    assert grids == [f"kimg-000000.{nimg}.png" for nimg in ("000", "080", "160")]
    kept = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    assert kept == ["kimg-000000.128.pt", "kimg-000000.160.pt"]
    state = checkpoint.load(checkpoint.find(run_dir))
    G, _ = models.build(models.from_dict(state["model"]))
    G.load_state_dict(state["G_ema"])


# Where level None is not level 2.
LEVELS = {
    dataclasses.replace(DCGAN, r1_gamma=1.0): "batch norms with R1",
    dataclasses.replace(MLP, r1_gamma=1.0, gp_weight=10.0, loss="wasserstein"): "small",
}


@pytest.mark.parametrize(
    "config",
    [DCGAN, MLP, STYLEGAN2, LAZY, PATHS, PRETRAINED, *LEVELS, *FAMILIES.values(), *RECTANGLES.values()],
    ids=[
        *("dcgan", "vanilla", "stylegan2", "lazy penalties", "paths", "pretrained"),
        *(*LEVELS.values(), *FAMILIES, *(f"{name}, rectangles" for name in RECTANGLES)),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(make, config):
    whole = make(config)
    for _ in range(6):
        whole.step()
    first = make(config)
    for _ in range(3):
        first.step()
    path = checkpoint.Keeper(first.run_dir, keep=1).save(first.nimg, first.state_dict())
    second = make(config, seed=config.seed)
    torch.rand(5)
    second.load_state_dict(checkpoint.load(path))
    for _ in range(3):
        second.step()
    assert_equal(weights(whole), weights(second))
    assert whole.means.read() == second.means.read()


def test_a_resumed_run_keeps_its_precision_and_says_where_threads_differ(make):
    state = make(precision="bf16").state_dict()
    state["config"]["precision"] = "auto"
    state["threads"] += 1
    trainer = make(precision="auto")
    with pytest.warns(UserWarning, match=rf"the run had {state['threads']} threads, now {state['threads'] - 1}"):
        trainer.load_state_dict(state)
    assert trainer.precision.name == "bf16"


@pytest.mark.parametrize("missing", ["config", "rng", "means"])
def test_a_state_with_a_part_missing_changes_nothing(make, missing):
    state = make().state_dict()
    del (state if missing in state else state["processes"][0])[missing]
    trainer = make(seed=1)
    before = weights(trainer)
    with pytest.raises(checkpoint.CheckpointError, match=f"here: want a checkpoint of a training with {missing}, got"):
        trainer.load_state_dict(state, source="here")
    assert_equal(before, weights(trainer))


def test_a_run_resumed_from_an_older_checkpoint_leaves_the_later_ones_behind_at_once(make, monkeypatch):
    make(keep=5).run()
    trainer = make(keep=5)
    older = trainer.run_dir / "checkpoints" / "kimg-000000.064.pt"
    trainer.load_state_dict(checkpoint.load(older))

    def step(self):
        raise NonFiniteError("at once")

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(NonFiniteError, match=r"last good checkpoint: .*kimg-000000.064.pt"):
        trainer.run()
    assert checkpoint.find(trainer.run_dir) == older
    assert [row["nimg"] for row in read_metrics(trainer.run_dir)] == [32, 64]


def test_an_error_between_two_steps_saves(make, monkeypatch):
    def scalars(self, nimg, values):
        raise RuntimeError("out of ideas")

    monkeypatch.setattr(Monitors, "scalars", scalars)
    trainer = make(checkpoint_kimg=1)
    with pytest.raises(RuntimeError, match="out of ideas"):
        trainer.run()
    assert checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == trainer.nimg == 32


def test_every_class_has_a_row_of_eight_at_least(data, make):
    two = dataclasses.replace(data, labels=data.labels % 2, class_names=("a", "b"))
    config = dataclasses.replace(MLP, conditional=True, model=dataclasses.replace(MLP.model, c_dim=2))
    trainer = Trainer(config, two, device=CPU, run_dir=make().run_dir)
    assert trainer.columns == 8 and trainer.samples().shape == (16, 1, 16, 16)
    trainer.run()
    with Image.open(trainer.run_dir / "samples/kimg-000000.000.png") as grid:
        assert grid.size == (8 * 66 + 2, 2 * 66 + 2)


def test_another_configuration_is_refused_by_field(make):
    state = make().state_dict()
    with pytest.raises(ValueError, match="these differ:\n  loss: the run has 'nonsaturating', now 'hinge'\n  lr: "):
        make(loss="hinge", lr=1.0).load_state_dict(state)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends_the_run(make, monkeypatch, number):
    def step(self, step=Trainer.step):
        step(self)
        if self.nimg == 48:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "step", step)
    before = signal.getsignal(number)
    trainer = make()
    assert trainer.run() == number
    assert signal.getsignal(number) is before
    assert checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == 48
    assert (trainer.run_dir / "samples" / "kimg-000000.048.png").exists()


def test_a_signal_between_two_steps_saves_too(make, monkeypatch):
    def scalars(self, nimg, values):
        if nimg == 32:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Monitors, "scalars", scalars)
    trainer = make()
    assert trainer.run() == signal.SIGTERM
    assert checkpoint.load(checkpoint.find(trainer.run_dir))["nimg"] == trainer.nimg == 48


def test_a_second_interrupt_aborts(make, monkeypatch):
    def step(self):
        signal.raise_signal(signal.SIGINT)  # of this thread, so that the two stay two
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(KeyboardInterrupt):
        make().run()


# Values that are not finite


def test_a_nan_names_term_and_layer_and_leaves_the_weights(make):
    trainer = make()
    trainer.step()
    # The first block's input overflows: finite weights, no finite output.
    with torch.no_grad():
        trainer.D.blocks[1].norm.weight.fill_(3e38)
        trainer.D.blocks[1].norm.bias.fill_(3e38)
    before = [p.clone() for p in (*trainer.G.parameters(), *trainer.D.parameters())]
    with pytest.raises(NonFiniteError) as error:
        trainer.step()
    assert "phase D met a value that is not finite at 0.016 kimg, step 1" in str(error.value)
    assert "first layer: D.blocks.1.norm (BatchNorm2d): " in str(error.value)
    assert "term D: " in str(error.value)
    assert all(map(torch.equal, before, [*trainer.G.parameters(), *trainer.D.parameters()]))


def test_broken_weights_are_named(make):
    trainer = make()
    with torch.no_grad():
        trainer.G.blocks[1].layer.weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(
        NonFiniteError, match=r"weights were not finite .*:\n  G.blocks.1.layer.weight: 1 NaN and 0 inf"
    ):
        trainer.step()


def test_a_gradient_that_is_not_finite_is_named(make):
    trainer = make(MLP)

    def terms(batch):
        logits = trainer.D(batch.real_img)
        return {"D": (logits - logits.detach()).abs().sqrt() + logits}  # the slope of the root at 0

    trainer.phases[0] = dataclasses.replace(trainer.phases[0], terms=terms)
    with pytest.raises(NonFiniteError, match=r"in the backward pass, .*\n  D.layers.2.linear.weight: 16 NaN"):
        trainer.step()


def test_gradients_whose_norm_overflows_are_named(make):
    trainer = make(MLP)

    def terms(batch):
        return {"D": 1e25 * trainer.D(batch.real_img)}  # finite, and its square is not

    trainer.phases[0] = dataclasses.replace(trainer.phases[0], terms=terms)
    with pytest.raises(NonFiniteError, match=r"in the norm of the gradients, .* largest is in D.layers.2.bias"):
        trainer.step()


def test_penalties_that_are_not_finite_are_told_from_the_rest(make):
    trainer = make(NO_NORM, r1_gamma=1e9)
    with torch.no_grad():
        trainer.D.blocks[0].layer.weight.mul_(1e8)
        trainer.D.logit.weight.mul_(1e8)
    with pytest.raises(NonFiniteError, match=r"computed once more, without its penalties, and then all values were"):
        trainer.step()


def test_gradients_that_overflow_at_every_loss_scale_end_the_run(make):
    trainer = make(MLP)
    trainer.precision.switch("fp16")

    def terms(batch):
        logits = trainer.D(batch.real_img).float()
        return {"D": (logits - logits.detach()).abs().sqrt() + logits}

    trainer.phases[0] = dataclasses.replace(trainer.phases[0], terms=terms)
    before = [p.clone() for p in trainer.D.parameters()]
    for _ in range(15):  # at scales from 2^16 to 4
        trainer.step()
    with pytest.raises(NonFiniteError, match=r"phase D .*\n.*in the backward pass"):
        for _ in range(5):
            trainer.step()
    assert all(map(torch.equal, before, trainer.D.parameters()))


def test_a_stop_leaves_the_weights_with_loss_scaling_too():
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    precision = Precision("fp16", CPU)
    before = net.weight.clone()
    for skip in (1.0, 0.0):
        optimizer.zero_grad()
        (net(torch.ones(1, 2)).sum() * precision.scale(1.0)).backward()
        precision.unscale(optimizer)
        precision.step(optimizer, torch.tensor(skip))
        assert torch.equal(net.weight, before) == bool(skip)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp32"}, " or --on-collapse rollback"),
        ({"precision": "bf16"}, " or --precision fp32 or --on-collapse rollback"),
        ({"precision": "fp32", "on_collapse": "rollback", "rollbacks": 1}, ""),
    ],
    ids=["fp32", "bf16", "rollback"],
)
def test_a_nan_during_a_run_keeps_the_last_good_checkpoint(make, monkeypatch, options, said):
    def step(self, step=Trainer.step):
        if self.nimg == 80:
            with torch.no_grad():
                self.D.blocks[0].bias[0] = torch.nan
        step(self)

    monkeypatch.setattr(Trainer, "step", step)
    trainer = make(**options)
    with pytest.raises(NonFiniteError, match=r"last good checkpoint: .*kimg-000000.064.pt") as error:
        trainer.run()
    assert str(error.value).endswith(f"\nto try in a new run: a lower --lr{said}")
    state = checkpoint.load(checkpoint.find(trainer.run_dir))
    assert state["nimg"] == 64
    assert all(value.isfinite().all() for value in state["D"].values())
    assert [row["nimg"] for row in read_metrics(trainer.run_dir) if "loss/D" in row] == [32, 64]
